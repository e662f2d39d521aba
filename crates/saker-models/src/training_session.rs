//! The console side of a training: a progress bar, checkpoints, a line per epoch, and a clean end on Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_train::learning::{Checkpoints, Session};
use saker_train::progress::{Epoch, Progress, Stage};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::training_run::TrainingRun;

/// Progress and checkpoints of one command's training.
pub struct TrainingSession {
    layout: Layout,
    /// The command that resumes a stopped run.
    command: String,
    every: Duration,
    stop: Arc<AtomicBool>,
    /// Whether no model is being trained. A signal then ends the command at once, since no training checks `stop`.
    idle: Arc<AtomicBool>,
}

impl TrainingSession {
    /// Writes a checkpoint at this interval, and when Ctrl-C or SIGTERM ends the run; `command` then resumes it. A second signal, or a
    /// signal while no model is trained, ends the command at once.
    ///
    /// # Errors
    /// Returns an error if signals cannot be handled.
    pub fn new(layout: &Layout, command: String, every: Duration) -> Result<Self> {
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
        let mut bar = Bar::new(epochs, run, self.stop.clone());
        self.idle.store(false, Ordering::Relaxed);
        let history = train(&mut Session {
            progress: &mut bar,
            checkpoints: Some(Checkpoints {
                folder: self.layout.training_run(),
                every: self.every,
                fingerprint: fingerprint.to_owned(),
            }),
        });
        self.idle.store(true, Ordering::Relaxed);
        bar.bar.finish_and_clear();
        let history = history.map_err(|error| match error {
            saker_train::Error::Stopped => {
                anyhow!("stopped; `{}` resumes the training", self.command)
            }
            error => error.into(),
        })?;
        if let Some(error) = bar.failed {
            return Err(error);
        }
        bar.run.replace(stage, &history)?;
        let seconds: f64 = history
            .iter()
            .map(|epoch| epoch.seconds + epoch.validation_seconds)
            .sum();
        let name = stage.name();
        match history.iter().rfind(|epoch| epoch.best) {
            Some(best) => eprintln!(
                "✓ {name}: epoch {} of {} kept ({seconds:.1} s)",
                best.epoch,
                history.len()
            ),
            None => eprintln!("✓ {name}: no epoch was better, kept as it was ({seconds:.1} s)"),
        }
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

/// Prints a line per epoch, and shows a bar within it.
struct Bar {
    bar: ProgressBar,
    epochs: usize,
    run: TrainingRun,
    stop: Arc<AtomicBool>,
    /// The error of writing an epoch's record.
    failed: Option<anyhow::Error>,
}

impl Bar {
    fn new(epochs: usize, run: TrainingRun, stop: Arc<AtomicBool>) -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} batches {eta}")
        {
            bar.set_style(style);
        }
        Self {
            bar,
            epochs,
            run,
            stop,
            failed: None,
        }
    }
}

impl Progress for Bar {
    fn batch(&mut self, stage: Stage, epoch: usize, done: usize, of: usize) -> bool {
        if self.bar.length() != Some(of as u64) || done == 1 {
            self.bar.set_length(of as u64);
            self.bar
                .set_message(format!("{} epoch {epoch}/{}", stage.name(), self.epochs));
        }
        self.bar.set_position(done as u64);
        !self.stop.load(Ordering::Relaxed)
    }

    fn epoch(&mut self, stage: Stage, epoch: &Epoch) {
        let metric = |name: &str| epoch.validation.get(name).copied().unwrap_or(f64::NAN);
        if epoch.epoch == 0 {
            let line = format!(
                "  {} before training: validation NDCG@10 {:.4}, recall@100 {:.4}",
                stage.name(),
                metric("ndcg@10"),
                metric("recall@100")
            );
            return self.bar.suspend(|| eprintln!("{line}"));
        }
        let line = format!(
            "  {} {:2}/{}: loss {:.4}, validation NDCG@10 {:.4}, recall@100 {:.4} ({:.1} s, {:.0} rows/s){}",
            stage.name(),
            epoch.epoch,
            self.epochs,
            epoch.loss,
            metric("ndcg@10"),
            metric("recall@100"),
            epoch.seconds + epoch.validation_seconds,
            epoch.rows_per_second,
            if epoch.best { " best" } else { "" }
        );
        self.bar.suspend(|| eprintln!("{line}"));
        if let Err(error) = self.run.add(stage, epoch) {
            self.failed = Some(error);
        }
    }
}
