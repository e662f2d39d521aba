use std::path::{Path, PathBuf};

use anyhow::Result;
use saker_dataset::engine::Engine;
use saker_dataset::prepare;
use saker_pipeline::Pipeline;
use saker_prepare::limits::Limits;
use saker_prepare::up_to_date::{self, Fingerprint};
use saker_serving::files;
use saker_serving::target::Target;

use crate::code::CODE;

/// Arguments of `saker prepare`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker prepare\n  saker prepare movielens --force\n  saker prepare retail --memory-mib 512\n  saker prepare --pipeline shop.toml\n  saker prepare --pipeline shop.toml --engine ballista://scheduler:50050"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Prepare even if data and definition have not changed
    #[arg(long)]
    force: bool,
    /// Write the version of data and definition (16 hexadecimal digits) to this file and exit; it is a key for artefacts made from them
    #[arg(long, value_name = "FILE", conflicts_with = "force")]
    data_version: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    /// What reads, sorts and counts interactions: local, or ballista://HOST:PORT, the scheduler of a Ballista cluster. The cluster reads
    /// files under the paths that they have here; ?partitions=COUNT says into how many parts it divides its work
    #[arg(long, value_name = "ENGINE", env = "SAKER_ENGINE", default_value_t)]
    engine: Engine,
}

/// Prepares the data unless nothing has changed.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let fingerprint = prepare::fingerprint(&pipeline, CODE)?;
    if let Some(path) = &args.data_version {
        return files::write(path, version(pipeline, &fingerprint)?);
    }
    let made = prepare::made(&pipeline, &layout);
    let made: Vec<&Path> = made.iter().map(|path| path.as_path()).collect();
    if !args.force && up_to_date::is_current(&layout, "prepare", &fingerprint, &made) {
        println!(
            "{} is prepared already; --force does it again",
            pipeline.pipeline.name
        );
        return Ok(());
    }
    let settings = args.limits.settings();
    let engine = &args.engine;
    let summary = up_to_date::renew(&layout, "prepare", &fingerprint, || {
        engine.prepare(&args.target, &pipeline, &layout, &settings, CODE)
    })?;
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

/// A hash over the data and the whole definition, except the store's address and password.
fn version(mut pipeline: Pipeline, data: &str) -> Result<String> {
    pipeline.store.redis_url.clear();
    let fingerprint = Fingerprint::of_code(CODE).value(&pipeline)?.value(&data)?;
    let mut version = fingerprint.finish();
    version.truncate(16);
    Ok(version)
}
