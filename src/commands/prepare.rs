use std::path::Path;

use anyhow::Result;
use saker_bulk::Settings;
use saker_serving::target::Target;

use crate::{prepare, stamp};

/// Arguments of `saker prepare`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker prepare\n  saker prepare movielens --force\n  saker prepare retail --memory-mib 512\n  saker prepare --pipeline shop.toml"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Prepare even when data and definition have not changed
    #[arg(long)]
    force: bool,
    /// Memory for sorting, joining and counting interactions, in MiB; what does not fit is spilled to disk. Users and items come on
    /// top
    #[arg(long, value_name = "MIB", env = "SAKER_MEMORY_MIB", default_value_t = 768,
        value_parser = clap::value_parser!(u64).range(64..))]
    memory_mib: u64,
    /// Threads; all cores unless given
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    threads: Option<u64>,
}

/// Prepares unless nothing has changed.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let fingerprint = prepare::fingerprint(&pipeline)?;
    let made = prepare::made(&pipeline, &layout);
    let made: Vec<&Path> = made.iter().map(|path| path.as_path()).collect();
    if !args.force && stamp::is_current(&layout, "prepare", &fingerprint, &made) {
        println!(
            "{} is prepared already; --force does it again",
            pipeline.pipeline.name
        );
        return Ok(());
    }
    let mut settings = Settings {
        memory_bytes: (args.memory_mib << 20) as usize,
        ..Settings::default()
    };
    if let Some(threads) = args.threads {
        settings.threads = threads as usize;
    }
    let summary = prepare::prepare(&pipeline, &layout, settings)?;
    stamp::record(&layout, "prepare", &fingerprint)?;
    let [train, validation, test] = summary.events;
    println!(
        "{}: {} users, {} items, {train} training, {validation} validation and {test} test interactions in {}",
        pipeline.pipeline.name,
        summary.users,
        summary.items,
        layout.root().display()
    );
    Ok(())
}
