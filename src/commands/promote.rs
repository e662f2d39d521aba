use std::path::PathBuf;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use super::Target;
use crate::control;
use crate::layout::Layout;
use crate::progress::Step;
use crate::releases::{self, Repository, Stage};
use crate::server::Running;
use triton_client::Triton;

/// Arguments of `saker promote`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker promote\n  saker promote --release 4 --keep 5\n  \
    saker promote retail --repository /models --server triton.shop:8000\n\n\
    The release is loaded beside the one that serves and asked by a canary; then the ensemble is switched in one step. \
    Where anything fails, the release that served goes on. Without a running server the next start serves it."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Release to promote, its id or its version [default: the newest]
    #[arg(long, value_name = "ID")]
    release: Option<String>,
    #[command(flatten)]
    place: Place,
    /// How many of the newest releases stay; the serving one and the one before it always do
    #[arg(long, value_name = "N", default_value_t = 3)]
    keep: usize,
}

/// Which repository, and which server.
#[derive(clap::Args)]
pub(super) struct Place {
    /// Folder of the repository [default: .saker/<name>/repository]
    #[arg(long, value_name = "FOLDER")]
    repository: Option<PathBuf>,
    /// Triton's HTTP address [default: where `saker serve` started it, if it runs]
    #[arg(long, value_name = "HOST:PORT", env = "SAKER_SERVER", value_parser = NonEmptyStringValueParser::new())]
    server: Option<String>,
}

impl Place {
    pub(super) fn open(&self, layout: &Layout) -> Result<(Repository, Option<Triton>)> {
        let folder = self.repository.clone();
        let repository = Repository::open(&folder.unwrap_or_else(|| layout.repository()))?;
        let running = || Running::find(layout, "triton")?.http();
        // A server that `saker serve` started serves the pipeline's own repository and no other.
        let own = self.repository.is_none();
        let server = self.server.clone().or_else(|| running().filter(|_| own));
        let client = |address: String| control::patient_client(layout, &address);
        Ok((repository, server.map(client)))
    }
}

/// Makes a release the one that serves.
pub(super) fn run(args: &Args) -> Result<()> {
    let (_, layout) = args.target.open()?;
    let (repository, triton) = args.place.open(&layout)?;
    let index = repository.index()?;
    let newest = index.releases.keys().next_back().copied();
    let version = match &args.release {
        Some(name) => index.find(name)?,
        None => newest.unwrap_or_default(),
    };
    show(&repository, triton.as_ref(), version, args.keep)
}

/// Promotes with a line for every stage.
pub(super) fn show(
    repository: &Repository,
    triton: Option<&Triton>,
    version: u64,
    keep: usize,
) -> Result<()> {
    let index = repository.index()?;
    let served = match triton {
        Some(triton) => releases::promote::server_pins(triton)?,
        None => repository.serving()?,
    };
    if served == version && repository.serving()? == version {
        println!("{} serves already", index.name(version));
        return Ok(());
    }
    let mut step: Option<Step> = None;
    let mut on = |stage| {
        if let Some(step) = step.take() {
            step.done("done");
        }
        step = Some(Step::start(match stage {
            Stage::Check => "check the artefacts against the manifest",
            Stage::Load => "load the models beside those that serve",
            Stage::Canary => "ask the canary",
            Stage::Switch => "switch",
            Stage::Prune => "remove old releases",
        }));
    };
    let outcome = releases::promote(repository, triton, version, keep, &mut on)?;
    if let Some(step) = step.take() {
        let gone: Vec<String> = outcome
            .pruned
            .iter()
            .map(|version| index.name(*version))
            .collect();
        step.done(&match gone.len() {
            0 => "none".to_owned(),
            _ => gone.join(", "),
        });
    }
    let name = index.name(version);
    match outcome.canary {
        Some(requests) => println!(
            "{name} serves, in place of {}; {requests} requests tried it out",
            index.name(outcome.before)
        ),
        None => {
            println!("{name} serves from the next start on; no server runs that could try it out")
        }
    }
    Ok(())
}
