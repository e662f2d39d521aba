//! The updater: the threads of one process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use saker_contract::Database;
use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Mode, Prefixes};
use saker_store::{Connection, StoreError};
use saker_traces::Traces;

use crate::change::Rules;
use crate::consumer::{Consumer, Shared};
use crate::counters::Counters;
use crate::item_categories::ItemCategories;
use crate::offline::Place;
use crate::{housekeeping, offline};

/// Settings of an updater.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store. It must be one server: a cluster has one database, and its scripts cannot use keys of different slots.
    pub store: saker_store::Settings,
    /// The consumer group.
    pub group: String,
    /// The name of this process in the group. It must be unique, and the same after a restart.
    pub name: String,
    /// Threads that apply events.
    pub workers: usize,
    /// Entries that a thread takes at a time.
    pub batch: usize,
    /// Time after which an event is taken over that another process took and did not apply.
    pub claim_after: Duration,
    /// Half-life of popularity counts; `None` disables the decay.
    pub half_life: Option<Duration>,
    /// The categories of the items.
    pub items: ItemCategories,
    /// The view whose only feature is the top category, if users have one.
    pub top_category: Option<saker_store::feast::FeatureView>,
    /// The format of the seen items.
    pub mode: Mode,
    /// The sizes of a new bitmap of seen items.
    pub geometry: Geometry,
    /// The offline store; `None`: applied events stay in their stream.
    pub offline: Option<Place>,
    /// Time that [`Updater::stop`] gives the threads to finish.
    pub drain: Duration,
    /// Records traces.
    pub traces: Traces,
}

impl Settings {
    /// The default of [`Settings::drain`].
    pub const DRAIN: Duration = Duration::from_secs(20);
}

/// Interval at which a stop checks whether the threads have ended.
const ENDING: Duration = Duration::from_millis(5);

/// A running updater.
#[derive(Debug)]
pub struct Updater {
    shared: Arc<Shared>,
    drain: Duration,
    threads: Vec<JoinHandle<()>>,
    /// Writes the events that the consumers have applied, so it ends after them.
    offline: Option<JoinHandle<()>>,
}

impl Updater {
    /// Starts the threads.
    ///
    /// # Errors
    /// Returns an error if the store is a cluster or does not answer. At the start, a wrong address is more likely than a failed server.
    pub fn start(settings: Settings) -> Result<Self, StoreError> {
        if settings.store.is_cluster() {
            return Err(StoreError::Settings(format!(
                "store URL {}: the updater needs one server, since it changes databases 0, 1 and 3 together",
                settings.store.url()
            )));
        }
        let store = settings.store.with_database(Database::Activity)?;
        let store = store.with_bloom_probe();
        let connection = Connection::open(&store)?;
        let method = settings.mode.method(connection.has_bloom());
        let seen = method.ok_or_else(|| {
            StoreError::Settings("mode auto: the server was not asked for BF.*".into())
        })?;
        drop(connection);
        let workers = settings.workers.max(1);
        let shared = Arc::new(Shared {
            store,
            popularity_sets: Mutex::new(settings.items.sets()),
            rules: ArcSwap::from_pointee(Rules {
                items: settings.items,
                top_category: settings.top_category,
                seen,
                prefixes: Prefixes::default(),
                geometry: settings.geometry,
            }),
            group: settings.group,
            batch: settings.batch.max(1),
            claim_after: settings.claim_after,
            traces: settings.traces,
            counters: Arc::default(),
            stop: Arc::new(AtomicBool::new(false)),
            give_up: AtomicBool::new(false),
            workers_ended: AtomicBool::new(false),
            workers,
            connected: AtomicUsize::new(0),
        });
        let mut threads = Vec::new();
        for number in 0..workers {
            let (shared, name) = (shared.clone(), format!("{}-{number}", settings.name));
            threads.push(std::thread::spawn(move || {
                let worker = Consumer {
                    shared: &shared,
                    name,
                };
                worker.run();
            }));
        }
        let (keeper, half_life) = (shared.clone(), settings.half_life);
        threads.push(std::thread::spawn(move || {
            housekeeping::run(&keeper, half_life)
        }));
        let mut offline = None;
        if let Some(place) = settings.offline {
            let writer = shared.clone();
            offline = Some(std::thread::spawn(move || offline::run(&writer, &place)));
        }
        Ok(Self {
            shared,
            drain: settings.drain,
            threads,
            offline,
        })
    }

    /// The counts of the updater's work.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// The readiness check, which can be used during a stop, too.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(self.shared.clone())
    }

    /// Replaces the items' categories, for example after a switch of releases. Events that are taken from now on use the new categories;
    /// events that were taken before use the old ones.
    pub fn replace_items(&self, items: ItemCategories) {
        tracing::info!("a new catalogue of {} items is in use", items.len());
        let sets = items.sets();
        let known = self.shared.popularity_sets.lock();
        known.unwrap_or_else(PoisonError::into_inner).extend(sets);
        // Only the items ever change, so two concurrent calls cannot lose another change.
        let old = self.shared.rules.load_full();
        self.shared.rules.store(Arc::new(Rules {
            items,
            top_category: old.top_category.clone(),
            seen: old.seen,
            prefixes: old.prefixes.clone(),
            geometry: old.geometry,
        }));
    }

    /// Stops the updater: it is no longer ready and takes no more events. The consumers finish the events that they have taken, then the
    /// applied events are written to the offline store.
    ///
    /// Returns after [`Settings::drain`] at the latest, even if a store does not answer. No event is lost: after the next start, this updater
    /// or another one applies the remaining events.
    pub fn stop(self) {
        let until = Instant::now() + self.drain;
        let (shared, mut left) = (&self.shared, 0);
        let mut join = |thread: JoinHandle<()>| {
            while !thread.is_finished() {
                if Instant::now() >= until {
                    shared.give_up.store(true, Ordering::Relaxed);
                    left += 1;
                    return;
                }
                std::thread::sleep(ENDING);
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the updater has panicked");
            }
        };
        shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(&mut join);
        shared.workers_ended.store(true, Ordering::Release);
        self.offline.into_iter().for_each(&mut join);
        if left > 0 {
            tracing::warn!(
                "{left} threads of the updater did not finish within {} s; their events are applied later",
                self.drain.as_secs_f64()
            );
        }
    }
}

/// Whether an updater is ready.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Shared>);

impl Readiness {
    /// Checks that the updater takes events. It takes ten seconds to notice a store that hangs.
    ///
    /// # Errors
    /// Returns the reason if it does not: it is stopping, or a consumer has no connection to the store.
    pub fn check(&self) -> Result<(), String> {
        let shared = &self.0;
        if shared.stopped() {
            return Err("stopping".to_owned());
        }
        let connected = shared.connected.load(Ordering::Relaxed);
        match connected < shared.workers {
            true => Err(format!(
                "{} of {} workers have no connection to the store",
                shared.workers - connected,
                shared.workers
            )),
            false => Ok(()),
        }
    }
}
