use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;

use super::Target;
use crate::assemble::{self, Artefacts};
use crate::progress::Step;
use crate::releases::Repository;
use crate::stamp::{self, Fingerprint};

/// Arguments of `saker assemble`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker assemble\n  saker assemble --redis-url rediss://user:password@store.shop:6379\n  \
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
    /// Assemble a release even when nothing has changed
    #[arg(long)]
    force: bool,
}

/// Writes the release.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let target = args.output.clone().unwrap_or_else(|| layout.repository());
    if args.config_only {
        assemble::render(&pipeline, &target)?;
        println!("{}", target.display());
        return Ok(());
    }
    let artefacts = Artefacts::of(&pipeline, &layout)?;
    let mut fingerprint = Fingerprint::default()
        .value(&pipeline)?
        .value(&args.release)?;
    for path in artefacts.paths() {
        fingerprint = fingerprint.file(path)?;
    }
    let fingerprint = fingerprint.finish();
    let stands = target.join("releases.json");
    if args.output.is_none()
        && !args.force
        && stamp::is_current(&layout, "assemble", &fingerprint, &[&stands])
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
        None => assemble::release_id(&pipeline, &artefacts, SystemTime::now())?,
    };
    let assembled = assemble::assemble(&pipeline, &artefacts, &release, &target)?;
    if args.output.is_none() {
        stamp::record(&layout, "assemble", &fingerprint)?;
    }
    let name = &pipeline.pipeline.name;
    step.done(&format!("release {release}, version {}", assembled.version));
    if assembled.waits {
        println!("`saker promote {name}` makes it the one that serves");
    } else if !assembled.changed.is_empty() {
        println!(
            "a new repository: the tensors of {} are not those of the releases before, which could not stay beside it; a \
             running server takes it up when it is started again",
            assembled.changed.join(", ")
        );
    }
    println!("{}", target.display());
    Ok(())
}

/// Notes in the newest release's manifest what was measured since it was assembled: the fingerprint says that it is of these
/// artefacts.
fn note_metrics(artefacts: &Artefacts, target: &Path) -> Result<()> {
    let repository = Repository::open(target)?;
    let _lock = repository.lock()?;
    let newest = repository.index()?.releases.into_keys().next_back();
    let Some(mut manifest) = newest.and_then(|version| repository.manifest(version).ok()) else {
        return Ok(());
    };
    if artefacts.record.metrics.is_some() && manifest.record.metrics != artefacts.record.metrics {
        manifest
            .record
            .metrics
            .clone_from(&artefacts.record.metrics);
        repository.write_manifest(&manifest)?;
        println!("noted what was measured on {}", manifest.release);
    }
    Ok(())
}
