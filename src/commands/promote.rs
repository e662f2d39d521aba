use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::NonEmptyStringValueParser;
use saker_serving::control;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_serving::registry::promote::{Standing, Waiting};
use saker_serving::registry::{self, Named, Registry};
use saker_serving::releases::{self, Repository, Stage};
use saker_serving::running::Running;
use saker_serving::target::{Target, duration};

use triton_client::Triton;

/// Arguments of `saker promote`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker promote\n  saker promote --release 4 --keep 5\n  \
    saker promote retail --repository /models --server triton.shop:8000\n  \
    saker promote --to s3://shop/releases --wait 600\n\n\
    The server loads the release beside the serving one and tests it with canary requests; then it switches the ensemble in one step. \
    Where anything fails, the release that served goes on. Without a running server the next start serves it. With --to, every server that follows the store does so: all \
    load it and ask their canary, then all switch; where one refuses, all go back."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Release to promote, its id or its version [default: the newest]
    #[arg(long, value_name = "ID")]
    release: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Number of newest releases to keep; the serving one and the one before it always stay
    #[arg(long, value_name = "N", default_value_t = 3)]
    keep: usize,
    #[command(flatten)]
    fleet: Fleet,
}

/// The servers that follow a store of releases.
#[derive(clap::Args)]
pub(super) struct Fleet {
    /// Promote on all servers that follow this store of releases, not on one server: a folder, file:// or s3://bucket/prefix
    #[arg(long, value_name = "URL", conflicts_with_all = ["repository", "server"], value_parser = NonEmptyStringValueParser::new())]
    to: Option<String>,
    /// With --to: wait for the servers, at most this long per stage, such as 600 or 10m. Without it, each server switches as soon as it can
    #[arg(long, value_name = "TIME", requires = "to", value_parser = duration)]
    wait: Option<Duration>,
    /// With --wait: number of servers that must report
    #[arg(long, value_name = "N", default_value_t = 1, requires = "wait")]
    min_servers: usize,
    /// With --wait: number of servers that may refuse the release
    #[arg(long, value_name = "N", default_value_t = 0, requires = "wait")]
    max_refusals: usize,
}

impl Fleet {
    /// The store, if --to is given.
    pub(super) fn registry(&self) -> Result<Option<Registry>> {
        self.to.as_deref().map(Registry::open).transpose()
    }

    /// Marks a release as wanted, and waits for the servers if --wait is given.
    pub(super) fn promote(&self, registry: &Registry, to: &Named) -> Result<()> {
        let wanted = registry.wanted()?;
        if wanted.is_some_and(|wanted| wanted.stage == registry::Stage::Serve && wanted.to == *to) {
            println!("{} is wanted already", to.release);
            return Ok(());
        }
        let waiting = self.wait.map(|time| Waiting {
            time,
            servers: self.min_servers,
            refusals: self.max_refusals,
        });
        let mut step: Option<(registry::Stage, Step)> = None;
        let ended = |step: &mut Option<(registry::Stage, Step)>, standing: Standing| {
            if let Some((_, step)) = step.take() {
                step.done(&format!("{} of {}", standing.ready, standing.servers));
            }
        };
        let mut last = Standing::default();
        let made = registry::promote::promote(registry, to, waiting, &mut |stage, standing| {
            let name = match stage {
                registry::Stage::Load => "servers that have loaded it and asked their canary",
                registry::Stage::Serve => "servers that have switched",
            };
            if step.as_ref().is_none_or(|(before, _)| *before != stage) {
                ended(&mut step, last);
                step = Some((stage, Step::start(name)));
            }
            if let Some((_, step)) = &step {
                step.say(format!(
                    "{name}: {} of {}",
                    standing.ready, standing.servers
                ));
            }
            last = standing;
        })?;
        ended(&mut step, last);
        println!(
            "{} is wanted in {}, generation {}",
            to.release,
            registry.location(),
            made.generation
        );
        Ok(())
    }
}

/// The repository, and the server.
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
    pub(super) fn repository(&self, layout: &Layout) -> Result<Repository> {
        let folder = self.repository.clone();
        Repository::open(&folder.unwrap_or_else(|| layout.repository()))
    }

    pub(super) fn open(&self, layout: &Layout) -> Result<(Repository, Option<Triton>)> {
        let repository = self.repository(layout)?;
        let running = || Running::find(layout, "triton")?.http();
        // A server that `saker serve` started serves only the pipeline's own repository.
        let own = self.repository.is_none();
        let server = self.server.clone().or_else(|| running().filter(|_| own));
        let client = |address: String| control::patient_client(layout, &address);
        Ok((repository, server.map(client)))
    }
}

/// Promotes a release.
pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(registry) = args.fleet.registry()? {
        let release = match &args.release {
            Some(release) => release.clone(),
            None => registry.releases()?.pop().with_context(|| {
                format!(
                    "{} holds no release; `saker publish` writes one",
                    registry.location()
                )
            })?,
        };
        let (_, sha256) = registry.release(&release, None)?;
        return args.fleet.promote(&registry, &Named { release, sha256 });
    }
    let (_, layout) = args.target.open()?;
    let (repository, triton) = args.place.open(&layout)?;
    let version = repository
        .index()?
        .find_or_newest(args.release.as_deref())?;
    show(&repository, triton.as_ref(), version, args.keep)
}

/// Promotes a release and prints a line per stage.
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
            Stage::Load => "load the models beside the serving ones",
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
