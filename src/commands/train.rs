use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use saker_pipeline::Pipeline;
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_serving::target::Target;
use saker_train::candidates::Candidates;
use saker_train::checkpoint::Checkpoint;
use saker_train::checkpoint::LEARNED_UNTIL;
use saker_train::data::{Dataset, Split};
use saker_train::device::Device;
use saker_train::learning::Session;
use saker_train::progress::{Epoch, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

use super::Learning;
use crate::accompaniment::Accompaniment;
use crate::stamp::{self, Fingerprint};
use crate::training_run::TrainingRun;
use crate::{features, models};

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
    let name = &pipeline.pipeline.name;
    features::schema(&layout)?;
    let (towers_fingerprint, fingerprint) = fingerprints(&pipeline, &layout)?;
    let mut made = vec![
        layout.model(saker_contract::Step::QueryTower.model()),
        layout.model("candidate_tower"),
        layout.item_vectors(),
        layout.checkpoint("towers"),
    ];
    if !args.towers {
        made.extend([
            layout.model(saker_contract::Step::Ranking.model()),
            layout.checkpoint("ranker"),
        ]);
    }
    let made: Vec<&Path> = made.iter().map(|path| path.as_path()).collect();
    let current = match args.towers {
        true => stamp::is_current(&layout, "train-towers", &towers_fingerprint, &made),
        false => stamp::is_current(&layout, "train", &fingerprint, &made),
    };
    if !args.force && current {
        println!("the models of {name} are up to date; --force trains them again");
        return Ok(());
    }

    let step = Step::start("read the features");
    let data = features::read(&layout)?;
    step.done(&format!(
        "{} users, {} items, {} interactions",
        data.users.rows,
        data.items.rows,
        data.interactions.user.len()
    ));
    let trainer = Trainer {
        pipeline: &pipeline,
        layout: &layout,
        data: &data,
        device,
        force: args.force,
        accompaniment: Accompaniment::new(
            &layout,
            format!("saker train {name}"),
            args.learning.checkpoint_every(),
        )?,
    };
    TrainingRun::open(&layout)?.configure(&pipeline, &data, &args.learning.device)?;
    let towers = trainer.towers(&towers_fingerprint)?;
    models::write_towers(&layout, &towers, &data)?;
    if args.towers {
        // A ranker of other towers must not remain beside these.
        files::remove(&layout.model(saker_contract::Step::Ranking.model()))?;
        files::remove(&layout.finetuned())?;
        trainer.accompaniment.forget(Stage::Towers)?;
        println!("{}", layout.root().join("models").display());
        return Ok(());
    }

    let ranker = trainer.ranker(&towers, &fingerprint)?;
    models::write_ranker(&layout, &ranker)?;
    trainer.finish(&fingerprint)?;
    files::remove(&layout.finetuned())?;
    println!("{}", layout.root().join("models").display());
    Ok(())
}

/// The models of another seed, trained on the same features. They are read from `seeds/<seed>`, and trained there first if something has
/// changed. The serving models are not touched.
pub(super) fn of_seed(
    pipeline: &Pipeline,
    layout: &Layout,
    data: &Dataset,
    seed: u64,
) -> Result<(Towers, Ranker)> {
    let mut pipeline = pipeline.clone();
    pipeline.training.seed = seed;
    let (towers_fingerprint, fingerprint) = fingerprints(&pipeline, layout)?;
    let own = layout.of_seed(seed);
    let trainer = Trainer {
        pipeline: &pipeline,
        layout: &own,
        data,
        device: Device::cpu(),
        force: false,
        accompaniment: Accompaniment::new(
            &own,
            format!("saker evaluate {}", pipeline.pipeline.name),
            Duration::from_secs(120),
        )?,
    };
    let path = own.checkpoint("ranker");
    if stamp::is_current(&own, "train", &fingerprint, &[&path]) {
        let mut ranker = Ranker::new(&pipeline.ranker, data, seed);
        ranker.load(&path)?;
        return Ok((trainer.towers(&towers_fingerprint)?, ranker));
    }
    TrainingRun::open(&own)?.configure(&pipeline, data, "cpu")?;
    let towers = trainer.towers(&towers_fingerprint)?;
    let ranker = trainer.ranker(&towers, &fingerprint)?;
    trainer.finish(&fingerprint)?;
    Ok((towers, ranker))
}

/// Fingerprints of the inputs of the towers, and of the inputs of both models.
fn fingerprints(pipeline: &Pipeline, layout: &Layout) -> Result<(String, String)> {
    let towers = towers_fingerprint(pipeline, layout)?;
    let (ranker, training) = (&pipeline.ranker, &pipeline.training);
    let both = Fingerprint::default()
        .value(&(&towers, ranker, training, pipeline.retrieval.topk))?
        .finish();
    Ok((towers, both))
}

