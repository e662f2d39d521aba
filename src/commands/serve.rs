use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Target;
use crate::layout::Layout;
use crate::progress::Step;
use crate::server::{self, Ports, Running, Started};

/// Arguments of `saker serve`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker serve\n  saker serve --detach && saker recommend --user 42 && saker stop\n  \
    saker serve --http-port 9000 --grpc-port 9001 --metrics-port 9002\n\n\
    A Valkey is started too, unless a server answers at the definition's address. Logs: .saker/<name>/logs."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Return when Triton is ready, and leave it running; `saker stop` stops it
    #[arg(long)]
    detach: bool,
    /// Address to listen on; 0.0.0.0 for all
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of HTTP
    #[arg(long, env = "SAKER_HTTP_PORT", default_value_t = 8000)]
    http_port: u16,
    /// Port of gRPC
    #[arg(long, env = "SAKER_GRPC_PORT", default_value_t = 8001)]
    grpc_port: u16,
    /// Port of the Prometheus metrics
    #[arg(long, env = "SAKER_METRICS_PORT", default_value_t = 8002)]
    metrics_port: u16,
}

/// Starts what is not running, and stays until it is told to stop.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    let repository = layout.repository();
    if !repository.join("releases.json").exists() {
        bail!(
            "{} is missing; run `saker assemble {name}`",
            repository.display()
        );
    }
    if let Some(running) = Running::find(&layout, "triton") {
        let at = running
            .ports
            .map(|ports| format!(" at port {}", ports.http))
            .unwrap_or_default();
        if args.detach {
            println!("{name} is served already{at}");
            return Ok(());
        }
        bail!("{name} is served already{at}; `saker stop {name}` stops it");
    }

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    let step = Step::start("start Valkey");
    let mut started: Vec<Started> = Vec::new();
    let valkey = server::store(&layout, &pipeline.store.redis_url)?;
    let (address, _) = server::address(&pipeline.store.redis_url);
    step.done(&match &valkey {
        Some(_) => format!("at {address}"),
        None => format!("one answers at {address}"),
    });
    started.extend(valkey);
    let step = Step::start("start Triton and load the 14 steps");
    let ports = Ports {
        http: args.http_port,
        grpc: args.grpc_port,
        metrics: args.metrics_port,
    };
    match server::triton(&layout, &repository, &args.host, ports) {
        Ok(triton) => started.push(triton),
        Err(error) => {
            stop_all(&layout, &mut started);
            return Err(error);
        }
    }
    step.done("ready");
    println!(
        "HTTP     http://{}:{}/v2/models/ensemble_model",
        args.host, ports.http
    );
    println!("gRPC     {}:{}", args.host, ports.grpc);
    println!("metrics  http://{}:{}/metrics", args.host, ports.metrics);
    println!("store    {address}");
    println!("logs     {}", layout.log("triton").display());
    if args.detach {
        return Ok(());
    }
    println!("Ctrl-C stops it");
    let ended = loop {
        if stop.load(Ordering::Relaxed) {
            break None;
        }
        if let Some(ended) = started
            .iter_mut()
            .find_map(|process| process.has_ended().then_some(process))
        {
            break Some(format!(
                "{} has ended; the end of its log:\n{}",
                ended.name,
                ended.complaints()
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    // Told to stop by `saker stop`, which takes the file about Triton away, is no failure.
    let expected =
        Running::find(&layout, "triton").is_none() && !layout.run().join("triton.json").exists();
    stop_all(&layout, &mut started);
    match ended {
        Some(why) if !expected => bail!(why),
        _ => Ok(()),
    }
}

/// Triton first, so that its last requests still find the store.
fn stop_all(layout: &Layout, started: &mut [Started]) {
    for process in started.iter_mut().rev() {
        let step = Step::start(format!("stop {}", process.name));
        match process.stop(layout) {
            Ok(()) => step.done("stopped"),
            Err(error) => tracing::error!("{error:#}"),
        }
    }
}
