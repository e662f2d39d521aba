use anyhow::Result;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use saker_models::finetune::{Outcome, Request, finetune};
use saker_prepare::limits::Limits;
use saker_serving::progress::time;
use saker_serving::target::Target;
use saker_train::evaluate::ListMetrics;

use super::Learning;
use super::console::Console;
use crate::code::CODE;

/// Arguments of `saker finetune`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker finetune retail\n  saker finetune retail --all && saker assemble retail && saker promote retail\n\n\
    The models learn from interactions newer than their training data: without --all, up to the test part, which then measures \
    the gain. The table [training.finetune] of the definition sets the share of old data to replay and the step size. An \
    epoch that does not improve the result on held-out users is discarded."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Learn from the test part too; then no part remains to measure the gain
    #[arg(long)]
    all: bool,
    /// Maximum number of test users to measure, evenly spread; 0 measures all
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    users: usize,
    #[command(flatten)]
    learning: Learning,
    #[command(flatten)]
    limits: Limits,
}

/// Fine-tunes the models and prints the gain.
pub(super) fn run(args: &Args) -> Result<()> {
    let device = args.learning.device()?;
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    let outcome = finetune(&Request {
        pipeline: &pipeline,
        layout: &layout,
        code: CODE,
        device,
        settings: args.limits.settings(),
        all: args.all,
        users: args.users,
        checkpoint_every: args.learning.checkpoint_every(),
        display: &Console::default(),
    })?;
    let (round, index_is_valid) = match outcome {
        Outcome::NothingNew(since) => {
            println!(
                "nothing is newer than {}, up to when the models of {name} have learned{}",
                time(since),
                if args.all {
                    ""
                } else {
                    "; --all includes the test part"
                }
            );
            return Ok(());
        }
        Outcome::Done {
            round,
            index_is_valid,
        } => (round, index_is_valid),
    };
    println!(
        "learned what happened after {} up to {}",
        time(round.since),
        time(round.until)
    );
    if let Some([before, after]) = &round.test {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["test part", "NDCG@10", "hit@10", "recall@100", "recall@300"]);
        for (what, of) in [
            ("retrieval before", &before.retrieval),
            ("retrieval after", &after.retrieval),
            ("ranked list before", &before.ranked),
            ("ranked list after", &after.ranked),
        ] {
            let ListMetrics {
                ndcg_10,
                hit_10,
                recall_100,
                recall_300,
                ..
            } = of;
            let cells = [ndcg_10, hit_10, recall_100, recall_300];
            let cells = cells.map(|number| format!("{number:.4}"));
            table.add_row(std::iter::once(what.to_owned()).chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
    }
    let index = if index_is_valid {
        "the index holds the items' vectors as they are"
    } else {
        "items have changed, so the index must be built again"
    };
    println!("{index}; next: saker index {name}, saker assemble {name}, saker promote {name}");
    Ok(())
}
