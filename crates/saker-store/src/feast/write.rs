//! Writes a view in bulk.

use std::time::Duration;

use super::{EntityId, FeatureView, Timestamp, Value};
use crate::{Connection, Pipeline, StoreError};

/// Number of entities per round trip.
const BATCH: usize = 1000;
/// Maximum duration of such a round trip.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Writes entities of one view. The same entity's features in other views stay, and so do features that the view does not name.
pub struct Writer<'c> {
    connection: &'c mut Connection,
    view: FeatureView,
    expiry: Option<Duration>,
    pipeline: Pipeline,
    waiting: u64,
    written: u64,
}

impl<'c> Writer<'c> {
    /// Creates a writer. `expiry` is Feast's `key_ttl_seconds`, after which the whole entity expires; `None`, Feast's default, means never.
    #[must_use]
    pub fn new(
        connection: &'c mut Connection,
        view: FeatureView,
        expiry: Option<Duration>,
    ) -> Self {
        Self {
            connection,
            view,
            expiry,
            pipeline: Pipeline::new(),
            waiting: 0,
            written: 0,
        }
    }

    /// Adds one entity. `values` has the order of the view's features (`None`: a null); `time` is the time of the event. Sends a batch when
    /// a thousand entities are waiting. Returns the number of entities written so far, for a progress bar.
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`] if the number of values differs from the number of features, and the errors of the store.
    pub fn write(
        &mut self,
        id: &EntityId,
        values: &[Option<Value>],
        time: Timestamp,
    ) -> Result<u64, StoreError> {
        let key = self.view.key(id);
        let words = self.view.write(id, values, time)?;
        self.pipeline.command(&key, |cmd| {
            words.iter().for_each(|word| {
                cmd.arg(word);
            });
        });
        if let Some(expiry) = self.expiry {
            self.pipeline.command(&key, |cmd| {
                cmd.arg("EXPIRE").arg(&key).arg(expiry.as_secs());
            });
        }
        self.waiting += 1;
        if self.waiting as usize >= BATCH {
            self.flush()?;
        }
        Ok(self.written)
    }

    /// Sends the waiting entities and returns the total number of entities written.
    ///
    /// # Errors
    /// Returns the errors of the store.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.flush()?;
        Ok(self.written)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.waiting > 0 {
            self.connection.run(&self.pipeline, TIMEOUT)?;
            self.pipeline.clear();
            self.written += self.waiting;
            self.waiting = 0;
        }
        Ok(())
    }
}
