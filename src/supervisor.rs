//! Keeping the processes of a served pipeline running: one that ends is said and started again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::layout::Layout;
use crate::progress::Step;
use crate::server::Started;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Waits before an ended process is started again.
const BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A process that ran so long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// Starts a process; `None` where somebody else's serves.
pub type Start<'s> = Box<dyn Fn() -> Result<Option<Started>> + 's>;

/// One process and how to start it.
struct Part<'s> {
    name: &'static str,
    start: Start<'s>,
    process: Option<Started>,
    since: Instant,
    backoff: Duration,
    again: Option<Instant>,
}

/// The processes, in the order in which they are started. When it goes, they are stopped.
pub struct Supervisor<'s> {
    layout: &'s Layout,
    parts: Vec<Part<'s>>,
}

impl<'s> Supervisor<'s> {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(layout: &'s Layout) -> Self {
        Self {
            layout,
            parts: Vec::new(),
        }
    }

    /// Starts a process.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, name: &'static str, start: Start<'s>) -> Result<()> {
        let process = start()?;
        self.parts.push(Part {
            name,
            start,
            process,
            since: Instant::now(),
            backoff: BACKOFF,
            again: None,
        });
        Ok(())
    }

    /// Whether the process of this name is ours.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.name == name && part.process.is_some())
    }

    /// Watches until `stop`, or until somebody stops a process on purpose; then stops all.
    pub fn watch(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) && self.look() {
            std::thread::sleep(LOOK);
        }
    }

    /// `false` when somebody has stopped a process on purpose.
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
                part.put_off();
            }
            if part.again.is_some_and(|again| again <= Instant::now()) {
                part.again = None;
                match (part.start)() {
                    Ok(process) => {
                        eprintln!("{} runs again", part.name);
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

    /// Stops the last first, so that what is under way still finds what it needs.
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
    fn put_off(&mut self) {
        self.again = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }
}
