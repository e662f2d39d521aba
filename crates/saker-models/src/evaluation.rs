//! Measures the models of a pipeline, as they serve, together with the baselines.

use anyhow::{Context, Result, bail};
use saker_dataset::features;
use saker_pipeline::Pipeline;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_train::checkpoint::Checkpoint;
use saker_train::data::Split;
use saker_train::evaluate::{Evaluation, Models, Options, Oracle, evaluate};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

use crate::breakdowns::breakdowns;
use crate::retrieval::Served;
use crate::train;
use crate::training_session::Display;
use crate::true_preferences::TruePreferences;

/// The arguments of an evaluation.
pub struct Request<'a> {
    /// The definition.
    pub pipeline: &'a Pipeline,
    /// The pipeline's folders.
    pub layout: &'a Layout,
    /// The hash over the sources of this program.
    pub code: &'a str,
    /// The part of the interactions to measure on.
    pub split: Split,
    /// Maximum number of users to measure; 0 means all.
    pub users: usize,
    /// Number of seeds; models of the seeds after the first one are trained if they are missing.
    pub seeds: u16,
    /// What shows the progress of their training.
    pub display: &'a dyn Display,
}

/// Measures the models.
///
/// # Errors
/// Returns an error if the models are missing or belong to other features, or if the prepared dataset cannot be read.
pub fn measure(request: &Request<'_>) -> Result<Evaluation> {
    let Request {
        pipeline, layout, ..
    } = *request;
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
    for seed in 1..u64::from(request.seeds) {
        let seed = pipeline.training.seed.wrapping_add(seed);
        request.display.line(&format!("models of seed {seed}"));
        of_seeds.push(train::of_seed(
            pipeline,
            layout,
            &data,
            seed,
            request.code,
            request.display,
        )?);
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
            split: request.split,
            topk: pipeline.retrieval.topk,
            users: request.users,
            training: &pipeline.training,
            groupings: breakdowns(pipeline, layout, &data)?,
            oracle: truth.as_ref().map(|truth| truth as &dyn Oracle),
            progress: &mut |what| step.say(what.to_owned()),
        },
    )?;
    step.done(&format!(
        "{} users with {} interactions",
        evaluation.users, evaluation.split
    ));
    Ok(evaluation)
}
