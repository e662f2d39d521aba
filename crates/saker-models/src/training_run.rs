//! The record of a training run in `models/run/`, for plots and for the report of `saker evaluate`.

use std::fs;

use anyhow::{Context, Result};
use saker_pipeline::Pipeline;
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_train::data::Dataset;
use saker_train::progress::{Epoch, Stage};
use serde::{Deserialize, Serialize};

/// A line of `epochs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Which model was trained.
    pub model: Stage,
    /// The results of the epoch.
    #[serde(flatten)]
    pub epoch: Epoch,
}

/// The epochs of both models, oldest first.
#[derive(Clone, Debug)]
pub struct TrainingRun {
    layout: Layout,
    /// All lines.
    pub lines: Vec<Line>,
}

impl TrainingRun {
    /// Reads the record of the latest run; empty if there was none.
    ///
    /// # Errors
    /// Returns an error if a line is damaged.
    pub fn open(layout: &Layout) -> Result<Self> {
        let path = layout.training_run().join("epochs.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let lines = text
            .lines()
            .enumerate()
            .map(|(number, line)| {
                serde_json::from_str(line).with_context(|| {
                    format!("line {} of {} is damaged", number + 1, path.display())
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            layout: layout.clone(),
            lines,
        })
    }

    /// Records the configuration of a run.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn configure(&self, pipeline: &Pipeline, data: &Dataset, device: &str) -> Result<()> {
        let config = serde_json::json!({
            "pipeline": pipeline.pipeline.name,
            "saker": env!("CARGO_PKG_VERSION"),
            "device": device,
            "users": data.users.rows,
            "items": data.items.rows,
            "interactions": data.interactions.user.len(),
            "towers": pipeline.towers,
            "ranker": pipeline.ranker,
            "training": pipeline.training,
            "retrieval_topk": pipeline.retrieval.topk,
        });
        let path = self.layout.training_run().join("config.json");
        files::write(&path, format!("{config:#}\n"))
    }

    /// Adds an epoch. It replaces this epoch and later ones of an earlier run.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn add(&mut self, model: Stage, epoch: &Epoch) -> Result<()> {
        self.lines
            .retain(|line| line.model != model || line.epoch.epoch < epoch.epoch);
        self.lines.push(Line {
            model,
            epoch: epoch.clone(),
        });
        self.write()
    }

    /// Replaces the whole history of one model.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn replace(&mut self, model: Stage, history: &[Epoch]) -> Result<()> {
        self.lines.retain(|line| line.model != model);
        self.lines.extend(history.iter().map(|epoch| Line {
            model,
            epoch: epoch.clone(),
        }));
        self.write()
    }

    fn write(&self) -> Result<()> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&serde_json::to_string(line).context("an epoch as JSON")?);
            text.push('\n');
        }
        files::write(&self.layout.training_run().join("epochs.jsonl"), text)
    }
}
