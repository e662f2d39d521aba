//! Keeps the processes of a served pipeline running. If a process exits or hangs, the supervisor logs it and restarts it.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use saker_serving::layout::Layout;
use saker_serving::progress::Step;

use crate::server::Started;
use crate::watchdog::Watchdog;

/// Interval between two checks.
const LOOK: Duration = Duration::from_millis(100);
/// Pause before an ended process is restarted.
const BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Number of attempts for a lock before it counts as taken.
const LOCK_ATTEMPTS: u32 = 10;
/// A process that ran for this long counts as recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// Starts a process; `None` if another program's process serves.
pub type Start<'s> = Box<dyn Fn() -> Result<Option<Started>> + 's>;
/// Starts a watchdog for a process that has just started.
pub type Watch<'s> = Box<dyn Fn() -> Watchdog + 's>;

/// A lock that one process per pipeline can hold, until it drops the lock or ends.
pub struct Lock(#[expect(dead_code, reason = "closing the file is what unlocks")] File);

impl Lock {
    /// Takes the lock `run/<name>.lock`; `None` if another process holds it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn take(layout: &Layout, name: &str) -> Result<Option<Self>> {
        for _ in 0..LOCK_ATTEMPTS {
            if let Some(lock) = Self::attempt(layout, name)? {
                return Ok(Some(lock));
            }
            // The holder may be a process that only checks the lock.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    /// Whether another process holds the lock.
    #[must_use]
    pub fn is_taken(layout: &Layout, name: &str) -> bool {
        matches!(Self::attempt(layout, name), Ok(None))
    }

    fn attempt(layout: &Layout, name: &str) -> Result<Option<Self>> {
        let path = layout.run().join(format!("{name}.lock"));
        let file = fs::create_dir_all(layout.run())
            .and_then(|()| File::create(&path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(locked.is_ok().then_some(Self(file)))
    }
}

/// One process and how to start it.
struct Part<'s> {
    name: &'static str,
    start: Start<'s>,
    watch: Option<Watch<'s>>,
    process: Option<Started>,
    watchdog: Option<Watchdog>,
    since: Instant,
    backoff: Duration,
    again: Option<Instant>,
}

/// The processes, in the order of their start. Dropping the supervisor stops them.
pub struct Supervisor<'s> {
    layout: &'s Layout,
    parts: Vec<Part<'s>>,
}

impl<'s> Supervisor<'s> {
    /// A supervisor without processes.
    #[must_use]
    pub fn new(layout: &'s Layout) -> Self {
        Self {
            layout,
            parts: Vec::new(),
        }
    }

    /// Starts a process, or takes over the one that an earlier supervisor has left running.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn start(
        &mut self,
        name: &'static str,
        start: Start<'s>,
        watch: Option<Watch<'s>>,
    ) -> Result<()> {
        let process = match Started::adopt(self.layout, name) {
            Some(process) => Some(process),
            None => start()?,
        };
        let watchdog = watch.as_ref().filter(|_| process.is_some());
        self.parts.push(Part {
            name,
            start,
            watchdog: watchdog.map(|watch| watch()),
            watch,
            process,
            since: Instant::now(),
            backoff: BACKOFF,
            again: None,
        });
        Ok(())
    }

    /// Whether this supervisor runs the process of this name.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.name == name && part.process.is_some())
    }

    /// Watches until `stop`, or until a process is stopped on purpose; then stops all processes.
    pub fn watch(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) && self.look() {
            std::thread::sleep(LOOK);
        }
    }

    /// Checks all processes; returns `false` if one was stopped on purpose.
    fn look(&mut self) -> bool {
        for part in &mut self.parts {
            if let Some(process) = &mut part.process
                && process.has_ended()
            {
                if process.was_stopped(self.layout) {
                    return false;
                }
                if part.since.elapsed() > RECOVERED {
                    part.backoff = BACKOFF;
                }
                eprintln!(
                    "{} has ended and is started again in {:.1} s; the end of its log:\n{}",
                    part.name,
                    part.backoff.as_secs_f32(),
                    process.complaints()
                );
                part.process = None;
                part.watchdog = None;
                part.put_off();
            }
            part.replace_if_hung();
            if part.again.is_some_and(|again| again <= Instant::now()) {
                part.again = None;
                match (part.start)() {
                    Ok(process) => {
                        eprintln!("{} runs again", part.name);
                        let watch = part.watch.as_ref().filter(|_| process.is_some());
                        part.watchdog = watch.map(|watch| watch());
                        part.process = process;
                        part.since = Instant::now();
                    }
                    Err(error) => {
                        eprintln!("{error:#}");
                        part.put_off();
                    }
                }
            }
        }
        true
    }

    /// Stops the processes in reverse order, so that requests in progress still find the others.
    fn stop(&mut self) {
        for part in self.parts.iter_mut().rev() {
            let Some(process) = &mut part.process else {
                continue;
            };
            let step = Step::start(format!("stop {}", part.name));
            match process.stop(self.layout) {
                Ok(()) => step.done("stopped"),
                Err(error) => tracing::error!("{error:#}"),
            }
            part.process = None;
        }
    }
}

impl Drop for Supervisor<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Part<'_> {
    /// Kills a process that its watchdog reports as hung; the supervisor restarts it at once.
    fn replace_if_hung(&mut self) {
        let complaint = self.watchdog.as_ref().and_then(Watchdog::complaint);
        let (Some(complaint), Some(process)) = (complaint, &mut self.process) else {
            return;
        };
        eprintln!(
            "{} hangs, restarting it: {complaint}; the end of its log:\n{}",
            self.name,
            process.complaints()
        );
        if let Err(error) = process.kill() {
            eprintln!("{} cannot be killed: {error:#}", self.name);
            return;
        }
        self.process = None;
        self.watchdog = None;
        self.again = Some(Instant::now());
    }

    fn put_off(&mut self) {
        self.again = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }
}
