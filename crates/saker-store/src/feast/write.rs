//! Writing a view in bulk.

use std::time::Duration;

use super::{EntityId, FeatureView, Timestamp, Value};
use crate::{Connection, Pipeline, StoreError};

/// How many entities go in one round trip.
const BATCH: usize = 1000;
/// How long one such round trip may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Writes entities of one view. What other views hold of the same entity stays, as do features not named in the view.
pub struct Writer<'c> {
    connection: &'c mut Connection,
    view: FeatureView,
    expiry: Option<Duration>,
    pipeline: Pipeline,
    waiting: u64,
    written: u64,
}

impl<'c> Writer<'c> {
    /// `expiry`: Feast's `key_ttl_seconds`, after which the whole entity is forgotten; `None`: never, as is Feast's default.
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

    /// Adds one entity: `values` in the order of the view's features (`None`: a null) and the time of the event.
    /// Sends when a thousand wait, and gives the number of entities written so far, for a progress bar.
    ///
    /// # Errors
    /// [`StoreError::Settings`] when the number of values is not that of the features; those of the store.
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

    /// Sends what waits and gives the number of entities written in all.
    ///
    /// # Errors
    /// Those of the store.
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
