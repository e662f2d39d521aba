use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use saker_assemble::Artefacts;
use saker_pipeline::Pipeline;
use saker_prepare::up_to_date::{self, Fingerprint};
use saker_serving::entities::Compare;
use saker_serving::progress::Step;
use saker_serving::releases::{Manifest, Repository};
use saker_serving::target::{Target, settle};
use saker_store::address::has_credentials;

use crate::code::CODE;

/// Arguments of `saker assemble`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker assemble\n  SAKER_REDIS_URL=rediss://user:password@store.shop:6379 saker assemble\n  \
    saker assemble retail --config-only --output model_repository"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Folder of the repository [default: .saker/<name>/repository]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Release id that all artefacts carry [default: name, time and a hash of the artefacts]
    #[arg(long, value_name = "ID")]
    release: Option<String>,
    /// Only write every model's config.pbtxt
    #[arg(long, conflicts_with = "release")]
    config_only: bool,
    /// Label for the release's origin, such as run=1234; may be given several times. `saker releases --json` shows the labels
    #[arg(long, value_name = "KEY=VALUE", value_parser = label, conflicts_with = "config_only")]
    label: Vec<(String, String)>,
    /// Assemble a release even if nothing has changed
    #[arg(long)]
    force: bool,
}

/// A label: its key starts with a letter.
fn label(text: &str) -> Result<(String, String), String> {
    let is_key = |key: &str| {
        key.starts_with(|first: char| first.is_ascii_lowercase())
            && key
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
    };
    match text.split_once('=') {
        Some((key, value)) if is_key(key) && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(
            "accepted: KEY=VALUE, the key of a-z, 0-9, _, . and -, with a letter first".to_owned(),
        ),
    }
}

/// Writes the release.
pub(super) fn run(args: &Args) -> Result<()> {
    let (mut pipeline, layout) = args.target.open()?;
    let target = args.output.clone().unwrap_or_else(|| layout.repository());
    if args.config_only {
        saker_assemble::render(&pipeline, &target)?;
        say_where_the_store_is(&pipeline);
        println!("{}", target.display());
        return Ok(());
    }
    settle(&mut pipeline, Compare::All)?;
    let mut artefacts = Artefacts::of(&pipeline, &layout, CODE)?;
    artefacts.record.labels.extend(args.label.iter().cloned());
    let mut fingerprint = Fingerprint::of_code(CODE)
        .value(&pipeline)?
        .value(&args.release)?;
    for path in artefacts.paths() {
        fingerprint = fingerprint.file(path)?;
    }
    let fingerprint = fingerprint.finish();
    // A release of an older saker has no manifest and is written again.
    let stands = newest(&target).is_ok();
    if args.output.is_none()
        && !args.force
        && stands
        && up_to_date::is_current(&layout, "assemble", &fingerprint, &[])
    {
        println!(
            "{} is up to date; --force assembles it again",
            target.display()
        );
        return note_metrics(&artefacts, &target);
    }
    let step = Step::start("assemble the model repository");
    let release = match &args.release {
        Some(release) => release.clone(),
        None => saker_assemble::release_id(&pipeline, &artefacts, SystemTime::now(), &target)?,
    };
    let assembled = saker_assemble::assemble(&pipeline, &artefacts, &release, &target)?;
    if args.output.is_none() {
        up_to_date::record(&layout, "assemble", &fingerprint)?;
    }
    let name = &pipeline.pipeline.name;
    step.done(&format!("release {release}, version {}", assembled.version));
    if assembled.waits {
        println!("`saker promote {name}` makes it the one that serves");
    } else if !assembled.changed.is_empty() {
        println!(
            "a new repository: the releases before have other tensors, or do not say which, in {} and could not stay \
             beside it; a running server takes it up when it is started again",
            assembled.changed.join(", ")
        );
    }
    say_where_the_store_is(&pipeline);
    println!("{}", target.display());
    Ok(())
}

/// Prints the settings that a server needs if `saker serve` does not start it.
fn say_where_the_store_is(pipeline: &Pipeline) {
    if has_credentials(&pipeline.store.redis_url) {
        println!(
            "the store's address holds a login, which no file of the repository does: Triton's models read the address from \
             the environment, SAKER_REDIS_URL or the file that SAKER_REDIS_URL_FILE names; `saker serve` passes it on"
        );
    }
}

/// The newest release of a repository, and its manifest.
fn newest(target: &Path) -> Result<(Repository, Manifest)> {
    let repository = Repository::open(target)?;
    let newest = repository.index()?.releases.into_keys().next_back();
    let manifest = repository.manifest(newest.unwrap_or_default())?;
    Ok((repository, manifest))
}

/// Adds the latest metrics to the newest release's manifest. The fingerprint shows that they belong to these artefacts.
fn note_metrics(artefacts: &Artefacts, target: &Path) -> Result<()> {
    let (repository, mut manifest) = newest(target)?;
    let metrics = &artefacts.record.metrics;
    if metrics.is_some() && manifest.record.metrics != *metrics {
        let _lock = repository.lock()?;
        manifest.record.metrics.clone_from(metrics);
        repository.write_manifest(&manifest)?;
        println!("noted what was measured on {}", manifest.release);
    }
    Ok(())
}
