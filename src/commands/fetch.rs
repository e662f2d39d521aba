use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::NonEmptyStringValueParser;
use saker_serving::progress::Step;
use saker_serving::registry::Registry;

/// Arguments of `saker fetch`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker fetch --from s3://shop/releases --repository models\n  \
    saker fetch --from /mnt/releases --release movielens-20260314T150926Z-1f3a9c2b --repository models\n\n\
    Every file is compared with its SHA-256. A plain `tritonserver --model-repository=models --model-control-mode=explicit \
    --load-model=ensemble_model` serves what is fetched first; `saker promote --repository` makes another release the one that \
    serves. `saker-follow --once` does the same for the release that is wanted, with nothing else in the program."
)]
pub struct Args {
    /// Store of releases: a folder, file:// or s3://bucket/prefix
    #[arg(long, value_name = "URL", env = "SAKER_RELEASES", value_parser = NonEmptyStringValueParser::new())]
    from: String,
    /// Folder of the model repository
    #[arg(long, value_name = "FOLDER")]
    repository: PathBuf,
    /// Id of the release to fetch [default: the wanted one]
    #[arg(long, value_name = "ID")]
    release: Option<String>,
    /// Let a release with other tensors replace the repository's releases, with which it is incompatible
    #[arg(long)]
    replace: bool,
}

/// Copies a release from a store to a repository.
pub(super) fn run(args: &Args) -> Result<()> {
    let registry = Registry::open(&args.from)?;
    let published = match &args.release {
        Some(id) => registry.release(id, None)?.0,
        None => {
            let wanted = registry.wanted()?;
            let named = wanted.as_ref().and_then(|wanted| wanted.served());
            let named = named.with_context(|| {
                format!("{} wants no release yet; --release names one", args.from)
            })?;
            registry.release(&named.release, Some(&named.sha256))?.0
        }
    };
    let id = &published.manifest.release;
    let step = Step::start(format!("fetch release {id}"));
    let fetched = registry.fetch(&published, &args.repository, args.replace)?;
    step.done(&fetched.to_string());
    println!(
        "{id} is version {} of {}",
        fetched.version,
        args.repository.display()
    );
    Ok(())
}
