//! Reads features of users or items from Feast's online store. Used by `feature_lookup` and the fused step.

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

/// Counters and log messages of a model's lookups.
pub struct Meters {
    degraded: Counter,
    absent: Counter,
    unreadable: Counter,
    degraded_line: EveryMinute,
    unreadable_line: EveryMinute,
    found: Found,
    /// 1 while lookups find no entity, otherwise 0.
    nobody: Gauge,
    nobody_line: EveryMinute,
    model: String,
    /// Description of the entities that the model looks up, for the warning.
    entities: String,
}

impl Meters {
    /// Registers the counters of a model that reads this view.
    ///
    /// # Errors
    /// Returns an error if Triton refuses a counter.
    pub fn new(context: &ModelContext, view: &FeatureView) -> Result<Self, Error> {
        let nobody = context.gauge(
            "saker_feature_lookup_finds_nobody",
            "1 when lookups have found no entity for a minute or longer, otherwise 0",
            &[],
        )?;
        nobody.set(0.0);
        let counter = |name: &str, help: &str| context.counter(name, help, &[]);
        Ok(Self {
            degraded: counter(
                "saker_feature_lookup_degraded_total",
                "Requests answered with defaults because the store was down or late, or holds an invalid value",
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

    /// Counts the entities of a lookup that exist in the store and those that do not. After a minute without any existing entity, the gauge
    /// and a warning report it. A wrong entity type, project or view has this effect.
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
                        "model '{}': for a minute or longer no lookup has found an entity, so all get defaults; \
                         looked for: {}. Compare the parameters ENTITY_TYPE, FEAST_PROJECT, FEATURE_VIEW, ENTITY, \
                         ENTITY_KEY_SERIALIZATION and the database in REDIS_URL with the store",
                        self.model,
                        self.entities
                    );
                }
            }
        }
    }

    /// Counts requests that are answered with defaults for some or all rows. `why` is the store's error, if it gave no rows.
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

    /// Reports a copy of a view that cannot be refreshed.
    pub fn stale(&self, view: &str, why: &dyn std::fmt::Display) {
        if let Some(more) = self.degraded_line.due() {
            log::warn!(
                "model '{}': view '{view}' cannot be refreshed, the old copy stays in use: {why} ({more} more since the \
                 last line)",
                self.model
            );
        }
    }

    /// Reports a stored value that does not fit its output.
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
