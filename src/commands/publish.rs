use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::NonEmptyStringValueParser;
use saker_serving::files;
use saker_serving::progress::Step;
use saker_serving::registry::Registry;
use saker_serving::target::Target;

use super::promote::Place;

/// Arguments of `saker publish`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker publish --to s3://shop/releases\n  saker publish retail --to /mnt/releases --release 4\n\n\
    Every file is stored under its SHA-256, once; the release is visible when all of it is there. Stopped, it goes on when it \
    is run again. The AWS clients' settings come from the environment. `saker promote --to` makes the servers take it."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Store of releases: a folder, file:// or s3://bucket/prefix
    #[arg(long, value_name = "URL", env = "SAKER_RELEASES", value_parser = NonEmptyStringValueParser::new())]
    to: String,
    /// Release to publish, its id or its version [default: the newest]
    #[arg(long, value_name = "ID")]
    release: Option<String>,
    /// Write the release's id into this file
    #[arg(long, value_name = "FILE")]
    published: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Writes a release to a store.
pub(super) fn run(args: &Args) -> Result<()> {
    let (_, layout) = args.target.open()?;
    let repository = args.place.repository(&layout)?;
    let index = repository.index()?;
    let version = index.find_or_newest(args.release.as_deref())?;
    let id = index.releases.get(&version);
    let id = id.with_context(|| format!("releases.json has no version {version}"))?;
    let registry = Registry::open(&args.to)?;
    let step = Step::counted("publish", 0);
    let uploaded = registry.publish(&repository, version, &layout, &mut |done, all| {
        step.of(done, all);
    })?;
    step.done(&format!(
        "{} files, {} of them new, {:.1} MB",
        uploaded.files,
        uploaded.new_files,
        uploaded.new_bytes as f64 / 1e6
    ));
    println!("{} is in {}", index.name(version), args.to);
    match &args.published {
        Some(path) => files::write(path, id),
        None => Ok(()),
    }
}
