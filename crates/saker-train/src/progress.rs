//! How training reports, stops early and keeps its best epoch.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Which model is being trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The two towers of retrieval.
    Towers,
    /// The ranker.
    Ranker,
}

/// What one epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean training loss.
    pub loss: f64,
    /// The number that decides which epoch is kept, larger is better.
    pub score: f64,
    /// Validation metrics by name.
    pub validation: BTreeMap<String, f64>,
    /// Whether this is the best epoch so far.
    pub best: bool,
    /// Duration with validation, in seconds.
    pub seconds: f64,
}

/// Hears how training goes. The unit type hears nothing.
pub trait Progress {
    /// After every batch; `false` stops the training with [`Error::Stopped`].
    fn batch(&mut self, stage: Stage, epoch: usize, done: usize, of: usize) -> bool {
        let _ = (stage, epoch, done, of);
        true
    }

    /// After every epoch.
    fn epoch(&mut self, stage: Stage, epoch: &Epoch) {
        let _ = (stage, epoch);
    }
}

impl Progress for () {}

/// What the closure of [`keep_best`] returns: training loss, score, validation metrics.
pub(crate) type Outcome = (f64, f64, BTreeMap<String, f64>);

/// Called after every batch with the number done and the number of all.
pub(crate) type Report<'a> = dyn FnMut(usize, usize) -> Result<(), Error> + 'a;

/// Runs up to `epochs` epochs, leaves the best one in `model`, and stops after `patience` epochs without a better one
/// (0: never).
pub(crate) fn keep_best<M: Clone>(
    model: &mut M,
    stage: Stage,
    epochs: usize,
    patience: usize,
    progress: &mut dyn Progress,
    mut run: impl FnMut(&mut M, &mut Report<'_>) -> Result<Outcome, Error>,
) -> Result<Vec<Epoch>, Error> {
    let mut history: Vec<Epoch> = Vec::new();
    let mut best: Option<(f64, M)> = None;
    let mut without_better = 0;
    for epoch in 1..=epochs {
        let started = Instant::now();
        let (loss, score, validation) = run(model, &mut |done, of| {
            if progress.batch(stage, epoch, done, of) {
                Ok(())
            } else {
                Err(Error::Stopped)
            }
        })?;
        if !loss.is_finite() {
            let model = if stage == Stage::Towers {
                "towers"
            } else {
                "ranker"
            };
            return Err(Error::Diverged { model, loss, epoch });
        }
        let better = best.as_ref().is_none_or(|(of_best, _)| score > *of_best);
        if better {
            best = Some((score, model.clone()));
            without_better = 0;
        } else {
            without_better += 1;
        }
        let seconds = started.elapsed().as_secs_f64();
        history.push(Epoch {
            epoch,
            loss,
            score,
            validation,
            best: better,
            seconds,
        });
        progress.epoch(stage, &history[history.len() - 1]);
        if patience > 0 && without_better >= patience {
            break;
        }
    }
    if let Some((_, kept)) = best {
        *model = kept;
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_epoch_is_kept_and_patience_ends_the_run() {
        let scores = [0.1, 0.3, 0.2, 0.3, 0.9];
        let mut model = 0;
        let history = keep_best(&mut model, Stage::Towers, 5, 2, &mut (), |model, _| {
            *model += 1;
            Ok((1.0, scores[*model - 1], BTreeMap::new()))
        })
        .unwrap();
        assert_eq!(history.len(), 4);
        assert_eq!(model, 2);
    }

    #[test]
    fn a_loss_that_is_no_number_is_an_error() {
        let error = keep_best(&mut 0, Stage::Ranker, 5, 2, &mut (), |_, _| {
            Ok((f64::NAN, 0.0, BTreeMap::new()))
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("loss of the ranker is NaN in epoch 1")
        );
    }
}
