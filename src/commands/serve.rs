use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Target;
use crate::layout::Layout;
use crate::progress::Step;
use crate::server::{self, Ports, Running, Started};
use crate::supervisor::Supervisor;

/// Arguments of `saker serve`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  saker serve\n  saker serve --shop\n  \
    saker serve --detach && saker recommend --user 42 && saker stop\n  \
    saker serve --http-port 9000 --grpc-port 9001 --metrics-port 9002\n\n\
    A Valkey is started too, unless a server answers at the definition's address. A process that ends is said and started \
    again. Logs: .saker/<name>/logs.")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Return when all is ready, and leave it running; `saker stop` stops it
    #[arg(long)]
    detach: bool,
    /// Start the updater and the gateway with its pages, too
    #[arg(long)]
    shop: bool,
    /// Address of the gateway
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SAKER_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// Address of the updater's metrics
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SAKER_UPDATER_METRICS",
        default_value = "127.0.0.1:8003"
    )]
    updater_metrics: SocketAddr,
    /// Address that Triton listens on; 0.0.0.0 for all
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

/// What a detached `saker serve` is known by in `run/` and `logs/`.
pub(super) const SUPERVISOR: &str = "serve";
/// The last line that it prints when all is ready.
const READY: &str = "Ctrl-C stops it";

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
    for (what, address) in [("gateway", args.listen), ("updater", args.updater_metrics)] {
        if args.shop && server::listens(&address.to_string()) {
            bail!(
                "{address}, where the {what} is to listen, is taken; stop what listens there, or see `saker serve --help`"
            );
        }
    }
    if args.detach {
        return detach(&layout);
    }

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    let ports = Ports {
        http: args.http_port,
        grpc: args.grpc_port,
        metrics: args.metrics_port,
    };
    let (address, _) = server::address(&pipeline.store.redis_url);
    let mut supervisor = Supervisor::new(&layout);

    let step = Step::start("start Valkey");
    let url = &pipeline.store.redis_url;
    supervisor.start("valkey", Box::new(|| server::store(&layout, url)))?;
    step.done(&match supervisor.runs("valkey") {
        true => format!("at {address}"),
        false => format!("one answers at {address}"),
    });
    let step = Step::start("start Triton and load the 14 steps");
    let triton = || server::triton(&layout, &repository, &args.host, ports).map(Some);
    supervisor.start("triton", Box::new(triton))?;
    step.done("ready");
    if args.shop {
        shop(args, &layout, &mut supervisor)?;
    }
    println!(
        "HTTP     http://{}:{}/v2/models/ensemble_model",
        args.host, ports.http
    );
    println!("gRPC     {}:{}", args.host, ports.grpc);
    println!("metrics  http://{}:{}/metrics", args.host, ports.metrics);
    println!("store    {address}");
    if args.shop {
        println!("shop     http://{}/", args.listen);
    }
    println!("logs     {}", layout.logs().display());
    println!("{READY}");
    supervisor.watch(&stop);
    Ok(())
}

/// Starts the updater and the gateway.
fn shop<'s>(args: &'s Args, layout: &'s Layout, supervisor: &mut Supervisor<'s>) -> Result<()> {
    let with = |option: &str, address: SocketAddr| {
        let mut arguments = args.target.arguments();
        arguments.extend([option.into(), address.to_string().into()]);
        arguments
    };
    for (name, option, address) in [
        ("updater", "--metrics", args.updater_metrics),
        ("gateway", "--listen", args.listen),
    ] {
        let step = Step::start(format!("start the {name}"));
        let (arguments, environment) = (with(option, address), args.target.environment());
        let address = address.to_string();
        let start = move || {
            let ready = || server::listens(&address);
            server::command(layout, name, &arguments, &environment, ready).map(Some)
        };
        supervisor.start(name, Box::new(start))?;
        step.done("ready");
    }
    Ok(())
}

/// Starts this command once more, in the background, and returns when it is ready.
fn detach(layout: &Layout) -> Result<()> {
    if let Some(left) = Running::find(layout, SUPERVISOR) {
        left.stop(layout, SUPERVISOR)?;
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args(
        std::env::args_os()
            .skip(1)
            .filter(|argument| argument != "--detach"),
    );
    let mut started = Started::spawn(layout, SUPERVISOR, command, None)?;
    let log = layout.log(SUPERVISOR);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    started.wait(layout, || said().lines().any(|line| line == READY))?;
    let said = said();
    let lines = said.lines().filter(|line| *line != READY);
    lines.for_each(|line| println!("{line}"));
    Ok(())
}
