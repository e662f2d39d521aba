//! Trains the towers and the ranker of a pipeline, and exports them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use saker_dataset::features;
use saker_pipeline::Pipeline;
use saker_prepare::up_to_date::{self, Fingerprint};
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_train::candidates::Candidates;
use saker_train::checkpoint::{Checkpoint, LEARNED_UNTIL};
use saker_train::data::{Dataset, Split};
use saker_train::device::Device;
use saker_train::learning::Session;
use saker_train::progress::{Epoch, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

use crate::export;
use crate::training_run::TrainingRun;
use crate::training_session::{Display, TrainingSession};

/// The arguments of a training.
pub struct Request<'a> {
    /// The definition.
    pub pipeline: &'a Pipeline,
    /// The pipeline's folders.
    pub layout: &'a Layout,
    /// The hash over the sources of this program.
    pub code: &'a str,
    /// The device to compute on.
    pub device: Device,
    /// The device's name, for the record of the training.
    pub device_name: &'a str,
    /// Whether to train from the beginning, even if neither features nor definition have changed.
    pub force: bool,
    /// Whether to train only the towers.
    pub only_towers: bool,
    /// Time between two checkpoints.
    pub checkpoint_every: Duration,
    /// What shows the progress.
    pub display: &'a dyn Display,
}

/// Trains both models, or only the towers, unless nothing has changed, and exports them. Returns whether they were trained.
///
/// # Errors
/// Returns an error if the features are missing, if a file cannot be written, or if the run was stopped.
pub fn train(request: &Request<'_>) -> Result<bool> {
    let Request {
        pipeline, layout, ..
    } = *request;
    features::schema(layout)?;
    let (towers_fingerprint, fingerprint) = fingerprints(pipeline, layout, request.code)?;
    let (step, inputs) = match request.only_towers {
        true => ("train-towers", &towers_fingerprint),
        false => ("train", &fingerprint),
    };
    let made = made(request);
    let made: Vec<&Path> = made.iter().map(PathBuf::as_path).collect();
    if !request.force && up_to_date::is_current(layout, step, inputs, &made) {
        return Ok(false);
    }

    let data = read(layout)?;
    let trainer = Trainer {
        pipeline,
        layout,
        data: &data,
        device: request.device.clone(),
        force: request.force,
        session: TrainingSession::new(
            layout,
            format!("saker train {}", pipeline.pipeline.name),
            request.checkpoint_every,
            request.display,
        )?,
        display: request.display,
    };
    TrainingRun::open(layout)?.configure(pipeline, &data, request.device_name)?;
    let towers = trainer.towers(&towers_fingerprint)?;
    export::write_towers(layout, &towers, &data)?;
    if request.only_towers {
        // A ranker of other towers must not remain beside these.
        files::remove(&layout.model("dlrm_ranking"))?;
        files::remove(&layout.finetuned())?;
        trainer.session.forget(Stage::Towers)?;
        return Ok(true);
    }

    let ranker = trainer.ranker(&towers, &fingerprint)?;
    export::write_ranker(layout, &ranker)?;
    trainer.finish(&fingerprint)?;
    files::remove(&layout.finetuned())?;
    Ok(true)
}

/// The files of a training.
fn made(request: &Request<'_>) -> Vec<PathBuf> {
    let layout = request.layout;
    let mut made = vec![
        layout.model("query_tower"),
        layout.model("candidate_tower"),
        layout.item_vectors(),
        layout.checkpoint("towers"),
    ];
    if !request.only_towers {
        made.extend([layout.model("dlrm_ranking"), layout.checkpoint("ranker")]);
    }
    made
}

/// Reads the features.
fn read(layout: &Layout) -> Result<Dataset> {
    let step = Step::start("read the features");
    let data = features::read(layout)?;
    step.done(&format!(
        "{} users, {} items, {} interactions",
        data.users.rows,
        data.items.rows,
        data.interactions.user.len()
    ));
    Ok(data)
}

