use anyhow::Result;
use saker_models::train::{Request, train};
use saker_serving::target::Target;

use super::Learning;
use super::console::Console;
use crate::code::CODE;

/// Arguments of `saker train`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker train\n  saker train movielens --force\n  saker train --towers\n\n\
    The tables [towers], [ranker] and [training] of the definition set the models' sizes and the training. A \
    run that was stopped or killed resumes from its last checkpoint, and gives the same models as an uninterrupted run."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Train from the beginning, even if neither features nor definition have changed
    #[arg(long)]
    force: bool,
    /// Train only the towers: enough for an index, but not for serving
    #[arg(long)]
    towers: bool,
    #[command(flatten)]
    learning: Learning,
}

/// Trains both models, unless nothing has changed, and exports them.
pub(super) fn run(args: &Args) -> Result<()> {
    let device = args.learning.device()?;
    let (pipeline, layout) = args.target.open()?;
    let trained = train(&Request {
        pipeline: &pipeline,
        layout: &layout,
        code: CODE,
        device,
        device_name: &args.learning.device,
        force: args.force,
        only_towers: args.towers,
        checkpoint_every: args.learning.checkpoint_every(),
        display: &Console::default(),
    })?;
    if trained {
        println!("{}", layout.root().join("models").display());
    } else {
        println!(
            "the models of {} are up to date; --force trains them again",
            pipeline.pipeline.name
        );
    }
    Ok(())
}
