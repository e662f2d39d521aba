//! Online mode: one pipelined round trip to the store for all ids of all requests of a batch.

use std::ops::Range;
use std::sync::Arc;

use saker_steps::lookup::{self, Feature, Meters};
use saker_store::Link;
use saker_store::feast::FeatureView;
use triton_backend::{Batch, Error};

use crate::Tensors;

/// One instance.
pub struct Online {
    features: Arc<[Feature]>,
    store: lookup::Online,
    /// For each request, its index in the batch and its rows.
    requests: Vec<(usize, Range<usize>)>,
}

impl Online {
    pub(crate) fn new(link: &Link, view: &FeatureView, features: Arc<[Feature]>) -> Self {
        Self {
            store: lookup::Online::new(link, view, Arc::clone(&features)),
            features,
            requests: Vec::new(),
        }
    }

    pub(crate) fn execute(
        &mut self,
        tensors: &Tensors,
        meters: &Meters,
        batch: &Batch<'_>,
    ) -> Result<(), Error> {
        self.read(tensors, batch);
        batch.compute_starts();
        let rows = self.requests.iter().map(|(_, rows)| rows.clone());
        self.store.look_up(meters, rows);
        batch.compute_ends();
        for (index, rows) in &self.requests {
            let (start, count) = (rows.start, rows.len());
            batch.respond(*index, |request, response| {
                let input = request.input_at(0)?;
                let shape = input.as_ref().map_or(&[][..], |tensor| tensor.shape());
                let rows = start..start + count;
                let (Some(found), Some(unanswered)) = (
                    self.store.ids.get(rows.clone()),
                    self.store.unanswered().get(rows),
                ) else {
                    return Err(Error::internal(format!(
                        "rows {start} to {} of a batch with {} ids",
                        start + count,
                        self.store.ids.len()
                    )));
                };
                tensors.write_echo(response, shape, found.iter().copied())?;
                tensors.write_degraded(response, shape, unanswered)?;
                self.store
                    .columns()
                    .copy(&self.features, start, count, response, shape)
            });
        }
        Ok(())
    }

    /// Gathers the ids.
    fn read(&mut self, tensors: &Tensors, batch: &Batch<'_>) {
        let ids = &mut self.store.ids;
        ids.clear();
        self.requests.clear();
        for (index, request) in batch.pending() {
            let start = ids.len();
            match tensors.read_ids(request, ids) {
                Ok(count) => self.requests.push((index, start..start + count)),
                Err(error) => {
                    ids.truncate(start);
                    batch.reject(index, error);
                }
            }
        }
    }
}
