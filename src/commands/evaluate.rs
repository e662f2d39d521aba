use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use saker_train::checkpoint::Checkpoint;
use saker_train::data::Split;
use saker_train::evaluate::{Evaluation, MethodMetrics, Options, Oracle, evaluate};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

use super::Target;
use crate::groupings::groupings;
use crate::oracle::TruePreferences;
use crate::progress::Step;
use crate::training_run::TrainingRun;
use crate::{features, files, report};

/// Arguments of `saker evaluate`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker evaluate\n  saker evaluate movielens --split validation\n\n\
    What a user has met before the measured part is taken out of every list, for every method. The neighbours' settings \
    are the best ones on the validation part."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Part of the interactions to measure on
    #[arg(long, value_enum, default_value = "test")]
    split: Part,
    /// Users to measure at most, evenly spread over all of them; 0 measures all
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    users: usize,
    /// Print JSON in place of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Validation,
    Test,
}

/// Measures retrieval and the ranked list beside the baselines, prints a table and writes `models/metrics.json` and
/// `models/report.html`.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    for model in ["towers", "ranker"] {
        let path = layout.checkpoint(model);
        if !path.exists() {
            bail!("{} is missing; run `saker train {name}`", path.display());
        }
    }
    let data = features::read(&layout)?;
    let mut towers = Towers::new(&pipeline.towers, &data, pipeline.training.seed);
    let mut ranker = Ranker::new(&pipeline.ranker, &data, pipeline.training.seed);
    let again = || format!("features or definition have changed since; run `saker train {name}`");
    towers
        .load(&layout.checkpoint("towers"))
        .with_context(again)?;
    ranker
        .load(&layout.checkpoint("ranker"))
        .with_context(again)?;
    let truth = TruePreferences::open(&pipeline, &layout, &data)?;
    let step = Step::start("measure the models and the baselines");
    let evaluation = evaluate(
        &data,
        &towers,
        &ranker,
        &mut Options {
            split: match args.split {
                Part::Validation => Split::Validation,
                Part::Test => Split::Test,
            },
            topk: pipeline.retrieval.topk,
            users: args.users,
            training: &pipeline.training,
            groupings: groupings(&pipeline, &layout, &data)?,
            oracle: truth.as_ref().map(|truth| truth as &dyn Oracle),
            progress: &mut |done, of| step.say(format!("{done} of {of} requests answered")),
        },
    );
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
        &TrainingRun::open(&layout)?.lines,
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
        "hit@10",
        "recall@10",
        "recall@100",
        "recall@300",
        "AUC",
    ]);
    for method in methods {
        let list = &method.list;
        let numbers = [
            list.ndcg_10,
            list.hit_10,
            list.recall_10,
            list.recall_100,
            list.recall_300,
            method.auc,
        ];
        let cells = numbers.map(|number| format!("{number:.4}"));
        table.add_row(std::iter::once(method.method.clone()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn notes(evaluation: &Evaluation) -> String {
    let tuned = &evaluation.neighbours;
    let mut notes = format!(
        "{} part, {} of {} users with held-out items. The ranked list orders the {} retrieved candidates that are unseen, \
         so its recall ends with them; AUC is over those candidates for every method. Neighbours: k = {}; with recent \
         items weighted: k = {}, half-life {} interactions. Log loss of the ranker on the candidates: {:.4}.",
        evaluation.split,
        evaluation.users,
        evaluation.users_held,
        evaluation.retrieval_topk,
        tuned.k,
        tuned.recency_k,
        tuned.recency_half_life,
        evaluation.ranker_log_loss
    );
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
