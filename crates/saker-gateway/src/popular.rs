//! Popular items, read from the `trending:*` sets. They are at most a second old while Valkey answers; otherwise the last known ones are
//! used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use saker_contract::Database;
use saker_store::popularity::{self, Set};
use saker_store::{Client, Settings, StoreError};

use crate::catalogue::DisplayCatalogue;
use crate::store::{Store, replies};

/// Age up to which the items read from the store count as fresh.
const FRESH: Duration = Duration::from_secs(1);
/// Number of items kept per set: the maximum of a request, plus a reserve for items that the request excludes.
const KEPT: usize = 500;
/// Number of catalogue items used when popularity is unknown.
const FIRST: usize = 100;

/// Items with their number of interactions, the most popular first.
pub(crate) type Ranking = Arc<Vec<(i32, f64)>>;

pub(crate) struct Popular {
    store: Store,
    known: Mutex<HashMap<Set, (Instant, Ranking)>>,
}

impl Popular {
    pub(crate) fn open(settings: &Settings, deadline: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open(settings, Database::Popularity, deadline, 1)?,
            known: Mutex::default(),
        })
    }

    /// The items of a set: at most a second old, or the last known ones if the store does not answer.
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

    /// The last known items of a set, without a call to the store; empty if the set was never read.
    pub(crate) fn last_known(&self, set: Set) -> Ranking {
        self.known(set)
            .map(|(_, ranking)| ranking)
            .unwrap_or_default()
    }

    fn known(&self, set: Set) -> Option<(Instant, Ranking)> {
        self.lock().get(&set).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Set, (Instant, Ranking)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first `count` items of a ranking that exist in the catalogue. The ranking may be older than a catalogue that was just replaced. If
/// no item of the ranking exists in the catalogue, the catalogue's first items are returned.
///
/// If the catalogue is empty, for example because this machine has no prepared data, the ranking is not filtered.
pub(crate) fn in_catalogue(
    ranking: &Ranking,
    set: Set,
    catalogue: &DisplayCatalogue,
    count: usize,
) -> Vec<(i32, f64)> {
    let is_known = |id: i32| catalogue.is_empty() || catalogue.item(id).is_some();
    let known = ranking.iter().filter(|(id, _)| is_known(*id));
    let known: Vec<(i32, f64)> = known.take(count).copied().collect();
    if known.is_empty() && set == Set::Global {
        let first = catalogue.first(FIRST.min(count));
        return first.map(|id| (id, 0.0)).collect();
    }
    known
}

fn read(client: &mut Client, set: Set) -> Result<Vec<(i32, f64)>, StoreError> {
    let mut pipeline = saker_store::Pipeline::new();
    popularity::rank(&mut pipeline, set, KEPT);
    match replies(client, &pipeline)?.pop() {
        Some(reply) => popularity::ranked(set, reply),
        None => Err(StoreError::Protocol(format!("{set}: no reply"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Item;

    fn catalogue(ids: &[i32]) -> DisplayCatalogue {
        let items = ids.iter().map(|&id| Item {
            id,
            ..Item::default()
        });
        DisplayCatalogue::new(Vec::new(), items, [], |_| serde_json::Map::new())
    }

    #[test]
    fn items_that_the_catalogue_lacks_are_left_out_and_made_up_for() {
        let ranking: Ranking = Arc::new(vec![(1, 9.0), (2, 5.0), (3, 2.0)]);
        let of = |ids: &[i32], count| in_catalogue(&ranking, Set::Global, &catalogue(ids), count);
        assert_eq!(of(&[2, 3, 4], 2), [(2, 5.0), (3, 2.0)]);
        assert_eq!(of(&[3, 4], 1), [(3, 2.0)]);
        assert_eq!(of(&[4, 5], 5), [(4, 0.0), (5, 0.0)]);
        assert_eq!(of(&[], 2), [(1, 9.0), (2, 5.0)]);
        let of_category = in_catalogue(&ranking, Set::CategoryL1(1), &catalogue(&[4]), 5);
        assert!(of_category.is_empty(), "{of_category:?}");
    }
}
