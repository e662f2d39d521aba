//! Online mode: one pipelined round trip for all ids of all requests of a batch.

use std::sync::Arc;
use std::time::Duration;

use saker_store::connection::CommandResult;
use saker_store::feast::{EntityId, FeatureView};
use saker_store::{Client, Link, Pipeline};
use triton_backend::{Batch, DataType, Error, log};

use crate::column::{Columns, Feature};
use crate::{Meters, PADDING, Tensors};

/// How long the making of an instance waits for its connection, so that the first request finds one.
const FIRST_CONNECTION: Duration = Duration::from_secs(1);

/// One instance: its connection and its buffers.
pub struct Online {
    client: Client,
    view: FeatureView,
    features: Arc<[Feature]>,
    id_type: DataType,
    pipeline: Pipeline,
    replies: Vec<CommandResult>,
    ids: Vec<i64>,
    /// Whose rows they are: index in the batch, first row, number of rows.
    requests: Vec<(usize, usize, usize)>,
    columns: Columns,
}

impl Online {
    pub(crate) fn new(
        link: &Link,
        view: &FeatureView,
        features: Arc<[Feature]>,
        id_type: DataType,
    ) -> Self {
        let mut client = link.client();
        if !client.wait(FIRST_CONNECTION) {
            log::warn!(
                "{}; answering with defaults until it is there",
                client.disconnected()
            );
        }
        Self {
            client,
            view: view.clone(),
            columns: Columns::new(&features),
            features,
            id_type,
            pipeline: Pipeline::new(),
            replies: Vec::new(),
            ids: Vec::new(),
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
        self.ask(meters);
        batch.compute_ends();
        for &(index, start, count) in &self.requests {
            batch.respond(index, |request, response| {
                let input = request.input_at(0)?;
                let shape = input.as_ref().map_or(&[][..], |tensor| tensor.shape());
                let found = self.ids[start..start + count].iter().copied();
                tensors.write_echo(response, shape, found)?;
                self.columns
                    .copy(&self.features, start, count, response, shape)
            });
        }
        Ok(())
    }

    /// Gathers the ids and packs the commands.
    fn read(&mut self, tensors: &Tensors, batch: &Batch<'_>) {
        self.ids.clear();
        self.requests.clear();
        self.pipeline.clear();
        self.columns.clear();
        for (index, request) in batch.pending() {
            let start = self.ids.len();
            match tensors.read_ids(request, &mut self.ids) {
                Ok(count) => self.requests.push((index, start, count)),
                Err(error) => {
                    self.ids.truncate(start);
                    batch.reject(index, error);
                }
            }
        }
        for &id in self.ids.iter().filter(|&&id| id != PADDING) {
            let id = match self.id_type {
                DataType::Int64 => EntityId::Int64(id),
                _ => EntityId::Int32(id as i32),
            };
            self.view.read(&id, &mut self.pipeline);
        }
    }

    /// Asks the store and fills the columns; ids that were not found become -1.
    fn ask(&mut self, meters: &Meters) {
        let mut failure = None;
        self.replies.clear();
        if !self.pipeline.is_empty()
            && let Err(error) = self.client.run(&self.pipeline, &mut self.replies)
        {
            failure = Some(error);
        }
        let mut replies = self.replies.drain(..);
        let mut absent = 0;
        for id in &mut self.ids {
            let reply = if *id == PADDING { None } else { replies.next() };
            let row = match &reply {
                None => None,
                Some(Ok(reply)) => self.view.row(reply).unwrap_or_else(|error| {
                    failure.get_or_insert(error);
                    None
                }),
                Some(Err(error)) => {
                    failure.get_or_insert(error.clone());
                    None
                }
            };
            match row {
                Some(row) => self.columns.push_row(
                    &self.features,
                    |position| row.value(position),
                    |why| meters.unreadable(&why),
                ),
                None => {
                    absent += u64::from(matches!(&reply, Some(Ok(_))));
                    *id = PADDING;
                    self.columns.push_defaults(&self.features);
                }
            }
        }
        if absent > 0 {
            meters.absent.increment(absent);
        }
        if let Some(error) = failure {
            meters.degraded(self.requests.len(), &error);
        }
    }
}
