//! The follower as a program: it keeps the Triton beside it on the release that a store of releases wants.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags, rustdoc::bare_urls)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use triton_client::Triton;

use super::metrics;
use super::stop_flag;
use crate::control;
use crate::follower::{Counted, Follower};
use crate::progress::Step;
use crate::registry::Registry;
use crate::releases::{self, Repository};
use crate::target::duration;

/// Time that a signal leaves for the current work.
const DRAIN: Duration = Duration::from_secs(20);
/// Interval at which the stop flag is checked.
const TICK: Duration = Duration::from_millis(50);

/// Arguments of `saker-follow`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker-follow --once --repository /models --wait 300\n  \
    saker-follow --repository /models --triton 127.0.0.1:8000 --listen 0.0.0.0:8004\n\n\
    A release is loaded beside the one that serves and asked by a canary; then the ensembles are switched in one step. One that \
    fails never serves: what is wrong with it stands in the log, in /metrics and in the store, where `saker promote --to` reads \
    it. The key to Triton's control API is read from SAKER_CONTROL_KEY. SIGTERM ends it within 20 seconds; Triton serves on."
)]
pub struct Args {
    /// Store of releases: a folder, file:// or s3://bucket/prefix, with the AWS clients' settings from the environment
    #[arg(long, value_name = "URL", env = "SAKER_RELEASES", value_parser = NonEmptyStringValueParser::new())]
    releases: String,
    /// Folder of the model repository that Triton serves
    #[arg(long, value_name = "FOLDER")]
    repository: PathBuf,
    /// Put the release to serve into the repository and exit, before Triton starts
    #[arg(long)]
    once: bool,
    /// With --once: seconds to wait for a release to be wanted, and for a store that does not answer
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = duration)]
    wait: Duration,
    /// Triton's HTTP address
    #[arg(long, value_name = "HOST:PORT", env = "SAKER_SERVER", default_value = "127.0.0.1:8000", value_parser = NonEmptyStringValueParser::new())]
    triton: String,
    /// Unique name of this server in the store [default: the machine's name]
    #[arg(long, env = "SAKER_SERVER_NAME")]
    name: Option<String>,
    /// Seconds between two polls of the wanted release
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = duration)]
    every: Duration,
    /// Number of newest releases that stay in the repository; the serving one and the one before it always stay
    #[arg(long, value_name = "N", default_value_t = 2)]
    keep: usize,
    /// Address of /metrics, /health/live and /health/ready; `off`: none
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8004")]
    listen: String,
}

/// Follows until a signal.
///
/// # Errors
/// Returns an error if the arguments, the store of releases or the repository cannot be used.
pub fn run(args: &Args) -> Result<()> {
    let registry = Registry::open(&args.releases)?;
    let stop = stop_flag()?;
    if args.once {
        return once(args, &registry, &stop);
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => machine()?,
    };
    let counted = Arc::new(Counted::new());
    let listening = listen(&args.listen, counted.clone())?;
    let triton = control::with_key(Triton::new(&args.triton), control::key_from_environment());
    println!("following {} for {}", args.releases, args.triton);
    if let Some(address) = listening {
        println!("metrics   http://{address}/metrics");
    }
    let (repository, every, keep) = (args.repository.clone(), args.every, args.keep);
    let told = stop.clone();
    let follower = std::thread::Builder::new()
        .name("follower".into())
        .spawn(move || {
            let mut follower =
                Follower::new(registry, repository, triton, name, every, keep, counted);
            while !told.load(Ordering::Relaxed) {
                let start = Instant::now();
                let pause = follower.look();
                while start.elapsed() < pause && !told.load(Ordering::Relaxed) {
                    sleep(TICK);
                }
            }
            follower.leave();
        })
        .context("no thread for the follower")?;
    while !stop.load(Ordering::Relaxed) {
        if follower.is_finished() {
            bail!("the follower has ended; the log says why");
        }
        sleep(TICK);
    }
    let start = Instant::now();
    while !follower.is_finished() && start.elapsed() < DRAIN {
        sleep(TICK);
    }
    if !follower.is_finished() {
        // Ending here is safe: a killed promotion leaves server and repository with one complete release.
        tracing::warn!(
            "the current work takes longer than {} s and is abandoned",
            DRAIN.as_secs()
        );
    }
    Ok(())
}

/// Puts the release to serve into the repository.
fn once(args: &Args, registry: &Registry, stop: &AtomicBool) -> Result<()> {
    let (_, named) = registry.wait_for_served(Some(args.wait), stop)?;
    let step = Step::start(format!("fetch release {}", named.release));
    let (published, _) = registry.release(&named.release, Some(&named.sha256))?;
    let fetched = registry.fetch(&published, &args.repository, true)?;
    let repository = Repository::open(&args.repository)?;
    releases::promote(&repository, None, fetched.version, args.keep, &mut |_| {})?;
    step.done(&fetched.to_string());
    Ok(())
}

/// The machine's name.
fn machine() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.context("this machine's name is not known; --name gives one")?;
    Ok(name.trim().to_owned())
}

fn listen(address: &str, counted: Arc<Counted>) -> Result<Option<SocketAddr>> {
    if address == "off" {
        return Ok(None);
    }
    let ready = counted.clone();
    metrics::serve(
        address,
        "--listen",
        move || counted.text(),
        move || match ready.is_serving() {
            true => Ok(()),
            false => Err("Triton serves no release".to_owned()),
        },
    )
    .map(Some)
}
