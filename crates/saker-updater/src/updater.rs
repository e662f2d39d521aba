//! The threads of one process.

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

use crate::catalogue::Catalogue;
use crate::change::Rules;
use crate::counters::Counters;
use crate::offline::Place;
use crate::worker::{Shared, Worker};
use crate::{housekeeping, offline};

/// What an updater is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the store is; one server, as a cluster's databases and slots do not allow what is done.
    pub store: saker_store::Settings,
    /// The consumer group.
    pub group: String,
    /// The name of this process in the group: another than that of any other, and the same after a restart.
    pub name: String,
    /// Threads that apply events.
    pub workers: usize,
    /// Entries that one of them takes at a time.
    pub batch: usize,
    /// After which time an event that another process took and did not apply is taken over.
    pub claim_after: Duration,
    /// The time in which a popularity count fades to half; `None`: it does not.
    pub half_life: Option<Duration>,
    /// The categories of the items.
    pub catalogue: Catalogue,
    /// The view that holds the top category alone of its features, if users have one.
    pub top_category: Option<saker_store::feast::FeatureView>,
    /// How seen items are kept.
    pub mode: Mode,
    /// The sizes of a bitmap of seen items that is not there yet.
    pub geometry: Geometry,
    /// The offline store; `None`: what was applied waits in its stream.
    pub offline: Option<Place>,
    /// How long [`Updater::stop`] lets the threads finish.
    pub drain: Duration,
    /// Where traces are recorded.
    pub traces: Traces,
}

impl Settings {
    /// The usual [`Settings::drain`].
    pub const DRAIN: Duration = Duration::from_secs(20);
}

/// How often threads that are to end are looked at.
const ENDING: Duration = Duration::from_millis(5);

/// A running updater.
#[derive(Debug)]
pub struct Updater {
    shared: Arc<Shared>,
    drain: Duration,
    threads: Vec<JoinHandle<()>>,
    /// Writes what they have applied, and so ends after them.
    offline: Option<JoinHandle<()>>,
}

impl Updater {
    /// Starts the threads.
    ///
    /// # Errors
    /// The store is a cluster, or does not answer: at the start a wrong address is more likely than a server that is down.
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
            popularity_sets: Mutex::new(settings.catalogue.sets()),
            rules: ArcSwap::from_pointee(Rules {
                catalogue: settings.catalogue,
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
                let worker = Worker {
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

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// What tells whether it is ready, also while it stops.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(self.shared.clone())
    }

    /// Replaces the items that events are applied by, for example when another release serves. Events that a worker takes from
    /// now on follow the new catalogue; those that it has in hand follow the old one to their end.
    pub fn replace_catalogue(&self, catalogue: Catalogue) {
        tracing::info!("a new catalogue of {} items is in use", catalogue.len());
        let sets = catalogue.sets();
        let known = self.shared.popularity_sets.lock();
        known.unwrap_or_else(PoisonError::into_inner).extend(sets);
        // Nothing but the catalogue ever changes, so two calls at once cannot lose each other's change of something else.
        let old = self.shared.rules.load_full();
        self.shared.rules.store(Arc::new(Rules {
            catalogue,
            top_category: old.top_category.clone(),
            seen: old.seen,
            prefixes: old.prefixes.clone(),
            geometry: old.geometry,
        }));
    }

    /// Stops: from now on it is not ready and takes no event. Every thread finishes what it has in hand, the workers first, then
    /// what writes what they have applied.
    ///
    /// Returns after [`Settings::drain`] at the latest, also if a store does not answer. Nothing is lost then: events that are not
    /// applied yet are taken up after the next start, or by another updater.
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
                "{left} threads of the updater did not finish within {} s; what they had in hand is taken up later",
                self.drain.as_secs_f64()
            );
        }
    }
}

/// Whether an updater is ready.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Shared>);

impl Readiness {
    /// Checks that the updater takes events. A store that hangs is noticed after ten seconds.
    ///
    /// # Errors
    /// Returns why it does not: it is stopping, or a worker has no connection to the store.
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
