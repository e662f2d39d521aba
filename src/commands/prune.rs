use std::time::Duration;

use anyhow::{Result, ensure};
use clap::builder::NonEmptyStringValueParser;
use saker_serving::registry::Registry;
use saker_serving::target::duration;

/// Arguments of `saker prune`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker prune --from s3://shop/releases --keep 14\n  saker prune --from /mnt/releases --keep 3 --dry-run\n\n\
    These stay in any case: the wanted release, the one that `saker rollback` goes back to, and each release that a server serves. \
    A file goes with the last release that has it. `saker promote` prunes the model repository of one machine."
)]
pub struct Args {
    /// Store of releases: a folder, file:// or s3://bucket/prefix
    #[arg(long, value_name = "URL", env = "SAKER_RELEASES", value_parser = NonEmptyStringValueParser::new())]
    from: String,
    /// Number of newest releases to keep, at least 1
    #[arg(long, value_name = "N", default_value_t = 10)]
    keep: usize,
    /// Remove only files that are at least this old, with the unit s, m or h: a publication in progress has files of no release yet
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    older_than: Duration,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Removes old releases from a store.
pub(super) fn run(args: &Args) -> Result<()> {
    ensure!(args.keep > 0, "--keep 0: at least one release must be kept");
    let registry = Registry::open(&args.from)?;
    let pruned = registry.prune(args.keep, args.older_than, args.dry_run)?;
    for release in &pruned.releases {
        println!("{release}");
    }
    let what = if args.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    println!(
        "{} releases, {} files ({:.1} MB) and {} reports of servers {what}; {} releases stay",
        pruned.releases.len(),
        pruned.files,
        pruned.bytes as f64 / 1e6,
        pruned.reports,
        pruned.kept
    );
    Ok(())
}
