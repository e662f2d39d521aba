//! A thread that does something again and again while a model is loaded.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::Error;

/// Tells the work of a [`Periodic`] whether its thread shall end. A new one is never set.
#[derive(Debug, Default)]
pub struct Stop {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Stop {
    /// Whether the thread shall end. Work that takes long asks this in between.
    pub fn is_set(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Sleeps until the time has passed or the thread shall end. Returns whether it shall end.
    fn sleep(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = self
            .wake
            .wait_timeout_while(stopped, time, |stopped| !*stopped);
        *woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A thread that calls a function at intervals. Dropping it wakes the thread and waits for its end.
///
/// A model keeps it beside what the thread renews. The library may be unmapped as soon as the model is dropped, so no thread may run then.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use triton_backend::Periodic;
///
/// # fn main() -> Result<(), triton_backend::Error> {
/// let count = Arc::new(AtomicU64::new(0));
/// let counted = Arc::clone(&count);
/// let every = Duration::from_millis(1);
/// let thread = Periodic::start("counter", every, move |_stop| {
///     counted.fetch_add(1, Ordering::Relaxed);
///     every
/// })?;
/// while count.load(Ordering::Relaxed) < 3 {
///     std::thread::yield_now();
/// }
/// drop(thread); // no call runs from here on
/// # Ok(())
/// # }
/// ```
pub struct Periodic {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Periodic {
    /// Starts a thread of this name, at most 15 bytes on Linux. It sleeps for `first`, calls `work`, sleeps for as long as `work` returned,
    /// and so on.
    ///
    /// A panic of `work` ends the thread, and nothing else.
    ///
    /// # Errors
    /// Returns an error if the system makes no thread.
    pub fn start(
        name: &str,
        first: Duration,
        mut work: impl FnMut(&Stop) -> Duration + Send + 'static,
    ) -> Result<Self, Error> {
        let stop = Arc::new(Stop::default());
        let seen = Arc::clone(&stop);
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let mut wait = first;
            while !seen.sleep(wait) {
                wait = work(&seen);
            }
        });
        let thread =
            thread.map_err(|error| Error::internal(format!("no thread '{name}': {error}")))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, its last result stays in use. No further action is needed.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Periodic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self
            .thread
            .as_ref()
            .and_then(|thread| thread.thread().name());
        formatter.debug_tuple("Periodic").field(&name).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_sleeping_thread_ends_at_once_without_a_call() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let hour = Duration::from_secs(3600);
        let start = Instant::now();
        let thread = Periodic::start("sleeper", hour, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            hour
        });
        drop(thread.unwrap());
        assert!(start.elapsed() < Duration::from_secs(60));
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn work_sees_that_it_shall_end_and_is_waited_for() {
        let (started, begun) = mpsc::channel();
        let ended = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ended);
        let thread = Periodic::start("worker", Duration::ZERO, move |stop| {
            started.send(()).unwrap();
            while !stop.is_set() {
                std::thread::yield_now();
            }
            counted.fetch_add(1, Ordering::Relaxed);
            Duration::ZERO
        });
        begun.recv().unwrap();
        drop(thread.unwrap());
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_panic_ends_the_thread_alone() {
        let (panics, ended) = mpsc::channel::<()>();
        let thread = Periodic::start("panics", Duration::ZERO, move |_| {
            let _sender = &panics;
            panic!("on purpose");
        });
        assert!(ended.recv().is_err());
        drop(thread.unwrap());
    }
}