/// Fingerprint of the inputs of the towers.
fn towers_fingerprint(pipeline: &Pipeline, layout: &Layout) -> Result<String> {
    let training = &pipeline.training;
    let shared = (
        training.seed,
        training.recency,
        training.recency_floor,
        training.half_life_days,
        training.weak_weight,
        &training.mask,
        training.cold_start,
        training.validation_users,
    );
    Ok(Fingerprint::default()
        .value(&(&pipeline.towers, &training.towers, shared))?
        .file(&layout.root().join("features"))?
        .finish())
}

/// The state shared by the training of both models.
struct Trainer<'a> {
    pipeline: &'a Pipeline,
    layout: &'a Layout,
    data: &'a Dataset,
    device: Device,
    force: bool,
    accompaniment: Accompaniment,
}

impl Trainer<'_> {
    /// Trains the towers, or reads them from the checkpoint of a run that has finished them.
    fn towers(&self, fingerprint: &str) -> Result<Towers> {
        let (pipeline, data) = (self.pipeline, self.data);
        let path = self.layout.checkpoint("towers");
        let towers = Towers::new(&pipeline.towers, data, pipeline.training.seed);
        let mut towers = towers.on(self.device.clone());
        if !self.force && stamp::is_current(self.layout, "train-towers", fingerprint, &[&path]) {
            towers.load(&path)?;
            eprintln!("✓ towers: read from {}", path.display());
            return Ok(towers);
        }
        self.accompany(Stage::Towers, fingerprint, |session| {
            towers.train(data, &pipeline.towers, &pipeline.training, session)
        })?;
        // The models of an earlier training are replaced from here on.
        stamp::forget(self.layout, "train")?;
        stamp::renew(self.layout, "train-towers", fingerprint, || {
            Ok(towers.save_with(&path, learned_until(data))?)
        })?;
        Ok(towers)
    }

    /// Trains the ranker on the candidates that these towers retrieve, and keeps its checkpoint.
    fn ranker(&self, towers: &Towers, fingerprint: &str) -> Result<Ranker> {
        let (pipeline, data) = (self.pipeline, self.data);
        let training = &pipeline.training;
        let step = Step::start("retrieve candidates");
        let candidates = Candidates::new(towers, data, training, pipeline.retrieval.topk);
        let mut ranker = Ranker::new(&pipeline.ranker, data, training.seed);
        if training.ranker.warm_start {
            ranker.warm_start(towers, data);
        }
        let whom = match training.ranker.hard_negatives > 0.0 {
            true => "each user",
            false => "each validation request",
        };
        step.done(&format!("{} for {whom}", pipeline.retrieval.topk));
        let mut ranker = ranker.on(self.device.clone());
        self.accompany(Stage::Ranker, fingerprint, |session| {
            ranker.train(data, training, &candidates, session)
        })?;
        stamp::forget(self.layout, "train")?;
        ranker.save_with(&self.layout.checkpoint("ranker"), learned_until(data))?;
        Ok(ranker)
    }

    /// Records the fingerprint of both models, and removes the state of their training.
    fn finish(&self, fingerprint: &str) -> Result<()> {
        stamp::record(self.layout, "train", fingerprint)?;
        self.accompaniment.forget(Stage::Towers)?;
        self.accompaniment.forget(Stage::Ranker)
    }

    fn accompany(
        &self,
        stage: Stage,
        fingerprint: &str,
        train: impl FnOnce(&mut Session<'_>) -> Result<Vec<Epoch>, saker_train::Error>,
    ) -> Result<()> {
        if self.force {
            self.accompaniment.forget(stage)?;
        }
        let training = &self.pipeline.training;
        let epochs = match stage {
            Stage::Towers => training.towers.epochs,
            Stage::Ranker => training.ranker.epochs,
        };
        self.accompaniment.run(stage, epochs, fingerprint, train)?;
        Ok(())
    }
}

/// The entries of a checkpoint that describe its training data.
fn learned_until(data: &Dataset) -> HashMap<String, String> {
    let interactions = &data.interactions;
    let rows = interactions.split.iter().zip(&interactions.timestamp);
    let learned = rows.filter(|(split, _)| **split == Split::Train);
    let until = learned.map(|(_, &time)| time).max().unwrap_or_default();
    HashMap::from([(LEARNED_UNTIL.to_owned(), until.to_string())])
}
