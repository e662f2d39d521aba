use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;

use super::Target;
use crate::assemble::{self, Artefacts};
use crate::progress::Step;
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
    /// Assemble even when nothing has changed
    #[arg(long)]
    force: bool,
}

/// Writes the repository.
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
        return Ok(());
    }
    let step = Step::start("assemble the model repository");
    let release = match &args.release {
        Some(release) => release.clone(),
        None => assemble::release_id(&pipeline, &artefacts, SystemTime::now())?,
    };
    assemble::assemble(&pipeline, &artefacts, &release, &target)?;
    if args.output.is_none() {
        stamp::record(&layout, "assemble", &fingerprint)?;
    }
    step.done(&format!("release {release}"));
    println!("{}", target.display());
    Ok(())
}
