//! State shared by all requests, and the background tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use saker_contract::Database;
use saker_contract::keys::EVENTS;
use saker_store::popularity::Set;
use tokio::sync::Semaphore;

use crate::catalogue::DisplayCatalogue;
use crate::metrics::Metrics;
use crate::popular::Popular;
use crate::ranking::Ranking;
use crate::store::{Store, replies};
use crate::{Error, Operations, Settings};

/// Interval between two checks of the store, and between two reads of the popular items.
const WATCH: Duration = Duration::from_millis(500);
/// Maximum number of concurrent explanations. Each calls every step, one after the other.
const EXPLANATIONS: usize = 2;
/// Share of its maxmemory that the store may use before the gateway refuses events. The rest is reserved for the updater.
const FULL: f64 = 0.95;
/// Interval between two checks whether a replaced catalogue is still in use.
const RELEASED: Duration = Duration::from_secs(1);

pub(crate) struct State {
    pub(crate) settings: Settings,
    /// The catalogue for new requests.
    catalogue: ArcSwap<DisplayCatalogue>,
    pub(crate) operations: Operations,
    pub(crate) ranking: Ranking,
    pub(crate) popular: Popular,
    /// Users' features.
    pub(crate) features: Store,
    /// Events, seen items and recent items.
    pub(crate) activity: Store,
    pub(crate) metrics: Metrics,
    pub(crate) explanations: Arc<Semaphore>,
    /// Whether the store answered the latest check.
    store_answers: AtomicBool,
    /// Whether the store was nearly full at the latest check.
    store_is_full: AtomicBool,
    /// Whether the stop signal has arrived.
    stopping: AtomicBool,
}

impl State {
    pub(crate) fn open(
        settings: Settings,
        catalogue: DisplayCatalogue,
        operations: Operations,
    ) -> Result<Self, Error> {
        let (store, deadline) = (&settings.store, settings.store_deadline);
        let ranking = Ranking::open(&settings)?;
        Ok(Self {
            metrics: Metrics::new(ranking.servers().clone(), &settings.traces),
            ranking,
            popular: Popular::open(store, deadline)?,
            features: Store::open(store, Database::Features, deadline, 1)?,
            activity: Store::open(store, Database::Activity, deadline, 4)?,
            explanations: Arc::new(Semaphore::new(EXPLANATIONS)),
            // The store counts as reachable until the first check.
            store_answers: AtomicBool::new(true),
            store_is_full: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            settings,
            catalogue: ArcSwap::from_pointee(catalogue),
            operations,
        })
    }

    /// The current catalogue. A request calls this once and keeps the result until its end.
    pub(crate) fn catalogue(&self) -> Arc<DisplayCatalogue> {
        self.catalogue.load_full()
    }

    /// Replaces the catalogue for all new requests.
    pub(crate) fn replace_catalogue(&self, catalogue: DisplayCatalogue) {
        tracing::info!(
            "the gateway uses a new catalogue of {} items",
            catalogue.len()
        );
        let old = self.catalogue.swap(Arc::new(catalogue));
        // The last owner frees a million items, which takes too long for a request. A separate thread is the last owner.
        let release = move || {
            while Arc::strong_count(&old) > 1 {
                std::thread::sleep(RELEASED);
            }
        };
        let thread = std::thread::Builder::new().name("old catalogue".into());
        if let Err(error) = thread.spawn(release) {
            tracing::warn!("no thread to free the old catalogue: {error}");
        }
    }

    /// Whether the store answered the latest check, at most about a second ago.
    pub(crate) fn store_answers(&self) -> bool {
        self.store_answers.load(Ordering::Relaxed)
    }

    /// Whether the store was nearly full at the latest check, at most about a second ago.
    pub(crate) fn store_is_full(&self) -> bool {
        self.store_is_full.load(Ordering::Relaxed)
    }

