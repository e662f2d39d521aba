//! Reads entities from the store for each batch.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use saker_contract::RawId;
use saker_store::CommandResult;
use saker_store::feast::FeatureView;
use saker_store::{Client, Link, Pipeline};
use triton_backend::log;

use super::{Columns, Feature, Meters};
use crate::store::Alongside;

/// Maximum time that the creation of an instance waits for its connection, so that the first request finds one.
const FIRST_CONNECTION: Duration = Duration::from_secs(1);

/// A connection and the buffers of one instance.
pub struct Online {
    client: Client,
    view: FeatureView,
    features: Arc<[Feature]>,
    pipeline: Pipeline,
    replies: Vec<CommandResult>,
    /// The entities to look up; the caller fills this.
    pub ids: Vec<i64>,
    columns: Columns,
    /// For each id, whether the store did not answer or returned a row with an unreadable value.
    unanswered: Vec<bool>,
}

impl Online {
    /// Creates the lookup of a view's features.
    pub fn new(link: &Link, view: &FeatureView, features: Arc<[Feature]>) -> Self {
        let mut client = link.client();
        if !client.wait(FIRST_CONNECTION) {
            log::warn!(
                "{}; answering with defaults until the connection exists",
                client.disconnected()
            );
        }
        Self {
            client,
            view: view.clone(),
            columns: Columns::new(&features),
            features,
            pipeline: Pipeline::new(),
            replies: Vec::new(),
            ids: Vec::new(),
            unanswered: Vec::new(),
        }
    }

    /// The features of the latest lookup, one row per id.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// For each id of the latest lookup, whether a feature is unknown. This happens if the store did not answer in time, or if it holds an
    /// invalid value.
    pub fn unanswered(&self) -> &[bool] {
        &self.unanswered
    }

    /// Looks up [`ids`](Self::ids) in the store and fills the columns, in one pipelined round trip. Ids that do not exist become -1.
    /// `requests` holds the range of ids of each request.
    pub fn look_up(&mut self, meters: &Meters, requests: impl Iterator<Item = Range<usize>>) {
        self.look_up_with(meters, requests, None);
    }

    /// Like [`look_up`](Self::look_up), but also reads what `more` asks for, in the same round trip.
    pub fn look_up_with(
        &mut self,
        meters: &Meters,
        requests: impl Iterator<Item = Range<usize>>,
        mut more: Option<&mut dyn Alongside>,
    ) {
        self.pipeline.clear();
        self.columns.clear();
        self.unanswered.clear();
        for &id in self.ids.iter().filter(|&&id| id != RawId::NONE) {
            self.view.read(&self.view.id(id), &mut self.pipeline);
        }
        let entities = self.pipeline.len();
        if let Some(more) = &mut more {
            more.ask(self.client.has_bloom(), &self.ids, &mut self.pipeline);
        }
        let mut failure = None;
        self.replies.clear();
        if !self.pipeline.is_empty() {
            let deadline = Instant::now() + self.client.settings().deadline_for(self.ids.len());
            let replies = &mut self.replies;
            failure = self
                .client
                .run_until(&self.pipeline, deadline, replies)
                .err();
        }
        if let Some(more) = more {
            let own = entities.min(self.replies.len());
            more.take(&mut self.replies.drain(own..), failure.as_ref());
        }
        let mut replies = self.replies.drain(..);
        let (mut found, mut absent) = (0, 0);
        for id in &mut self.ids {
            let asked = *id != RawId::NONE;
            let reply = if asked { replies.next() } else { None };
            let row = match &reply {
                None => Ok(None),
                Some(Ok(reply)) => self.view.row(reply),
                Some(Err(error)) => Err(error.clone()),
            };
            absent += u64::from(reply.is_some() && matches!(row, Ok(None)));
            let mut known = !asked || reply.is_some() && row.is_ok();
            // An unreadable row fails only its own request.
            let row = row.unwrap_or_else(|error| {
                failure.get_or_insert(error);
                None
            });
            match row {
                Some(row) => {
                    found += 1;
                    known &= self.columns.push_row(
                        &self.features,
                        |position| row.value(position),
                        |why| meters.unreadable(&why),
                    );
                }
                None => {
                    *id = RawId::NONE;
                    self.columns.push_defaults(&self.features);
                }
            }
            self.unanswered.push(!known);
        }
        drop(replies);
        meters.looked_up(found, absent);
        let unanswered = |ids: &Range<usize>| {
            let ids = self.unanswered.get(ids.clone()).unwrap_or_default();
            ids.contains(&true)
        };
        meters.degraded(requests.filter(unanswered).count(), failure.as_ref());
    }
}
