//! Connections that a background thread makes and keeps, so that the request path never waits for one.
//!
//! A [`Link`] owns the thread. Each model instance has a [`Client`] with a connection of its own, so calls share no lock.
//! When a call fails, its connection is dropped (a late answer must never be read as the answer to a later call), the
//! thread is told, and calls fail at once until the new connection is there. A spare connection, looked at every second, takes over when
//! a server that restarted or closes idle connections has cut one unnoticed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::connection::CommandResult;
use crate::{Connection, Pipeline, Settings, StoreError};

/// The first wait after a failed attempt; doubled up to [`LONGEST_WAIT`], each drawn from its upper half.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How often the spare connection must give a sign of life.
const PING_EVERY: Duration = Duration::from_secs(1);

/// A store and the thread that keeps connections to it. Dropping it stops and joins the thread.
pub struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    settings: Settings,
    state: Mutex<State>,
    wake: Condvar,
    stop: AtomicBool,
    /// Calls failed since the last one that succeeded, over all clients.
    failures: AtomicU32,
}

#[derive(Default)]
struct State {
    /// Who waits for a connection, longest first.
    waiting: VecDeque<Arc<Place>>,
    spare: Option<Connection>,
    last_error: Option<StoreError>,
}

/// Where the thread leaves a client's connection.
#[derive(Default)]
struct Place {
    connection: Mutex<Option<Connection>>,
    filled: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is replaced as a whole, so it is sound after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts the thread. Whether the store is there shows later: a store that is down is no error.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            settings,
            state: Mutex::default(),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("saker-store".into())
            .spawn(move || worker.keep_connected())
            .map_err(|error| {
                StoreError::Settings(format!("no thread for the store's connections: {error}"))
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// A client with a connection of its own, which the thread makes now.
    #[must_use]
    pub fn client(&self) -> Client {
        let place = Arc::new(Place::default());
        let client = Client {
            shared: Arc::clone(&self.shared),
            place,
            connection: None,
            waiting: false,
            begun: None,
        };
        let mut client = client;
        client.ask();
        client
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        {
            // Under the lock, so that the thread cannot miss it between its look and its sleep.
            let _state = lock(&self.shared.state);
            self.shared.stop.store(true, Ordering::Release);
        }
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has nothing to say here: its clients only ever see "not connected".
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn keep_connected(&self) {
        let mut attempts = 0;
        let mut next_ping = Instant::now() + PING_EVERY;
        loop {
            let mut state = lock(&self.state);
            loop {
                if self.stopped() {
                    return;
                }
                let wait = next_ping.saturating_duration_since(Instant::now());
                if !state.waiting.is_empty() || state.spare.is_none() || wait.is_zero() {
                    break;
                }
                state = self
                    .wake
                    .wait_timeout(state, wait)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            // Not handed to whoever waits: it may have died with theirs.
            let spare = if next_ping <= Instant::now() {
                state.spare.take()
            } else {
                None
            };
            let wanted = !state.waiting.is_empty() || (spare.is_none() && state.spare.is_none());
            drop(state);

            if let Some(spare) = spare {
                self.check(spare);
                next_ping = Instant::now() + PING_EVERY;
                continue;
            }
            if wanted {
                // A store that takes connections but answers no call must not be flooded with them either.
                let failures = attempts + self.failures.load(Ordering::Relaxed).saturating_sub(1);
                if failures > 0 && self.sleep(backoff(failures)) {
                    return;
                }
                if self.connect() {
                    attempts = 0
                } else {
                    attempts += 1
                }
            } else {
                next_ping = Instant::now() + PING_EVERY;
            }
        }
    }

    /// Keeps the spare if it lives.
    fn check(&self, mut spare: Connection) {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let alive = spare.ping(deadline).is_ok() && spare.is_complete();
        if alive {
            lock(&self.state).spare = Some(spare);
        }
    }

    /// Makes one connection for whoever waits longest, or as the spare. Says whether it is a whole one.
    fn connect(&self) -> bool {
        match Connection::open(&self.settings) {
            Ok(connection) => {
                let complete = connection.is_complete();
                let mut state = lock(&self.state);
                state.last_error = None;
                match state.waiting.pop_front() {
                    Some(place) => {
                        drop(state);
                        *lock(&place.connection) = Some(connection);
                        place.filled.store(true, Ordering::Release);
                    }
                    None => state.spare = Some(connection),
                }
                complete
            }
            Err(error) => {
                lock(&self.state).last_error = Some(error);
                false
            }
        }
    }

    /// Sleeps unless told to stop; says whether it was.
    fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = lock(&self.state);
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if self.stopped() || rest.is_zero() {
                return self.stopped();
            }
            state = self
                .wake
                .wait_timeout(state, rest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Exponential, capped, and drawn from the upper half, so that many servers do not come back at one instant.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_WAIT
        .saturating_mul(1 << (failures - 1).min(10))
        .min(LONGEST_WAIT);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

/// One user of a link: a model instance, with its own connection.
pub struct Client {
    shared: Arc<Shared>,
    place: Arc<Place>,
    connection: Option<Connection>,
    /// Whether the thread has been asked and has not delivered.
    waiting: bool,
    /// How the sending of the commands went whose replies are still to be taken.
    begun: Option<Result<(), StoreError>>,
}

impl Client {
    /// Sends all commands at once and gives their replies by the settings' deadline; see
    /// [`Connection::run_until`].
    ///
    /// # Errors
    /// At once when there is no connection; else as [`Connection::run_until`]. The next call may be made right away.
    pub fn run(
        &mut self,
        pipeline: &Pipeline,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.shared.settings.deadline;
        self.run_until(pipeline, deadline, replies)
    }

    /// [`Client::run`] by another deadline. The commands must be such as may be carried out twice: they are sent again
    /// when the connection turns out to have been cut.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub fn run_until(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        self.start(pipeline, deadline);
        self.finish(pipeline, deadline, replies)
    }

    /// The first half of [`Client::run_until`]: sends the commands, so that the store works on them while the caller does
    /// something else. Whatever fails is said by [`Client::finish`].
    pub fn start(&mut self, pipeline: &Pipeline, deadline: Instant) {
        if self.begun.take().is_some() {
            // Nobody took the replies of the commands before: they would be read as those of these.
            self.connection = None;
            self.ask();
        }
        self.collect();
        let connection = self.connection.as_mut();
        self.begun = connection.map(|connection| connection.start(pipeline, deadline));
    }

    /// The second half of [`Client::run_until`]: the replies to the commands that were [started](Client::start).
    ///
    /// # Errors
    /// As [`Client::run_until`].
    pub fn finish(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        replies.clear();
        let mut outcome = match (self.begun.take(), &mut self.connection) {
            (Some(Ok(())), Some(connection)) => connection.finish(pipeline, deadline, replies),
            (Some(Err(error)), _) => Err(error),
            _ => return Err(self.disconnected()),
        };
        if outcome.as_ref().is_err_and(StoreError::is_disconnect)
            && let Some(mut spare) = self.take_spare()
        {
            outcome = spare.run_until(pipeline, deadline, replies);
            self.connection = Some(spare);
        }
        match outcome {
            Ok(()) => {
                if self.shared.failures.load(Ordering::Relaxed) != 0 {
                    self.shared.failures.store(0, Ordering::Relaxed);
                }
                if self
                    .connection
                    .as_ref()
                    .is_some_and(|connection| !connection.is_complete())
                {
                    self.ask();
                }
                Ok(())
            }
            Err(error) => {
                replies.clear();
                self.connection = None;
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                self.ask();
                Err(error)
            }
        }
    }

    /// The store's settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Waits for the first connection, for at most `time`; says whether it is there. For loads, not for requests.
    pub fn wait(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            self.collect();
            if self.connection.is_some() || Instant::now() >= until {
                return self.connection.is_some();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the server knows the `BF.*` commands; `None` when it was not asked or there is no connection.
    pub fn has_bloom(&mut self) -> Option<bool> {
        self.collect();
        self.connection.as_ref().and_then(Connection::has_bloom)
    }

    /// The error of a call made without a connection: what the thread met last.
    #[must_use]
    pub fn disconnected(&self) -> StoreError {
        let reason = match &lock(&self.shared.state).last_error {
            Some(error) => error.to_string(),
            None => "connecting".into(),
        };
        StoreError::Disconnected {
            url: self.shared.settings.url.to_string(),
            reason,
        }
    }

    /// Takes what the thread has left for us, in place of what we have.
    fn collect(&mut self) {
        if self.begun.is_none() && self.waiting && self.place.filled.swap(false, Ordering::AcqRel) {
            self.connection = lock(&self.place.connection).take();
            self.waiting = false;
        }
    }

    fn take_spare(&self) -> Option<Connection> {
        let spare = lock(&self.shared.state).spare.take();
        // The thread makes another.
        self.shared.wake.notify_all();
        spare
    }

    fn ask(&mut self) {
        if self.waiting {
            return;
        }
        self.waiting = true;
        lock(&self.shared.state)
            .waiting
            .push_back(Arc::clone(&self.place));
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_is_capped() {
        for failures in 1..100 {
            let wait = backoff(failures);
            assert!(
                wait >= FIRST_WAIT / 2 && wait <= LONGEST_WAIT,
                "{failures}: {wait:?}"
            );
        }
        assert!(backoff(1) <= FIRST_WAIT);
        assert!(backoff(50) >= LONGEST_WAIT / 2);
    }
}
