use std::sync::atomic::AtomicBool;

use anyhow::Result;
use saker_materialize::materialize;
use saker_run::server;
use saker_serving::entities::Compare;
use saker_serving::target::{Target, settle};

/// Arguments of `saker materialize`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker materialize\n  saker materialize --seen\n  \
    SAKER_REDIS_URL=rediss://user:password@store.shop:6379 saker materialize\n\n\
    Without a server at the definition's address, a Valkey is started on .saker/<name>/valkey for as long as it takes; \
    `saker serve` then serves what was written."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Record each user's training interactions as seen, so that they are not recommended for seven days, even if the definition does not
    /// request it (store.bloom.from_training)
    #[arg(long)]
    seen: bool,
}

/// Writes to the stores.
pub(super) fn run(args: &Args) -> Result<()> {
    let (mut pipeline, layout) = args.target.open()?;
    let seen = args.seen || pipeline.store.bloom.from_training;
    let never = AtomicBool::new(false);
    let started = server::store(&layout, &pipeline.store.redis_url, &never)?;
    let settled = settle(&mut pipeline, Compare::Types);
    let written = settled.and_then(|()| materialize(&pipeline, &layout, seen));
    if let Some(mut valkey) = started {
        valkey.stop(&layout)?;
    }
    let written = written?;
    println!(
        "{} users, {} items, {} popularity sets, {} rows in the offline store{}",
        written.users,
        written.items,
        written.popularity_sets,
        written.offline,
        if seen {
            format!(", seen items of {} users", written.seen)
        } else {
            String::new()
        }
    );
    Ok(())
}
