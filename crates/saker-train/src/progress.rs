//! Progress reports of a training.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The model in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The two towers of retrieval.
    Towers,
    /// The ranker.
    Ranker,
}

impl Stage {
    /// `towers` or `ranker`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Towers => "towers",
            Self::Ranker => "ranker",
        }
    }
}

/// The results of one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, from 1. 0 is a model before its fine-tuning, which has no loss (NaN).
    pub epoch: usize,
    /// Mean training loss.
    pub loss: f64,
    /// The number that decides which epoch is kept, larger is better.
    pub score: f64,
    /// Validation metrics by name.
    pub validation: BTreeMap<String, f64>,
    /// Whether this is the best epoch so far.
    pub best: bool,
    /// Duration of training, in seconds.
    pub seconds: f64,
    /// Duration of the validation after the training, in seconds.
    pub validation_seconds: f64,
    /// Training rows per second: positives for the towers, positives and negatives for the ranker.
    pub rows_per_second: f64,
}

/// Receives progress reports of a training. The unit type ignores them.
pub trait Progress {
    /// Called after every batch; `false` stops the training with [`crate::Error::Stopped`].
    fn batch(&mut self, stage: Stage, epoch: usize, done: usize, of: usize) -> bool {
        let _ = (stage, epoch, done, of);
        true
    }

    /// Called after every epoch.
    fn epoch(&mut self, stage: Stage, epoch: &Epoch) {
        let _ = (stage, epoch);
    }
}

impl Progress for () {}
