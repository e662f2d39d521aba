//! Features of users or items from Feast's online store: `feature_lookup`, and the fused step.

mod column;
mod online;
mod parameters;

use triton_backend::log::{self, EveryMinute};
use triton_backend::{Counter, Error, ModelContext};

pub use column::{Columns, Feature};
pub use online::Online;
pub use parameters::{Mode, Parameters};

/// Stands for no entity: never looked up.
pub const PADDING: i64 = -1;

/// What is counted and said.
pub struct Meters {
    degraded: Counter,
    /// Entities that the store does not have.
    pub absent: Counter,
    unreadable: Counter,
    degraded_line: EveryMinute,
    unreadable_line: EveryMinute,
    model: String,
}

impl Meters {
    /// The counters of a model.
    ///
    /// # Errors
    /// Triton refuses one.
    pub fn new(context: &ModelContext) -> Result<Self, Error> {
        let counter = |name: &str, help: &str| context.counter(name, help, &[]);
        Ok(Self {
            degraded: counter(
                "saker_feature_lookup_degraded_total",
                "Requests answered with defaults because the store was down or late",
            )?,
            absent: counter(
                "saker_feature_lookup_absent_total",
                "Entities that the store does not have",
            )?,
            unreadable: counter(
                "saker_feature_lookup_unreadable_total",
                "Stored values answered with the default because they do not fit the output",
            )?,
            degraded_line: EveryMinute::new(),
            unreadable_line: EveryMinute::new(),
            model: context.name().to_owned(),
        })
    }

    /// Requests that are answered with defaults.
    pub fn degraded(&self, requests: usize, why: &dyn std::fmt::Display) {
        self.degraded.increment(requests as u64);
        if let Some(more) = self.degraded_line.due() {
            log::warn!(
                "model '{}': the store gives no features, answering with defaults: {why} ({more} more such calls \
                 since the last line)",
                self.model
            );
        }
    }

    /// A copy of a view that cannot be renewed.
    pub fn stale(&self, view: &str, why: &dyn std::fmt::Display) {
        if let Some(more) = self.degraded_line.due() {
            log::warn!(
                "model '{}': view '{view}' cannot be renewed, the copy at hand serves on: {why} ({more} more since the \
                 last line)",
                self.model
            );
        }
    }

    /// A stored value that does not fit.
    pub fn unreadable(&self, why: &dyn std::fmt::Display) {
        self.unreadable.increment(1);
        if let Some(more) = self.unreadable_line.due() {
            log::warn!(
                "model '{}': {why}; answering with the default ({more} more such values since the last line)",
                self.model
            );
        }
    }
}
