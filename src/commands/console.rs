//! The progress of a training on the console: a bar within an epoch, a line for each epoch, on standard error.

use std::cell::RefCell;

use indicatif::{ProgressBar, ProgressStyle};
use saker_models::training_session::Display;
use saker_train::progress::{Epoch, Stage};

/// Shows a bar while a model is trained.
#[derive(Default)]
pub(super) struct Console {
    /// `None` while no model is trained.
    bar: RefCell<Option<ProgressBar>>,
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} batches {eta}") {
        bar.set_style(style);
    }
    bar
}

impl Display for Console {
    fn batch(&self, stage: Stage, epoch: usize, epochs: usize, done: usize, of: usize) {
        let mut shown = self.bar.borrow_mut();
        let bar = shown.get_or_insert_with(bar);
        if bar.length() != Some(of as u64) || done == 1 {
            bar.set_length(of as u64);
            bar.set_message(format!("{} epoch {epoch}/{epochs}", stage.name()));
        }
        bar.set_position(done as u64);
    }

    fn epoch(&self, stage: Stage, epoch: &Epoch, epochs: usize) {
        let metric = |name: &str| epoch.validation.get(name).copied().unwrap_or(f64::NAN);
        let name = stage.name();
        let (ndcg, recall) = (metric("ndcg@10"), metric("recall@100"));
        if epoch.epoch == 0 {
            return self.line(&format!(
                "  {name} before training: validation NDCG@10 {ndcg:.4}, recall@100 {recall:.4}"
            ));
        }
        self.line(&format!(
            "  {name} {:2}/{epochs}: loss {:.4}, validation NDCG@10 {ndcg:.4}, recall@100 {recall:.4} ({:.1} s, {:.0} rows/s){}",
            epoch.epoch,
            epoch.loss,
            epoch.seconds + epoch.validation_seconds,
            epoch.rows_per_second,
            if epoch.best { " best" } else { "" }
        ));
    }

    fn end(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}
