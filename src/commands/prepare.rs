use std::path::Path;

use anyhow::Result;

use super::Target;
use crate::{prepare, stamp};

/// Arguments of `saker prepare`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker prepare\n  saker prepare movielens --force\n  saker prepare --pipeline shop.toml"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Prepare even when data and definition have not changed
    #[arg(long)]
    force: bool,
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
    let summary = prepare::prepare(&pipeline, &layout)?;
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
