//! The training loop of both models: epochs of shuffled batches, validation, early stopping, and the best epoch. Checkpoints let a killed
//! run continue with the same result.
//!
//! Every random choice depends only on the seed, the model, and the number of the epoch or the step. A checkpoint therefore stores the
//! position in the data instead of a random state, and the resumed run ends in the same model, bit for bit.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::parameter::Step;
use crate::progress::{Epoch, Progress, Stage};
use crate::sampling::{Positives, Rates, steps};

/// Progress and checkpoints of a training run.
pub struct Session<'a> {
    /// Receives progress reports, and may stop the run.
    pub progress: &'a mut dyn Progress,
    /// Where a run's state is stored; with `None`, a stopped run starts from the beginning.
    pub checkpoints: Option<Checkpoints>,
}

impl<'a> Session<'a> {
    /// A session without checkpoints.
    pub fn new(progress: &'a mut dyn Progress) -> Self {
        Self {
            progress,
            checkpoints: None,
        }
    }
}

/// Folder and interval of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// Folder of `<model>.safetensors`, the state, and `<model>-best.safetensors`, the best epoch so far.
    pub folder: PathBuf,
    /// Time between two of them. The end of an epoch and a stop by [`Progress`] also write one.
    pub every: Duration,
    /// Identifies data and definition. A state with another fingerprint is not resumed.
    pub fingerprint: String,
}

impl Checkpoints {
    fn path(&self, stage: Stage, kind: &str) -> PathBuf {
        self.folder
            .join(format!("{}{kind}.safetensors", stage.name()))
    }
}

/// One of the two models, as [`learn`] sees it.
pub(crate) trait Learner {
    type Model: Checkpoint + Clone;
    const STAGE: Stage;

    fn rates(&self) -> &Rates;
    fn positives(&self) -> &Positives;
    /// Training rows per positive, including itself.
    fn rows_per_positive(&self) -> usize;
    /// Trains on a batch of positives; returns the loss before the update.
    fn step(
        &mut self,
        model: &mut Self::Model,
        batch: &[u32],
        steps: (Step, Step),
        rng: &mut StdRng,
    ) -> f64;
    /// The number that decides which epoch is kept (larger is better), and all metrics.
    fn validate(&self, model: &Self::Model) -> (f64, BTreeMap<String, f64>);
}

/// Position of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    /// Finished steps since the beginning.
    step: i32,
    /// Finished batches of the current epoch.
    batches: usize,
    /// Sum of the losses of these batches, as the bits of an f64: some parsers read decimal digits back with an error in the last one.
    loss_bits: u64,
    /// Duration of these batches, in seconds.
    seconds: f64,
    /// Number and score (bits of an f64) of the best epoch.
    best: Option<(usize, u64)>,
    /// Finished epochs.
    history: Vec<Epoch>,
}

const POSITION: &str = "position";
const FINGERPRINT: &str = "fingerprint";

/// Runs up to the schedule's number of epochs and leaves the best one in `model`. Stops after `patience` epochs without a better one (0:
/// never). A model that is already trained competes as epoch 0, which only [`Progress`] receives.
pub(crate) fn learn<L: Learner>(
    model: &mut L::Model,
    learner: L,
    seed: u64,
    session: &mut Session<'_>,
) -> Result<Vec<Epoch>, Error> {
    let rates = *learner.rates();
    let keeper = Keeper {
        stage: L::STAGE,
        checkpoints: session.checkpoints.clone(),
    };
    let at = keeper.resume(model)?.unwrap_or_default();
    let mut run = Run {
        learner,
        rates,
        seed,
        keeper,
        at,
        best_in_memory: None,
    };
    if rates.is_trained && run.at.best.is_none() {
        run.start_from(model, session.progress)?;
    }
    let mut order = Vec::new();
    while run.at.history.len() < rates.epochs && !is_over(&run.at, rates.patience) {
        run.epoch(model, &mut order, session.progress)?;
    }
    run.finish(model)
}

/// A run of the training loop.
struct Run<L: Learner> {
    learner: L,
    rates: Rates,
    seed: u64,
    keeper: Keeper,
    at: Position,
    /// The model of the best epoch, if checkpoints are disabled.
    best_in_memory: Option<L::Model>,
}

/// Mean loss of an epoch, and the seconds of its batches.
struct Trained {
    loss: f64,
    seconds: f64,
}

/// Metrics of an epoch on the validation part.
struct Validated {
    score: f64,
    metrics: BTreeMap<String, f64>,
    seconds: f64,
}