/// The models of another seed, trained on the same features. They are read from `seeds/<seed>`, and trained there first if something has
/// changed. The serving models are not touched.
///
/// # Errors
/// As [`train`].
pub fn of_seed(
    pipeline: &Pipeline,
    layout: &Layout,
    data: &Dataset,
    seed: u64,
    code: &str,
    display: &dyn Display,
) -> Result<(Towers, Ranker)> {
    let mut pipeline = pipeline.clone();
    pipeline.training.seed = seed;
    let (towers_fingerprint, fingerprint) = fingerprints(&pipeline, layout, code)?;
    let own = layout.of_seed(seed);
    let trainer = Trainer {
        pipeline: &pipeline,
        layout: &own,
        data,
        device: Device::cpu(),
        force: false,
        session: TrainingSession::new(
            &own,
            format!("saker evaluate {}", pipeline.pipeline.name),
            Duration::from_secs(120),
            display,
        )?,
        display,
    };
    let path = own.checkpoint("ranker");
    if up_to_date::is_current(&own, "train", &fingerprint, &[&path]) {
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
fn fingerprints(pipeline: &Pipeline, layout: &Layout, code: &str) -> Result<(String, String)> {
    let towers = towers_fingerprint(pipeline, layout, code)?;
    let (ranker, training) = (&pipeline.ranker, &pipeline.training);
    let both = Fingerprint::of_code(code)
        .value(&(&towers, ranker, training, pipeline.retrieval.topk))?
        .finish();
    Ok((towers, both))
}

/// Fingerprint of the inputs of the towers.
fn towers_fingerprint(pipeline: &Pipeline, layout: &Layout, code: &str) -> Result<String> {
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
    Ok(Fingerprint::of_code(code)
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
    session: TrainingSession<'a>,
    display: &'a dyn Display,
}

impl Trainer<'_> {
    /// Trains the towers, or reads them from the checkpoint of a run that has finished them.
    fn towers(&self, fingerprint: &str) -> Result<Towers> {
        let (pipeline, data) = (self.pipeline, self.data);
        let path = self.layout.checkpoint("towers");
        let towers = Towers::new(&pipeline.towers, data, pipeline.training.seed);
        let mut towers = towers.on(self.device.clone());
        if !self.force && up_to_date::is_current(self.layout, "train-towers", fingerprint, &[&path])
        {
            towers.load(&path)?;
            self.display
                .line(&format!("✓ towers: read from {}", path.display()));
            return Ok(towers);
        }
        self.accompany(Stage::Towers, fingerprint, |session| {
            towers.train(data, &pipeline.towers, &pipeline.training, session)
        })?;
        // The models of an earlier training are replaced from here on.
        up_to_date::forget(self.layout, "train")?;
        up_to_date::renew(self.layout, "train-towers", fingerprint, || {
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
        up_to_date::forget(self.layout, "train")?;
        ranker.save_with(&self.layout.checkpoint("ranker"), learned_until(data))?;
        Ok(ranker)
    }

    /// Records the fingerprint of both models, and removes the state of their training.
    fn finish(&self, fingerprint: &str) -> Result<()> {
        up_to_date::record(self.layout, "train", fingerprint)?;
        self.session.forget(Stage::Towers)?;
        self.session.forget(Stage::Ranker)
    }

    fn accompany(
        &self,
        stage: Stage,
        fingerprint: &str,
        train: impl FnOnce(&mut Session<'_>) -> Result<Vec<Epoch>, saker_train::Error>,
    ) -> Result<()> {
        if self.force {
            self.session.forget(stage)?;
        }
        let training = &self.pipeline.training;
        let epochs = match stage {
            Stage::Towers => training.towers.epochs,
            Stage::Ranker => training.ranker.epochs,
        };
        self.session.run(stage, epochs, fingerprint, train)?;
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
