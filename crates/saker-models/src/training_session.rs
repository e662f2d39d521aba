//! A training with checkpoints, a record of its epochs, and a clean end on Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_train::learning::{Checkpoints, Session};
use saker_train::progress::{Epoch, Progress, Stage};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::training_run::TrainingRun;

/// Shows a person how a training goes.
pub trait Display {
    /// A batch was learned: `done` of `of` batches of `epoch`, of at most `epochs` epochs.
    fn batch(&self, stage: Stage, epoch: usize, epochs: usize, done: usize, of: usize);

    /// An epoch ended, of at most `epochs`.
    fn epoch(&self, stage: Stage, epoch: &Epoch, epochs: usize);

    /// The training of a model ended, or failed.
    fn end(&self);

    /// A line about the work between the epochs.
    fn line(&self, text: &str);
}

/// Progress and checkpoints of one command's training.
pub struct TrainingSession<'a> {
    layout: Layout,
    display: &'a dyn Display,
    /// The command that resumes a stopped run.
    command: String,
    every: Duration,
    stop: Arc<AtomicBool>,
    /// Whether no model is being trained. A signal then ends the command at once, since no training checks `stop`.
    idle: Arc<AtomicBool>,
}

impl<'a> TrainingSession<'a> {
    /// Writes a checkpoint at this interval, and when Ctrl-C or SIGTERM ends the run; `command` then resumes it. A second signal, or a
    /// signal while no model is trained, ends the command at once.
    ///
    /// # Errors
    /// Returns an error if signals cannot be handled.
    pub fn new(
        layout: &Layout,
        command: String,
        every: Duration,
        display: &'a dyn Display,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let idle = Arc::new(AtomicBool::new(true));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal during a training finds neither flag set.
            let status = 128 + signal;
            let handled = register_conditional_shutdown(signal, status, idle.clone())
                .and_then(|_| register_conditional_shutdown(signal, status, stop.clone()))
                .and_then(|_| register(signal, stop.clone()));
            handled.context("cannot handle signals")?;
        }
        Ok(Self {
            layout: layout.clone(),
            display,
            command,
            every,
            stop,
            idle,
        })
    }

    /// Calls `train` for at most `epochs` epochs, and returns its epochs.
    ///
    /// # Errors
    /// Returns the errors of `train`, including a stop, and an error if the run folder cannot be written.
    pub fn run(
        &self,
        stage: Stage,
        epochs: usize,
        fingerprint: &str,
        train: impl FnOnce(&mut Session<'_>) -> Result<Vec<Epoch>, saker_train::Error>,
    ) -> Result<Vec<Epoch>> {
        let run = TrainingRun::open(&self.layout)?;
        let mut watched = Watched {
            display: self.display,
            epochs,
            run,
            stop: &self.stop,
            failed: None,
        };
        self.idle.store(false, Ordering::Relaxed);
        let history = train(&mut Session {
            progress: &mut watched,
            checkpoints: Some(Checkpoints {
                folder: self.layout.training_run(),
                every: self.every,
                fingerprint: fingerprint.to_owned(),
            }),
        });
        self.idle.store(true, Ordering::Relaxed);
        self.display.end();
        let history = history.map_err(|error| match error {
            saker_train::Error::Stopped => {
                anyhow!("stopped; `{}` resumes the training", self.command)
            }
            error => error.into(),
        })?;
        if let Some(error) = watched.failed {
            return Err(error);
        }
        watched.run.replace(stage, &history)?;
        let seconds: f64 = history
            .iter()
            .map(|epoch| epoch.seconds + epoch.validation_seconds)
            .sum();
        let name = stage.name();
        let kept = match history.iter().rfind(|epoch| epoch.best) {
            Some(best) => format!("epoch {} of {} kept", best.epoch, history.len()),
            None => "no epoch was better, kept as it was".to_owned(),
        };
        self.display
            .line(&format!("✓ {name}: {kept} ({seconds:.1} s)"));
        Ok(history)
    }

    /// Removes the state of a model's run.
    ///
    /// # Errors
    /// Returns an error if a file cannot be removed.
    pub fn forget(&self, stage: Stage) -> Result<()> {
        for kind in ["", "-best"] {
            let file = format!("{}{kind}.safetensors", stage.name());
            files::remove(&self.layout.training_run().join(file))?;
        }
        Ok(())
    }
}

/// Records each epoch, stops when asked to, and passes everything on to the display.
struct Watched<'a> {
    display: &'a dyn Display,
    epochs: usize,
    run: TrainingRun,
    stop: &'a AtomicBool,
    /// The error of writing an epoch's record.
    failed: Option<anyhow::Error>,
}

impl Progress for Watched<'_> {
    fn batch(&mut self, stage: Stage, epoch: usize, done: usize, of: usize) -> bool {
        self.display.batch(stage, epoch, self.epochs, done, of);
        !self.stop.load(Ordering::Relaxed)
    }

    fn epoch(&mut self, stage: Stage, epoch: &Epoch) {
        self.display.epoch(stage, epoch, self.epochs);
        // The models before a fine-tuning are no epoch of the record.
        if epoch.epoch > 0
            && let Err(error) = self.run.add(stage, epoch)
        {
            self.failed = Some(error);
        }
    }
}
