//! Connections that a background thread makes, so that the request path never waits for one.
//!
//! A [`Link`] owns the thread. Each model instance has a [`Client`] with its own connection, so calls share no lock. When a call fails, its
//! connection is dropped, because a late answer must never be read as the answer to a later call. The thread is notified, and calls fail at
//! once until the new connection exists. The thread checks a spare connection every second. The spare takes over if a server restarts or
//! closes an idle connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::node::CommandResult;
use crate::{Connection, Pipeline, Settings, StoreError};

/// The first wait after a failed attempt. It doubles up to [`LONGEST_WAIT`]; each wait is drawn from its upper half.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Interval at which the spare connection is checked with PING.
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
    /// Number of failed calls since the last success, over all clients.
    failures: AtomicU32,
}

#[derive(Default)]
struct State {
    /// Clients that wait for a connection, the longest waiting first.
    waiting: VecDeque<Arc<Place>>,
    spare: Option<Connection>,
    last_error: Option<StoreError>,
}

/// The place where the thread puts a client's connection.
#[derive(Default)]
struct Place {
    connection: Mutex<Option<Connection>>,
    filled: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks are replaced as a whole, so they are valid after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts the thread. The store may be down: that is not an error, and clients get connections when it answers.
    ///
    /// # Errors
    /// Returns an error if the system cannot start a thread.
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

    /// A client with its own connection, which the thread starts to make.
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

    /// The settings with which the link was opened.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        {
            // Notified under the lock, so that the thread cannot miss it between its check and its sleep.
            let _state = lock(&self.shared.state);
            self.shared.stop.store(true, Ordering::Release);
        }
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is ignored here: its clients only see "not connected".
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
            // The spare is not given to a waiting client: it may have died together with the client's connection.
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
                // A store that accepts connections but answers no call must not be flooded with connections.
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

    /// Keeps the spare connection if it answers.
    fn check(&self, mut spare: Connection) {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let alive = spare.ping(deadline).is_ok() && spare.is_complete();
        if alive {
            lock(&self.state).spare = Some(spare);
        }
    }

    /// Makes a connection for the client that waits longest, or a spare one. Returns whether the connection is complete.
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

    /// Sleeps until the time has passed or the link stops; returns whether it stops.
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

/// Exponential backoff with a maximum, drawn from the upper half, so that many servers do not reconnect at the same time.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_WAIT
        .saturating_mul(1 << (failures - 1).min(10))
        .min(LONGEST_WAIT);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

/// A user of a link: a model instance, with its own connection.
pub struct Client {
    shared: Arc<Shared>,
    place: Arc<Place>,
    connection: Option<Connection>,
    /// Whether the client has requested a connection that the thread has not delivered.
    waiting: bool,
    /// The result of sending the commands whose replies have not been read.
    begun: Option<Result<(), StoreError>>,
}

impl Client {
    /// Sends all commands at once and returns their replies by the settings' deadline; see [`Connection::run_until`].
    ///
    /// # Errors
    /// Returns an error at once if there is no connection; otherwise as [`Connection::run_until`]. The client can be used again at once.
    pub fn run(
        &mut self,
        pipeline: &Pipeline,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.shared.settings.deadline;
        self.run_until(pipeline, deadline, replies)
    }

    /// Like [`Client::run`], with another deadline. The commands must be idempotent: they are sent again if the connection turns out to be
    /// cut.
    ///
    /// # Errors
    /// Returns an error as [`Client::run`] does.
    pub fn run_until(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        self.start(pipeline, deadline);
        self.finish(pipeline, deadline, replies)
    }

    /// The first half of [`Client::run_until`]: sends the commands, so that the store works while the caller does something else.
    /// [`Client::finish`] reports errors.
    pub fn start(&mut self, pipeline: &Pipeline, deadline: Instant) {
        if self.begun.take().is_some() {
            // The replies to earlier commands were not read; they would be read as replies to these.
            self.connection = None;
            self.ask();
        }
        self.collect();
        let connection = self.connection.as_mut();
        self.begun = connection.map(|connection| connection.start(pipeline, deadline));
    }

    /// The second half of [`Client::run_until`]: returns the replies to the commands that were [started](Client::start).
    ///
    /// # Errors
    /// Returns an error as [`Client::run_until`] does.
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

    /// Waits for the first connection, for at most `time`; returns whether it exists. For loads, not for requests.
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

    /// Whether the server has the `BF.*` commands; `None` if it was not asked or if there is no connection.
    pub fn has_bloom(&mut self) -> Option<bool> {
        self.collect();
        self.connection.as_ref().and_then(Connection::has_bloom)
    }

    /// The error of a call without a connection: the thread's latest error.
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

    /// Takes the connection that the thread has delivered, in place of the current one.
    fn collect(&mut self) {
        if self.begun.is_none() && self.waiting && self.place.filled.swap(false, Ordering::AcqRel) {
            self.connection = lock(&self.place.connection).take();
            self.waiting = false;
        }
    }

    fn take_spare(&self) -> Option<Connection> {
        let spare = lock(&self.shared.state).spare.take();
        // The thread makes another spare connection.
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