    /// Checks the store's memory. A store that does not report it, such as a cluster, refuses writes itself when it is full.
    async fn look_at_memory(&self) {
        let used = |client: &mut saker_store::Client| {
            let mut pipeline = saker_store::Pipeline::new();
            pipeline.keyless(|cmd| {
                cmd.arg("INFO").arg("memory");
            });
            Ok(replies(client, &pipeline)?.pop())
        };
        let used = match self.activity.run(used).await {
            Ok(Some(saker_store::Reply::BulkString(text))) => share_used(&text),
            Ok(Some(saker_store::Reply::VerbatimString { text, .. })) => {
                share_used(text.as_bytes())
            }
            _ => None,
        };
        let is_full = used.is_some_and(|share| share >= FULL);
        let before = self.store_is_full.swap(is_full, Ordering::Relaxed);
        match (before, is_full) {
            (false, true) => tracing::warn!(
                "the store uses {:.0} % of its maxmemory: the gateway refuses events until the use falls below {:.0} %",
                100.0 * used.unwrap_or_default(),
                100.0 * FULL
            ),
            (true, false) => tracing::warn!("the store has room again: the gateway accepts events"),
            _ => {}
        }
    }

    /// Whether the stop signal has arrived. The gateway still answers but is not ready.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Checks that the store answers.
    pub(crate) async fn ping(&self) -> Result<(), saker_store::StoreError> {
        let ping = |client: &mut saker_store::Client| {
            let mut pipeline = saker_store::Pipeline::new();
            pipeline.keyless(|cmd| {
                cmd.arg("PING");
            });
            client.run(&pipeline, &mut Vec::new())
        };
        self.activity.run(ping).await
    }

    /// Number of events in the stream.
    pub(crate) async fn waiting_events(&self) -> Result<i64, saker_store::StoreError> {
        let count = |client: &mut saker_store::Client| {
            let mut pipeline = saker_store::Pipeline::new();
            pipeline.keyless(|cmd| {
                cmd.arg("XLEN").arg(EVENTS);
            });
            match replies(client, &pipeline)?.pop() {
                Some(saker_store::Reply::Int(count)) => Ok(count),
                other => Err(saker_store::StoreError::Protocol(format!(
                    "XLEN: {other:?}"
                ))),
            }
        };
        self.activity.run(count).await
    }
}

/// Starts the task that refreshes the popular items and checks the store. It ends when the state is dropped.
pub(crate) fn watch(state: &Arc<State>) {
    let state = Arc::downgrade(state);
    tokio::spawn(async move {
        while let Some(state) = state.upgrade() {
            let answers = state.ping().await;
            let answers_now = answers.is_ok();
            let before = state.store_answers.swap(answers_now, Ordering::Relaxed);
            match answers {
                Err(error) if before => tracing::warn!("the store does not answer: {error}"),
                Ok(()) if !before => tracing::warn!("the store answers again"),
                _ => {}
            }
            if answers_now {
                state.look_at_memory().await;
            }
            state.popular.of(Set::Global).await;
            drop(state);
            tokio::time::sleep(WATCH).await;
        }
    });
}

/// Share of its maxmemory that the server uses, from its answer to INFO memory; `None` if it has no limit.
fn share_used(info: &[u8]) -> Option<f64> {
    let info = std::str::from_utf8(info).ok()?;
    let number = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')?
                .trim()
                .parse::<f64>()
                .ok()
        })
    };
    let most = number("maxmemory").filter(|most| *most > 0.0)?;
    Some(number("used_memory")? / most)
}

/// Microseconds since 1970, UTC.
pub(crate) fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::share_used;

    #[test]
    fn the_share_of_memory_is_read() {
        let info =
            |most: &str| format!("# Memory\r\nused_memory:950\r\nused_memory_human:1K\r\n{most}");
        assert_eq!(
            share_used(info("maxmemory:1000\r\n").as_bytes()),
            Some(0.95)
        );
        assert_eq!(share_used(info("maxmemory:0\r\n").as_bytes()), None);
        assert_eq!(share_used(info("").as_bytes()), None);
        assert_eq!(share_used(b"\xff"), None);
    }
}
