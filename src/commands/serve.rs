use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use saker_contract::release::INDEX;
use saker_run::server::{self, Started};
use saker_run::supervisor::{Lock, Supervisor};
use saker_run::watchdog::Watchdog;
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_serving::programs::traces;
use saker_serving::progress::Step;
use saker_serving::running::{Ports, Running};
use saker_serving::target::Target;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Arguments of `saker serve`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  saker serve\n  saker serve --shop\n  \
    saker serve --detach && saker recommend --user 42 && saker stop\n  \
    saker serve --http-port 9000 --grpc-port 9001 --metrics-port 9002\n\n\
    A Valkey is started too, unless a server answers at the definition's address. If a process exits, or Triton does not \
    answer an inference, it is logged and restarted. A `serve` that was killed leaves its servers running; the next one takes \
    them over. Triton's control API asks for the key in .saker/<name>/run/control.key. Logs: .saker/<name>/logs.")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Return when everything is ready, and keep the processes running; `saker stop` stops them
    #[arg(long)]
    detach: bool,
    /// Also start the updater and the gateway with its pages
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
    #[command(flatten)]
    traces: traces::Options,
}

/// Name of a detached `saker serve` in `run/` and `logs/`.
pub(super) const SUPERVISOR: &str = "serve";

/// The file written when everything is ready; `saker serve --detach` prints it.
fn ready_file(layout: &Layout) -> PathBuf {
    layout.run().join("serve.ready")
}

/// Whether every process of `saker serve` is ready.
pub(super) fn is_ready(layout: &Layout) -> bool {
    ready_file(layout).exists() && Lock::is_taken(layout, SUPERVISOR)
}

/// Starts the processes that do not run, and supervises them until it is stopped.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    let repository = layout.repository();
    if !repository.join(INDEX).exists() {
        bail!(
            "{} is missing; run `saker assemble {name}`",
            repository.display()
        );
    }
    if args.detach {
        return detach(&layout, name, &args.target);
    }
    let Some(_lock) = Lock::take(&layout, SUPERVISOR)? else {
        bail!(
            "{name} is served already{}; `saker stop {name}` stops it",
            place(&layout)
        );
    };
    files::remove(&ready_file(&layout))?;
    let ports = Ports {
        http: args.http_port,
        grpc: args.grpc_port,
        metrics: args.metrics_port,
    };
    let left = Running::find(&layout, "triton");
    if let Some(other) = left.and_then(|triton| triton.ports)
        && other != ports
    {
        bail!(
            "an earlier `saker serve` has left Triton running at the ports {}, {} and {}; give the same ports, or stop it with \
             `saker stop {name}`",
            other.http,
            other.grpc,
            other.metrics
        );
    }
    for (what, address) in [("gateway", args.listen), ("updater", args.updater_metrics)] {
        let left = Running::find(&layout, what).is_some();
        if args.shop && !left && server::listens(&address.to_string()) {
            bail!(
                "{address}, where the {what} is to listen, is taken; stop what listens there, or see `saker serve --help`"
            );
        }
    }

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    let (address, _) = server::address(&pipeline.store.redis_url);
    let traces = args.traces.of_triton()?;
    let mut supervisor = Supervisor::new(&layout);

    let step = Step::start("start Valkey");
    let url = &pipeline.store.redis_url;
    let valkey = || server::store(&layout, url, &stop);
    supervisor.start("valkey", Box::new(valkey), None)?;
    step.done(&match supervisor.runs("valkey") {
        true => format!("at {address}"),
        false => format!("one answers at {address}"),
    });
    let step = Step::start("start Triton and load the 14 steps");
    let triton = || {
        let started = server::triton(
            &layout,
            &repository,
            &args.host,
            ports,
            &traces,
            (url, &stop),
        );
        started.map(Some)
    };
    let watch = || {
        let address = format!("127.0.0.1:{}", ports.http);
        Watchdog::start(&address, &server::ensembles(&repository), &pipeline.user.id)
    };
    supervisor.start("triton", Box::new(triton), Some(Box::new(watch)))?;
    step.done("ready");
    if args.shop {
        shop(args, &layout, &stop, &mut supervisor)?;
    }
    let mut said = format!(
        "HTTP     http://{}:{}/v2/models/ensemble_model\ngRPC     {}:{}\nmetrics  http://{}:{}/metrics\nstore    {address}\n",
        args.host, ports.http, args.host, ports.grpc, args.host, ports.metrics
    );
    if args.shop {
        said += &format!("shop     http://{}/\n", args.listen);
    }
    said += &format!("logs     {}\n", layout.logs().display());
    print!("{said}");
    println!("Ctrl-C stops it");
    files::write(&ready_file(&layout), said)?;
    supervisor.watch(&stop);
    files::remove(&ready_file(&layout))
}

/// The text ` at port 8000`, if the port is known.
fn place(layout: &Layout) -> String {
    let ports = Running::find(layout, "triton").and_then(|triton| triton.ports);
    ports.map_or_else(String::new, |ports| format!(" at port {}", ports.http))
}

/// Starts the updater and the gateway.
fn shop<'s>(
    args: &'s Args,
    layout: &'s Layout,
    stop: &'s AtomicBool,
    supervisor: &mut Supervisor<'s>,
) -> Result<()> {
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
        let (arguments, mut environment) = (with(option, address), args.target.environment());
        environment.extend(args.traces.environment());
        let address = address.to_string();
        let start = move || {
            let ready = || server::listens(&address);
            server::command(layout, name, &arguments, &environment, stop, ready).map(Some)
        };
        supervisor.start(name, Box::new(start), None)?;
        step.done("ready");
    }
    Ok(())
}

/// Starts this command again in the background, and returns when it is ready.
fn detach(layout: &Layout, name: &str, target: &Target) -> Result<()> {
    // One at a time, otherwise the second one would use the first one's log and record.
    let Some(_starting) = Lock::take(layout, "start")? else {
        bail!(
            "another `saker serve {name} --detach` is starting; `saker status {name}` says when it is ready"
        );
    };
    if Lock::is_taken(layout, SUPERVISOR) {
        println!("{name} is served already{}", place(layout));
        return Ok(());
    }
    files::remove(&ready_file(layout))?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    // Every user of the machine can read the arguments, and the store's address may contain a password.
    let mut hidden = false;
    command.args(std::env::args_os().skip(1).filter(|argument| {
        let value = std::mem::replace(&mut hidden, argument == "--redis-url");
        let own = argument.to_string_lossy().starts_with("--redis-url");
        !value && !own && argument != "--detach"
    }));
    command.envs(target.environment());
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())
            .context("cannot handle signals")?;
    }
    let mut started = Started::spawn(layout, SUPERVISOR, command, None)?;
    started.wait(layout, &interrupted, || ready_file(layout).exists())?;
    let said = std::fs::read_to_string(ready_file(layout)).unwrap_or_default();
    print!("{said}");
    Ok(())
}
