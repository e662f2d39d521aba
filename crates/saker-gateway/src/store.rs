//! Valkey behind a few threads of its own.
//!
//! The connections are `saker-store`'s, whose calls end by a deadline whatever the server does, and which are made anew in the
//! background. A call waits for one of the threads no longer than for its answer, so a store that hangs holds up nobody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use saker_store::{Client, Link, Pipeline, Reply, Settings, StoreError};
use tokio::sync::oneshot;

/// How many calls may wait for a thread.
const WAITING: usize = 1024;
/// How long a thread waits for its first connection.
const FIRST: Duration = Duration::from_secs(1);
/// How long a call whose connection was lost waits for another.
const AGAIN: Duration = Duration::from_millis(30);
/// How often a thread without a connection looks for one.
const LOOK: Duration = Duration::from_millis(2);

type Job = Box<dyn FnOnce(&mut Client) + Send>;

/// Carries a pipeline out; the first reply that is an error is the error of all.
pub(crate) fn replies(client: &mut Client, pipeline: &Pipeline) -> Result<Vec<Reply>, StoreError> {
    let mut replies = Vec::with_capacity(pipeline.len());
    client.run(pipeline, &mut replies)?;
    replies.into_iter().collect()
}

/// Connections to one database.
pub(crate) struct Store {
    jobs: SyncSender<Job>,
    url: String,
    deadline: Duration,
    // Last, so that the threads, which end with the sender above, outlive no call.
    _link: Arc<Link>,
}

impl Store {
    /// Opens `threads` connections. In a cluster, which has one database, the number does not count.
    pub(crate) fn open(
        settings: &Settings,
        database: i64,
        deadline: Duration,
        threads: usize,
    ) -> Result<Self, StoreError> {
        let settings = match settings.is_cluster() {
            true => settings.clone(),
            false => settings.clone().with_database(database)?,
        };
        let settings = settings.with_deadline(deadline);
        let url = settings.url().to_string();
        let link = Arc::new(Link::open(settings)?);
        let (jobs, waiting) = sync_channel::<Job>(WAITING);
        let shared = Arc::new(Shared {
            jobs: Mutex::new(waiting),
            connected: AtomicUsize::new(0),
        });
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            let mut client = link.client();
            std::thread::Builder::new()
                .name("gateway-store".into())
                .spawn(move || work(&mut client, &shared))
                .map_err(|error| {
                    StoreError::Settings(format!("no thread for the store's calls: {error}"))
                })?;
        }
        Ok(Self {
            jobs,
            url,
            deadline,
            _link: link,
        })
    }

    /// Has a thread carry out `call`, which may make several round trips, and must be such as may be carried out twice.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl Fn(&mut Client) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |client| {
            // Whoever waited may have given up.
            if sender.is_closed() {
                return;
            }
            let mut outcome = call(client);
            // A thread learns by its next call that a restarted server has cut its connection.
            if let Err(StoreError::Io(_) | StoreError::Disconnected { .. }) = &outcome
                && client.wait(AGAIN)
            {
                outcome = call(client);
            }
            let _ = sender.send(outcome);
        });
        self.jobs.try_send(job).map_err(|error| {
            self.disconnected(match error {
                TrySendError::Full(_) => "too many calls wait for it",
                TrySendError::Disconnected(_) => "its threads have ended",
            })
        })?;
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(self.disconnected("the call was given up")),
            Err(_) => Err(StoreError::Timeout(self.deadline)),
        }
    }

    fn disconnected(&self, reason: &str) -> StoreError {
        StoreError::Disconnected {
            url: self.url.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// What the threads of one database share.
struct Shared {
    jobs: Mutex<Receiver<Job>>,
    /// How many of them have a connection.
    connected: AtomicUsize,
}

fn work(client: &mut Client, shared: &Shared) {
    client.wait(FIRST);
    let mut counted = false;
    loop {
        let connected = client.wait(Duration::ZERO);
        match (counted, connected) {
            (false, true) => drop(shared.connected.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(shared.connected.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        counted = connected;
        // After a failure the connections come back one by one: calls are left to those who have theirs. With none at all a
        // call is taken, so that it is answered at once.
        if !connected && shared.connected.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(LOOK);
            continue;
        }
        let jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match connected {
            true => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => jobs.recv_timeout(LOOK),
        };
        drop(jobs);
        match job {
            Ok(job) => job(client),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if counted {
        shared.connected.fetch_sub(1, Ordering::Relaxed);
    }
}
