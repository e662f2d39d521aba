use anyhow::{Context, Result};
use clap::ValueEnum;
use saker_contract::release::INDEX;
use saker_models::evaluation::{self, Request};
use saker_models::training_run::TrainingRun;
use saker_models::verdict::Verdict;
use saker_pipeline::Pipeline;
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_serving::programs::Ended;
use saker_serving::registry::Registry;
use saker_serving::releases::{Manifest, Repository};
use saker_serving::target::Target;
use saker_train::data::Split;

use super::console::Console;
use super::evaluation_tables::{comparison, notes, of_methods};
use super::outputs::Outputs;
use crate::code::CODE;

/// The name of the serving release in --against.
const CURRENT: &str = "current";

/// Arguments of `saker evaluate`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker evaluate\n  saker evaluate movielens --split validation\n  \
    saker evaluate movielens --seeds 3\n  saker evaluate retail --against current --releases s3://shop/releases\n\n\
    What a user has met before the measured part is taken out of every list, for every method. The baselines' settings \
    are the best ones on the validation part. With --against, the exit code is 3 if the new models are worse than the \
    release by more than --tolerance, over all requests or in one population; --verdict writes that down in place of failing."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Part of the interactions to measure on
    #[arg(long, value_enum, default_value = "test")]
    split: Part,
    /// Maximum number of users to measure, evenly spread; 0 measures all
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    users: usize,
    /// Measure the mean over models of this many seeds: those of `saker train`, and others that are trained for this and kept in
    /// `.saker/<name>/seeds`
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    seeds: u16,
    /// Compare the results with those of a release: its id or version, or `current`, the serving one. Models without results are measured
    /// first
    #[arg(long, value_name = "RELEASE")]
    against: Option<String>,
    /// With --against: the store of releases that has the release [default: the pipeline's own repository]
    // Not `requires`: a value from the environment would count as given.
    #[arg(long, value_name = "URL", env = "SAKER_RELEASES")]
    releases: Option<String>,
    /// With --against: number of standard errors by which a part of the requests may be worse
    #[arg(long, value_name = "NUMBER", default_value_t = 2.0, requires = "against", value_parser = tolerance)]
    tolerance: f64,
    #[command(flatten)]
    outputs: Outputs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| "accepted: a number from 0".to_owned())
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Validation,
    Test,
}

/// Measures retrieval and the ranked list together with the baselines, prints a table and writes `models/metrics.json` and
/// `models/report.html`.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let Some(against) = &args.against else {
        measure(args, &pipeline, &layout)?;
        return args.outputs.measured(&layout);
    };
    if saker_assemble::metrics(&layout)?.is_none() {
        measure(args, &pipeline, &layout)?;
    }
    args.outputs.measured(&layout)?;
    let new = saker_assemble::metrics(&layout)?
        .context("the models were trained while they were measured")?;
    let verdict = match release(args, &layout, against)? {
        Some(manifest) => {
            let old = manifest.record.metrics.unwrap_or_default();
            Verdict::of(&new, &manifest.release, &old, args.tolerance)?
        }
        None => Verdict::first(args.tolerance),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        println!("{}", comparison(&verdict));
        println!("{}: {}", verdict.verdict, verdict.reason());
    }
    args.outputs.compared(&verdict)?;
    match verdict.is_promote() || args.outputs.takes_verdict() {
        true => Ok(()),
        false => Err(WORSE.into()),
    }
}

/// The exit code if the new models are worse.
const WORSE: Ended = Ended {
    code: 3,
    why: "the models are not good enough to be promoted",
};

/// The release to compare with; `None` if no release serves yet.
fn release(args: &Args, layout: &Layout, name: &str) -> Result<Option<Manifest>> {
    if let Some(location) = &args.releases {
        let registry = Registry::open(location)?;
        if name != CURRENT {
            return Ok(Some(registry.release(name, None)?.0.manifest));
        }
        return Ok(registry.served()?.map(|published| published.manifest));
    }
    if name == CURRENT && !layout.repository().join(INDEX).exists() {
        return Ok(None);
    }
    let repository = Repository::open(&layout.repository())?;
    let version = match name {
        CURRENT => repository.serving()?,
        name => repository.index()?.find(name)?,
    };
    Ok(Some(repository.manifest(version)?))
}

/// Measures, and prints and writes the results.
fn measure(args: &Args, pipeline: &Pipeline, layout: &Layout) -> Result<()> {
    let evaluation = evaluation::measure(&Request {
        pipeline,
        layout,
        code: CODE,
        split: match args.split {
            Part::Validation => Split::Validation,
            Part::Test => Split::Test,
        },
        users: args.users,
        seeds: args.seeds,
        display: &Console::default(),
    })?;
    let name = &pipeline.pipeline.name;
    let json = serde_json::to_string_pretty(&evaluation)?;
    files::write(&layout.metrics(), format!("{json}\n"))?;
    let page = saker_report::html(
        name,
        &pipeline.pipeline.description,
        &evaluation,
        &TrainingRun::open(layout)?.lines,
    );
    files::write(&layout.report(), page)?;
    if args.json {
        println!("{json}");
    } else {
        println!("{}", of_methods(&evaluation.methods));
        for population in &evaluation.populations {
            println!(
                "\n{}: {} ({} requests)",
                population.name, population.description, population.users
            );
            println!("{}", of_methods(&population.methods));
        }
        println!("\n{}", notes(&evaluation));
        println!("{}", layout.metrics().display());
        println!("{}", layout.report().display());
    }
    Ok(())
}