impl<L: Learner> Run<L> {
    /// Validates the model before its first epoch, as epoch 0.
    fn start_from(
        &mut self,
        model: &mut L::Model,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let validated = self.validate(model);
        self.keep_best(model, 0, validated.score)?;
        let before = Epoch {
            epoch: 0,
            loss: f64::NAN,
            score: validated.score,
            validation: validated.metrics,
            best: true,
            seconds: 0.0,
            validation_seconds: validated.seconds,
            rows_per_second: 0.0,
        };
        progress.epoch(L::STAGE, &before);
        Ok(())
    }

    /// Trains and validates one epoch. `order` is a buffer for the shuffled positives.
    fn epoch(
        &mut self,
        model: &mut L::Model,
        order: &mut Vec<u32>,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let epoch = self.at.history.len() + 1;
        let mut rng = random(self.seed, L::STAGE, Purpose::Order, epoch as u64);
        self.learner.positives().shuffled(order, &mut rng);
        let trained = self.train(model, order, epoch, progress)?;
        let validated = self.validate(model);
        let best = self.at.best;
        let better = best.is_none_or(|(_, best)| validated.score > f64::from_bits(best));
        if better {
            self.keep_best(model, epoch, validated.score)?;
        }
        let rows = order.len() * self.learner.rows_per_positive();
        self.at.history.push(Epoch {
            epoch,
            loss: trained.loss,
            score: validated.score,
            validation: validated.metrics,
            best: better,
            seconds: trained.seconds,
            validation_seconds: validated.seconds,
            rows_per_second: rows as f64 / trained.seconds,
        });
        (self.at.batches, self.at.loss_bits, self.at.seconds) = (0, 0, 0.0);
        self.keeper.keep(model, &self.at)?;
        progress.epoch(L::STAGE, &self.at.history[epoch - 1]);
        Ok(())
    }

    /// Trains on the epoch's batches, from the position on. Writes a checkpoint when one is due, and before a stop.
    fn train(
        &mut self,
        model: &mut L::Model,
        order: &[u32],
        epoch: usize,
        progress: &mut dyn Progress,
    ) -> Result<Trained, Error> {
        let size = self.rates.batch_size;
        let batches = batches(order.len(), size);
        let mut started = Instant::now();
        for batch in self.at.batches..batches {
            let from = batch * size;
            self.step(model, &order[from..(from + size).min(order.len())]);
            self.at.batches = batch + 1;
            let goes_on = progress.batch(L::STAGE, epoch, batch + 1, batches);
            if !goes_on || self.keeper.is_due(started.elapsed()) {
                self.at.seconds += started.elapsed().as_secs_f64();
                self.keeper.keep(model, &self.at)?;
                started = Instant::now();
            }
            if !goes_on {
                return Err(Error::Stopped);
            }
        }
        let seconds = self.at.seconds + started.elapsed().as_secs_f64();
        let loss = f64::from_bits(self.at.loss_bits) / batches as f64;
        if !loss.is_finite() {
            return Err(Error::Diverged {
                model: L::STAGE.name(),
                loss,
                epoch,
            });
        }
        Ok(Trained { loss, seconds })
    }

    /// Trains on one batch of positives, and adds its loss.
    fn step(&mut self, model: &mut L::Model, rows: &[u32]) {
        self.at.step += 1;
        let mut rng = random(self.seed, L::STAGE, Purpose::Draws, self.at.step as u64);
        let steps = steps(&self.rates, self.at.step);
        let loss = self.learner.step(model, rows, steps, &mut rng);
        self.at.loss_bits = (f64::from_bits(self.at.loss_bits) + loss).to_bits();
    }

    fn validate(&self, model: &L::Model) -> Validated {
        let started = Instant::now();
        let (score, metrics) = self.learner.validate(model);
        Validated {
            score,
            metrics,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    fn keep_best(&mut self, model: &mut L::Model, epoch: usize, score: f64) -> Result<(), Error> {
        self.at.best = Some((epoch, score.to_bits()));
        if !self.keeper.keep_best(model)? {
            self.best_in_memory = Some(model.clone());
        }
        Ok(())
    }

    /// Restores the best epoch, unless it is the last one. Returns the history.
    fn finish(self, model: &mut L::Model) -> Result<Vec<Epoch>, Error> {
        let history = self.at.history;
        if self.at.best.is_some_and(|(epoch, _)| epoch < history.len()) {
            match self.best_in_memory {
                Some(best) => *model = best,
                None => self.keeper.read_best(model)?,
            }
        }
        Ok(history)
    }
}

/// Whether the last `patience` epochs were not better.
fn is_over(at: &Position, patience: usize) -> bool {
    let since = at.best.map_or(0, |(epoch, _)| at.history.len() - epoch);
    patience > 0 && since >= patience
}

/// Number of batches. A last batch of a single row is dropped, because it contains no negatives.
fn batches(rows: usize, size: usize) -> usize {
    rows / size + usize::from(rows % size > 1)
}

#[derive(Clone, Copy)]
enum Purpose {
    Order,
    Draws,
}

fn random(seed: u64, stage: Stage, purpose: Purpose, number: u64) -> StdRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes[16] = stage as u8;
    bytes[17] = purpose as u8;
    StdRng::from_seed(bytes)
}

/// Writes and reads the states of one model's run.
struct Keeper {
    stage: Stage,
    checkpoints: Option<Checkpoints>,
}

impl Keeper {
    fn is_due(&self, since: Duration) -> bool {
        let checkpoints = self.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| since >= checkpoints.every)
    }

