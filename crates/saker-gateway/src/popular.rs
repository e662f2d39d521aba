//! Popular items out of the `trending:*` sets, none older than a second while Valkey answers, and the last known ones when it
//! does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use saker_store::popularity::{self, Set};
use saker_store::{Client, Settings, StoreError};

use crate::store::{Store, replies};

/// How long what was read counts as fresh.
const FRESH: Duration = Duration::from_secs(1);
/// How many items of a set are kept: as many as a request may ask for, and some that it has reason to leave out.
const KEPT: usize = 500;

/// Items with the number of interactions each has had, most first.
pub(crate) type Ranking = Arc<Vec<(i32, f64)>>;

pub(crate) struct Popular {
    store: Store,
    known: Mutex<HashMap<Set, (Instant, Ranking)>>,
    /// In place of what was never read.
    first: Ranking,
}

impl Popular {
    pub(crate) fn open(
        settings: &Settings,
        deadline: Duration,
        first: impl Iterator<Item = i32>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open(settings, 3, deadline, 1)?,
            known: Mutex::default(),
            first: Arc::new(first.map(|id| (id, 0.0)).collect()),
        })
    }

    /// The items of a set, at most a second old, or the last known ones.
    pub(crate) async fn of(&self, set: Set) -> Ranking {
        if let Some((read, ranking)) = self.known(set)
            && read.elapsed() < FRESH
        {
            return ranking;
        }
        match self.store.run(move |client| read(client, set)).await {
            Ok(ranking) => {
                let ranking = Arc::new(ranking);
                let entry = (Instant::now(), Arc::clone(&ranking));
                self.lock().insert(set, entry);
                ranking
            }
            Err(error) => {
                tracing::debug!("{set}: {error}");
                self.last_known(set)
            }
        }
    }

    /// The last known items of a set, without waiting for the store.
    pub(crate) fn last_known(&self, set: Set) -> Ranking {
        match (self.known(set), set) {
            (Some((_, ranking)), _) if !ranking.is_empty() => ranking,
            (_, Set::Global) => Arc::clone(&self.first),
            _ => Arc::default(),
        }
    }

    fn known(&self, set: Set) -> Option<(Instant, Ranking)> {
        self.lock().get(&set).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Set, (Instant, Ranking)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(client: &mut Client, set: Set) -> Result<Vec<(i32, f64)>, StoreError> {
    let mut pipeline = saker_store::Pipeline::new();
    popularity::rank(&mut pipeline, set, KEPT);
    match replies(client, &pipeline)?.pop() {
        Some(reply) => popularity::ranked(set, reply),
        None => Err(StoreError::Protocol(format!("{set}: no reply"))),
    }
}
