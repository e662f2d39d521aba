//! Features of users or items from Feast's online store: `feature_lookup`, and the fused step.

mod codes;
mod column;
mod found;
mod online;
mod parameters;

use saker_store::StoreError;
use saker_store::feast::FeatureView;
use triton_backend::log::{self, EveryMinute};
use triton_backend::{Counter, Error, Gauge, ModelContext};

use found::{Found, Lately};

pub use codes::Vocabulary;
pub use column::{Columns, Feature};
pub use online::Online;
pub use parameters::{Mode, Parameters};
pub(crate) use parameters::{entity_type, of_ids, wrong_store};

/// Stands for no entity: never looked up.
pub const PADDING: i64 = -1;

/// What is counted and said.
pub struct Meters {
    degraded: Counter,
    absent: Counter,
    unreadable: Counter,
    degraded_line: EveryMinute,
    unreadable_line: EveryMinute,
    found: Found,
    /// 1 while nobody is found, else 0.
    nobody: Gauge,
    nobody_line: EveryMinute,
    model: String,
    /// Whom the model looks for, as a warning says it.
    entities: String,
}

impl Meters {
    /// The counters of a model that reads this view.
    ///
    /// # Errors
    /// Triton refuses one.
    pub fn new(context: &ModelContext, view: &FeatureView) -> Result<Self, Error> {
        let nobody = context.gauge(
            "saker_feature_lookup_finds_nobody",
            "1 when lookups have found no entity for a minute or longer, else 0",
            &[],
        )?;
        nobody.set(0.0);
        let counter = |name: &str, help: &str| context.counter(name, help, &[]);
        Ok(Self {
            degraded: counter(
                "saker_feature_lookup_degraded_total",
                "Requests answered with defaults because the store was down or late, or holds something that cannot be read",
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
            found: Found::new(),
            nobody,
            nobody_line: EveryMinute::new(),
            model: context.name().to_owned(),
            entities: format!(
                "view '{}' of project '{}', join key '{}' as {}, key serialization {}",
                view.name(),
                view.project(),
                view.join_key(),
                view.entity_type(),
                view.version()
            ),
        })
    }

    /// Entities that the store answered for: how many it has, how many it has not. When it has had none for a minute, the gauge
    /// and a warning say so: that is what a wrong entity type, project or view looks like.
    pub fn looked_up(&self, found: u64, absent: u64) {
        if absent > 0 {
            self.absent.increment(absent);
        }
        if found == 0 && absent == 0 {
            return;
        }
        match self.found.note(found > 0) {
            Lately::Somebody => {}
            Lately::SomebodyAgain => {
                self.nobody.set(0.0);
                log::info!("model '{}': lookups find entities again", self.model);
            }
            Lately::Nobody => {
                self.nobody.set(1.0);
                if self.nobody_line.due().is_some() {
                    log::warn!(
                        "model '{}': for a minute or longer no lookup has found an entity, all of them get defaults; \
                         looked for: {}. Compare the parameters ENTITY_TYPE, FEAST_PROJECT, FEATURE_VIEW, ENTITY, \
                         ENTITY_KEY_SERIALIZATION and the database in REDIS_URL with the store",
                        self.model,
                        self.entities
                    );
                }
            }
        }
    }

    /// Requests that are answered with defaults, wholly or for some rows, and why the store gives no rows, if it does not.
    pub fn degraded(&self, requests: usize, why: Option<&StoreError>) {
        if requests > 0 {
            self.degraded.increment(requests as u64);
        }
        if let Some(why) = why
            && let Some(more) = self.degraded_line.due()
        {
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
