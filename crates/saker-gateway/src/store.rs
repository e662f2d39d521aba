//! Calls to Valkey on a few dedicated threads.
//!
//! The connections belong to `saker-store`: each call ends at its deadline, and lost connections are restored in the background. A call
//! waits no longer for a free thread than for its answer, so a store that does not answer blocks no request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use saker_contract::Database;
use saker_store::{Client, Link, Pipeline, Reply, Settings, StoreError};
use tokio::sync::oneshot;

/// Maximum number of calls that wait for a thread.
const WAITING: usize = 1024;
/// Maximum wait of a thread for its first connection.
const FIRST: Duration = Duration::from_secs(1);
/// Maximum wait of a call for a new connection after it lost its own.
const AGAIN: Duration = Duration::from_millis(30);
/// Interval at which a thread without a connection checks for one.
const LOOK: Duration = Duration::from_millis(2);

type Job = Box<dyn FnOnce(&mut Client) + Send>;

/// Executes a pipeline and returns its replies. The first error reply is returned as the error.
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
    // Declared last: the threads end when the sender above is dropped, so the link outlives every call.
    _link: Arc<Link>,
}

impl Store {
    /// Opens `threads` connections. A cluster has one database, so the database number is ignored there.
    pub(crate) fn open(
        settings: &Settings,
        database: Database,
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

    /// Executes `call` on a thread. `call` may make several round trips. It must be idempotent, because it may be executed twice.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl Fn(&mut Client) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |client| {
            // The caller may have given up in the meantime.
            if sender.is_closed() {
                return;
            }
            let mut outcome = call(client);
            // After a restart of the server, a thread notices the lost connection only at its next call.
            if let Err(StoreError::Io(_) | StoreError::Disconnected { .. }) = &outcome
                && client.wait(AGAIN)
            {
                outcome = call(client);
            }
            let _ = sender.send(outcome);
        });
        self.jobs.try_send(job).map_err(|error| {
            self.disconnected(match error {
                TrySendError::Full(_) => "too many calls are waiting",
                TrySendError::Disconnected(_) => "its threads have ended",
            })
        })?;
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(self.disconnected("the call was dropped")),
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

/// State shared by the threads of one database.
struct Shared {
    jobs: Mutex<Receiver<Job>>,
    /// Number of threads that have a connection.
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
        // After a failure the connections return one by one. A thread without a connection leaves calls to the others. If no thread has
        // one, it takes the call and answers with an error at once.
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
