//! The updater as a program: its arguments, and what it takes from a pipeline definition.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags, rustdoc::bare_urls)]

pub mod settings;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use saker_pipeline::Pipeline;
use saker_updater::Updater;

use self::settings::Options;
use crate::entities::Compare;
use crate::programs::source::{Opened, Source};
use crate::programs::traces::{self, prometheus};
use crate::programs::{metrics, stop_flag};
use crate::target::{duration, settle};

/// Arguments of `saker updater`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker updater retail\n  saker updater retail --name updater-1 --workers 4\n\n\
    An event is applied exactly once, however many updaters there are and whenever one is killed. What can never be applied is \
    put aside in the stream events:rejected. What it is doing: http://<metrics address>/metrics."
)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Unique name of this process in the consumer group; it must be the same after a restart
    #[arg(long, env = "SAKER_UPDATER_NAME", default_value = "updater")]
    name: String,
    /// Threads that apply events
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Events that a thread takes at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Seconds after which events are taken over that another process took and did not apply
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = duration)]
    claim_after: Duration,
    /// Half-life of popularity counts in days; 0 disables the decay
    #[arg(long, default_value_t = 7.0, value_name = "DAYS")]
    popularity_half_life: f64,
    /// Offline store, instead of the definition's: a folder, file:// or s3://bucket/prefix
    #[arg(long, value_name = "URL", env = "SAKER_OFFLINE_STORE")]
    offline_store: Option<String>,
    /// Seconds between two writes to the offline store
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = duration)]
    offline_every: Duration,
    /// Seconds that a stop may take; events that are not applied by then are applied after the next start
    #[arg(long, env = "SAKER_UPDATER_DRAIN", default_value = "20", value_name = "SECONDS", value_parser = duration)]
    drain: Duration,
    /// Address of the Prometheus metrics, /health/live and /health/ready; `off`: none
    #[arg(
        long,
        env = "SAKER_UPDATER_METRICS",
        default_value = "127.0.0.1:8003",
        value_name = "HOST:PORT"
    )]
    metrics: String,
    #[command(flatten)]
    traces: traces::Options,
}

/// Applies events until SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// Returns an error if the definition, the prepared data or the store cannot be used.
pub fn run(args: &Args) -> Result<()> {
    let Opened {
        mut pipeline,
        layout,
        followed,
    } = args.source.open()?;
    choose_offline_store(args, &mut pipeline, followed.is_some());
    settle(&mut pipeline, Compare::Types)?;
    let settings = settings::settings(&pipeline, &layout, &options(args)?)?;
    let traces = settings.traces.clone();
    let stop = stop_flag()?;
    let (items, url) = (settings.items.len(), settings.store.url().to_string());
    let updater = Updater::start(settings).with_context(|| {
        format!(
            "{url} does not take events; `saker serve {}` starts a store",
            pipeline.pipeline.name
        )
    })?;
    let counters = updater.counters();
    let updater = Arc::new(updater);
    if let Some(followed) = followed {
        let updater = Arc::downgrade(&updater);
        followed.keep_up(move |pipeline, layout| {
            if let Some(updater) = updater.upgrade() {
                updater.replace_items(settings::item_categories(pipeline, layout)?);
            }
            Ok(())
        })?;
    }
    let metrics = match args.metrics.as_str() {
        "off" => None,
        address => {
            let (counted, readiness) = (counters.clone(), updater.readiness());
            let exports = traces.exports();
            let text = move || {
                let exports = exports.as_deref().map(|sent| prometheus("updater", sent));
                counted.prometheus() + &exports.unwrap_or_default()
            };
            let is_ready = move || readiness.check();
            Some(metrics::serve(address, "--metrics", text, is_ready)?)
        }
    };
    println!("applying the events of {items} items at {url}; Ctrl-C stops");
    if let Some(address) = metrics {
        println!("metrics  http://{address}/metrics");
    }
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
    stop_shared(updater);
    traces.close();
    println!(
        "{} events applied",
        counters.applied.load(Ordering::Relaxed)
    );
    Ok(())
}

/// Takes the offline store of the arguments. Without any, an updater that follows a store of releases uses a folder of its own, because
/// the folder of a release is deleted with it.
fn choose_offline_store(args: &Args, pipeline: &mut Pipeline, follows: bool) {
    if let Some(place) = &args.offline_store {
        pipeline.store.offline = Some(place.clone());
    } else if follows && pipeline.store.offline.is_none() {
        let place = args.source.own_layout(pipeline).offline();
        tracing::warn!(
            "the definition names no offline store: applied events are stored in {}; --offline-store or SAKER_OFFLINE_STORE names one",
            place.display()
        );
        pipeline.store.offline = Some(place.display().to_string());
    }
}

fn options(args: &Args) -> Result<Options> {
    Ok(Options {
        name: args.name.clone(),
        workers: args.workers.into(),
        batch: args.batch.into(),
        claim_after: args.claim_after,
        half_life_days: args.popularity_half_life,
        offline_every: args.offline_every,
        drain: args.drain,
        traces: args.traces.open("saker-updater", Some(&args.name))?,
    })
}

/// Stops the updater once no other thread uses it. The thread that replaces its items uses it for a moment.
fn stop_shared(mut updater: Arc<Updater>) {
    loop {
        match Arc::try_unwrap(updater) {
            Ok(updater) => return updater.stop(),
            Err(shared) => {
                updater = shared;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
