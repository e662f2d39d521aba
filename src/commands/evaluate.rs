use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use saker_contract::release::INDEX;
use saker_pipeline::Pipeline;
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_serving::programs::Ended;
use saker_serving::progress::Step;
use saker_serving::registry::Registry;
use saker_serving::releases::{Manifest, Repository};
use saker_serving::target::Target;
use saker_train::checkpoint::Checkpoint;
use saker_train::data::Split;
use saker_train::evaluate::{Evaluation, MethodMetrics, Models, Options, Oracle, evaluate};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

use super::outputs::Outputs;
use super::train;
use crate::groupings::groupings;
use crate::oracle::TruePreferences;
use crate::retrieval::Served;
use crate::training_run::TrainingRun;
use crate::verdict::Verdict;
use crate::{assemble, features, report};

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
    if assemble::metrics(&layout)?.is_none() {
        measure(args, &pipeline, &layout)?;
    }
    args.outputs.measured(&layout)?;
    let new =
        assemble::metrics(&layout)?.context("the models were trained while they were measured")?;
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
        println!("{}", verdict.table());
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
    let name = &pipeline.pipeline.name;
    for model in ["towers", "ranker"] {
        let path = layout.checkpoint(model);
        if !path.exists() {
            bail!("{} is missing; run `saker train {name}`", path.display());
        }
    }
    let data = features::read(layout)?;
    let mut towers = Towers::new(&pipeline.towers, &data, pipeline.training.seed);
    let mut ranker = Ranker::new(&pipeline.ranker, &data, pipeline.training.seed);
    let again = || format!("features or definition have changed since; run `saker train {name}`");
    towers
        .load(&layout.checkpoint("towers"))
        .with_context(again)?;
    ranker
        .load(&layout.checkpoint("ranker"))
        .with_context(again)?;
    let truth = TruePreferences::open(pipeline, layout, &data)?;
    let mut of_seeds = vec![(towers, ranker)];
    for seed in 1..u64::from(args.seeds) {
        let seed = pipeline.training.seed.wrapping_add(seed);
        eprintln!("models of seed {seed}");
        of_seeds.push(train::of_seed(pipeline, layout, &data, seed)?);
    }
    let serving = of_seeds
        .iter()
        .map(|(towers, _)| Served::new(pipeline, layout, towers, &data))
        .collect::<Result<Vec<_>>>()?;
    let models = of_seeds.iter().zip(&serving);
    let models: Vec<Models<'_>> = models
        .map(|((towers, ranker), serving)| Models {
            towers,
            ranker,
            serving: Some(serving),
        })
        .collect();
    let step = Step::start("measure the models and the baselines");
    let evaluation = evaluate(
        &data,
        &models,
        &mut Options {
            split: match args.split {
                Part::Validation => Split::Validation,
                Part::Test => Split::Test,
            },
            topk: pipeline.retrieval.topk,
            users: args.users,
            training: &pipeline.training,
            groupings: groupings(pipeline, layout, &data)?,
            oracle: truth.as_ref().map(|truth| truth as &dyn Oracle),
            progress: &mut |what| step.say(what.to_owned()),
        },
    )?;
    step.done(&format!(
        "{} users with {} interactions",
        evaluation.users, evaluation.split
    ));
    let json = serde_json::to_string_pretty(&evaluation)?;
    files::write(&layout.metrics(), format!("{json}\n"))?;
    let page = report::html(
        name,
        &pipeline.pipeline.description,
        &evaluation,
        &TrainingRun::open(layout)?.lines,
    );
    files::write(&layout.report(), page)?;
    if args.json {
        println!("{json}");
    } else {
        println!("{}", table(&evaluation.methods));
        for population in &evaluation.populations {
            println!(
                "\n{}: {} ({} requests)",
                population.name, population.description, population.users
            );
            println!("{}", table(&population.methods));
        }
        println!("\n{}", notes(&evaluation));
        println!("{}", layout.metrics().display());
        println!("{}", layout.report().display());
    }
    Ok(())
}

fn table(methods: &[MethodMetrics]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "",
        "NDCG@10",
        "± requests",
        "± seeds",
        "against the row above",
        "hit@10",
        "recall@10",
        "recall@100",
        "recall@300",
        "AUC",
    ]);
    for method in methods {
        let list = &method.list;
        let or_dash = |number: Option<f64>| number.map_or("–".to_owned(), |n| format!("{n:.4}"));
        let above = method.above.map_or("–".to_owned(), |above| {
            format!(
                "{:+.4} ({:+.4} to {:+.4})",
                above.mean, above.low, above.high
            )
        });
        let first = [
            method.method.clone(),
            format!("{:.4}", list.ndcg_10),
            or_dash(method.ndcg_10_error),
            or_dash(method.ndcg_10_seeds),
            above,
        ];
        let numbers = [
            list.hit_10,
            list.recall_10,
            list.recall_100,
            list.recall_300,
            method.auc,
        ];
        let cells = numbers.map(|number| format!("{number:.4}"));
        table.add_row(first.into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn notes(evaluation: &Evaluation) -> String {
    let tuned = &evaluation.tuned;
    let days = |days: Option<f64>| days.map_or("none".to_owned(), |days| format!("{days} days"));
    let mut notes = format!(
        "{} part, {} of {} users with held-out items, models of {}. ± is the standard error of the mean; the row above is \
         compared on the same requests, with an interval of 95 % by a paired bootstrap. Retrieval as served asks the index for {} \
         candidates and takes out what the seen filter holds; the ranked list orders what is left, so its recall ends with it. AUC is \
         over retrieval's unseen candidates for every method. Chosen on the validation part: neighbours k = {}, with recent items \
         weighted k = {} and half-life {} interactions; counting table of {}, half-life {}, window {} h",
        evaluation.split,
        evaluation.users,
        evaluation.users_held,
        match evaluation.seeds {
            1 => "one seed".to_owned(),
            seeds => format!("{seeds} seeds"),
        },
        evaluation.retrieval_topk,
        tuned.k,
        tuned.recency_k,
        tuned.recency_half_life,
        tuned.context.column,
        days(tuned.context.half_life_days),
        tuned.context.hours,
    );
    if let Some((regularization, confidence)) = tuned.ials {
        notes.push_str(&format!(
            "; iALS regularization {regularization}, confidence {confidence}"
        ));
    }
    match (tuned.ease, tuned.ease_recency) {
        (Some(plain), Some((ridge, half_life))) => notes.push_str(&format!(
            "; EASE λ = {plain}, with recent items weighted λ = {ridge} and half-life {half_life} interactions."
        )),
        _ => notes.push_str(". The catalogue is too large for EASE."),
    }
    notes.push_str(&format!(
        " Log loss of the ranker on the candidates: {:.4}.",
        evaluation.ranker_log_loss
    ));
    if let Some(of) = &evaluation.classification {
        notes.push_str(&format!(
            " Ranker on held-out positives and negatives sampled as in training ({} rows, {:.1} % positive): AUC {:.4}, \
             log loss {:.4} ({:.4} for the base rate), expected calibration error {:.4}.",
            of.rows,
            100.0 * of.base_rate,
            of.auc,
            of.log_loss,
            of.base_log_loss,
            of.calibration_error
        ));
    }
    notes
}
