use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use saker_updater::Updater;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Target, seconds, settle};
use crate::entities::Compare;
use crate::updater::{self, Options};

/// Arguments of `saker updater`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker updater retail\n  saker updater retail --name updater-1 --workers 4\n\n\
    An event is applied exactly once, however many updaters there are and whenever one is killed. What can never be applied is \
    put aside in the stream events:rejected. What it is doing: http://<metrics address>/metrics."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Name of this process in the consumer group: another than that of any other one, and the same after a restart
    #[arg(long, env = "SAKER_UPDATER_NAME", default_value = "updater")]
    name: String,
    /// Threads that apply events
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Events that a thread takes at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Seconds after which events that another process took and did not apply are taken over
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    claim_after: Duration,
    /// Days in which a popularity count fades to half; 0: it does not fade
    #[arg(long, default_value_t = 7.0, value_name = "DAYS")]
    popularity_half_life: f64,
    /// Seconds between two writes to the offline store
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    offline_every: Duration,
    /// Address of the Prometheus metrics; `off`: none
    #[arg(
        long,
        env = "SAKER_UPDATER_METRICS",
        default_value = "127.0.0.1:8003",
        value_name = "HOST:PORT"
    )]
    metrics: String,
}

/// Applies events until it is told to stop.
pub(super) fn run(args: &Args) -> Result<()> {
    let (mut pipeline, layout) = args.target.open()?;
    settle(&mut pipeline, Compare::Types)?;
    let settings = updater::settings(
        &pipeline,
        &layout,
        &Options {
            name: args.name.clone(),
            workers: args.workers.into(),
            batch: args.batch.into(),
            claim_after: args.claim_after,
            half_life_days: args.popularity_half_life,
            offline_every: args.offline_every,
        },
    )?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    let (items, url) = (settings.catalogue.len(), settings.store.url().to_string());
    let updater = Updater::start(settings).with_context(|| {
        format!(
            "{url} does not take events; `saker serve {}` starts a store",
            pipeline.pipeline.name
        )
    })?;
    let counters = updater.counters();
    let metrics = match args.metrics.as_str() {
        "off" => None,
        address => Some(updater::serve_metrics(address, counters.clone())?),
    };
    println!("applying the events of {items} items at {url}; Ctrl-C stops");
    if let Some(address) = metrics {
        println!("metrics  http://{address}/metrics");
    }
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
    updater.stop();
    println!(
        "{} events applied",
        counters.applied.load(Ordering::Relaxed)
    );
    Ok(())
}