    fn keep<M: Checkpoint>(&self, model: &mut M, at: &Position) -> Result<(), Error> {
        let Some(checkpoints) = &self.checkpoints else {
            return Ok(());
        };
        let path = checkpoints.path(self.stage, "");
        let position = serde_json::to_string(at).map_err(|error| Error::Checkpoint {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let notes = HashMap::from([
            (POSITION.to_owned(), position),
            (FINGERPRINT.to_owned(), checkpoints.fingerprint.clone()),
        ]);
        model.save_with(&path, notes)
    }

    /// Writes the best model's checkpoint; returns `false` if checkpoints are disabled.
    ///
    /// The checkpoint is written before the state that refers to it. A kill in between is harmless: the resumed run reaches the same best
    /// epoch again.
    fn keep_best<M: Checkpoint>(&self, model: &mut M) -> Result<bool, Error> {
        let Some(checkpoints) = &self.checkpoints else {
            return Ok(false);
        };
        model.save(&checkpoints.path(self.stage, "-best"))?;
        Ok(true)
    }

    fn read_best<M: Checkpoint>(&self, model: &mut M) -> Result<(), Error> {
        match &self.checkpoints {
            Some(checkpoints) => model.load(&checkpoints.path(self.stage, "-best")),
            None => Ok(()),
        }
    }

    fn resume<M: Checkpoint>(&self, model: &mut M) -> Result<Option<Position>, Error> {
        let Some(checkpoints) = &self.checkpoints else {
            return Ok(None);
        };
        let path = checkpoints.path(self.stage, "");
        if !path.exists() {
            return Ok(None);
        }
        let notes = M::notes(&path)?;
        if notes.get(FINGERPRINT) != Some(&checkpoints.fingerprint) {
            return Ok(None);
        }
        model.load(&path)?;
        let position = notes.get(POSITION).map(String::as_str).unwrap_or_default();
        serde_json::from_str(position)
            .map(Some)
            .map_err(|error| Error::Checkpoint {
                path,
                reason: format!("its position in the data is invalid: {error}"),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(scores: &[f64]) -> Position {
        let mut at = Position::default();
        for (epoch, &score) in scores.iter().enumerate() {
            if at.best.is_none_or(|(_, best)| score > f64::from_bits(best)) {
                at.best = Some((epoch + 1, score.to_bits()));
            }
            at.history.push(Epoch {
                epoch: epoch + 1,
                loss: 1.0,
                score,
                validation: BTreeMap::new(),
                best: false,
                seconds: 1.0,
                validation_seconds: 0.0,
                rows_per_second: 1.0,
            });
        }
        at
    }

    #[test]
    fn patience_ends_a_run_that_gets_no_better() {
        assert!(!is_over(&after(&[]), 2));
        assert!(!is_over(&after(&[0.1, 0.3, 0.2]), 2));
        assert!(is_over(&after(&[0.1, 0.3, 0.2, 0.3]), 2));
        assert!(!is_over(&after(&[0.1, 0.3, 0.2, 0.3]), 0));
    }

    #[test]
    fn a_last_batch_of_one_row_is_left_out() {
        assert_eq!(batches(2049, 1024), 2);
        assert_eq!(batches(2050, 1024), 3);
        assert_eq!(batches(2, 1024), 1);
    }

    #[test]
    fn a_position_survives_its_text() {
        let at = after(&[0.1 + 0.2, 1.0 / 3.0]);
        let text = serde_json::to_string(&at).unwrap();
        let back: Position = serde_json::from_str(&text).unwrap();
        assert_eq!(back.best, at.best);
        assert_eq!(back.history.len(), 2);
    }
}
