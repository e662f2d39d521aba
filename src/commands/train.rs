use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::ArrayView2;
use ndarray_npy::WriteNpyExt;
use saker_pipeline::Pipeline;
use saker_train::checkpoint::Checkpoint;
use saker_train::data::Dataset;
use saker_train::device::Device;
use saker_train::learning::{Checkpoints, Session};
use saker_train::onnx;
use saker_train::progress::{Epoch, Progress, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Target;
use crate::layout::Layout;
use crate::progress::Step;
use crate::stamp::{self, Fingerprint};
use crate::training_run::TrainingRun;
use crate::{features, files};

/// Arguments of `saker train`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker train\n  saker train movielens --force\n\n\
    The tables [towers], [ranker] and [training] of the definition say how large the models are and how they learn. A \
    run that was stopped or killed goes on from its last checkpoint, and ends in the same models as one that was not."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Train even when neither features nor definition have changed, and from the beginning
    #[arg(long)]
    force: bool,
    /// Where to compute: cpu, or cuda[:NUMBER] in a build with the feature cuda
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Seconds between two checkpoints within an epoch
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    checkpoint_every: u64,
}

/// Trains both models, unless nothing has changed, and exports them.
pub(super) fn run(args: &Args) -> Result<()> {
    let device = Device::from_str(&args.device).context("--device")?;
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    features::schema(&layout)?;
    let towers_fingerprint = towers_fingerprint(&pipeline, &layout)?;
    let fingerprint = Fingerprint::default()
        .value(&(
            &towers_fingerprint,
            &pipeline.ranker,
            &pipeline.training,
            pipeline.retrieval.topk,
        ))?
        .finish();
    let made = [
        layout.model("query_tower"),
        layout.model("candidate_tower"),
        layout.model("dlrm_ranking"),
        layout.item_vectors(),
        layout.checkpoint("towers"),
        layout.checkpoint("ranker"),
    ];
    let made: Vec<&Path> = made.iter().map(|path| path.as_path()).collect();
    if !args.force && stamp::is_current(&layout, "train", &fingerprint, &made) {
        println!("the models of {name} are up to date; --force trains them again");
        return Ok(());
    }

    let step = Step::start("read the features");
    let data = features::read(&layout)?;
    step.done(&format!(
        "{} users, {} items, {} interactions",
        data.users.rows,
        data.items.rows,
        data.interactions.user.len()
    ));
    let trainer = Trainer {
        pipeline: &pipeline,
        layout: &layout,
        data: &data,
        device,
        force: args.force,
        checkpoint_every: Duration::from_secs(args.checkpoint_every),
        stop: stop_flag()?,
    };
    TrainingRun::open(&layout)?.configure(&pipeline, &data, &args.device)?;
    let towers = trainer.towers(&towers_fingerprint)?;
    write_towers(&layout, &towers, &data)?;

    let step = Step::start("retrieve candidates for hard negatives");
    let candidates = towers.retrieve(&data, pipeline.retrieval.topk);
    let mut ranker = Ranker::new(&pipeline.ranker, &data, pipeline.training.seed);
    if pipeline.training.ranker.warm_start {
        ranker.warm_start(&towers, &data);
    }
    step.done(&format!("{} for each user", pipeline.retrieval.topk));
    drop(towers);
    let mut ranker = ranker.on(trainer.device.clone());
    trainer.accompany(Stage::Ranker, &fingerprint, |session| {
        ranker.train(&data, &pipeline.training, &candidates, session)
    })?;
    ranker.save(&layout.checkpoint("ranker"))?;
    files::write(&layout.model("dlrm_ranking"), onnx::ranker(&ranker))?;
    stamp::record(&layout, "train", &fingerprint)?;
    trainer.forget(Stage::Towers)?;
    trainer.forget(Stage::Ranker)?;
    println!("{}", layout.root().join("models").display());
    Ok(())
}

/// All that the towers depend on.
fn towers_fingerprint(pipeline: &Pipeline, layout: &Layout) -> Result<String> {
    let training = &pipeline.training;
    let shared = (
        training.seed,
        training.recency,
        training.recency_floor,
        &training.mask,
        training.cold_start,
        training.validation_users,
    );
    Ok(Fingerprint::default()
        .value(&(&pipeline.towers, &training.towers, shared))?
        .file(&layout.root().join("features"))?
        .finish())
}

/// Becomes true when the user wants an end, so that a checkpoint can be written first.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    Ok(stop)
}

/// What the training of both models has in common.
struct Trainer<'a> {
    pipeline: &'a Pipeline,
    layout: &'a Layout,
    data: &'a Dataset,
    device: Device,
    force: bool,
    checkpoint_every: Duration,
    stop: Arc<AtomicBool>,
}

impl Trainer<'_> {
    /// Trains the towers, or reads them from the checkpoint of a run that got this far.
    fn towers(&self, fingerprint: &str) -> Result<Towers> {
        let (pipeline, data) = (self.pipeline, self.data);
        let path = self.layout.checkpoint("towers");
        let towers = Towers::new(&pipeline.towers, data, pipeline.training.seed);
        let mut towers = towers.on(self.device.clone());
        if !self.force && stamp::is_current(self.layout, "train-towers", fingerprint, &[&path]) {
            towers.load(&path)?;
            eprintln!("✓ towers: read from {}", path.display());
            return Ok(towers);
        }
        self.accompany(Stage::Towers, fingerprint, |session| {
            towers.train(data, &pipeline.towers, &pipeline.training, session)
        })?;
        towers.save(&path)?;
        stamp::record(self.layout, "train-towers", fingerprint)?;
        Ok(towers)
    }

    /// Calls `train` with checkpoints and a progress bar, and notes its epochs.
    fn accompany(
        &self,
        stage: Stage,
        fingerprint: &str,
        train: impl FnOnce(&mut Session<'_>) -> Result<Vec<Epoch>, saker_train::Error>,
    ) -> Result<()> {
        if self.force {
            self.forget(stage)?;
        }
        let training = &self.pipeline.training;
        let epochs = match stage {
            Stage::Towers => training.towers.epochs,
            Stage::Ranker => training.ranker.epochs,
        };
        let run = TrainingRun::open(self.layout)?;
        let mut bar = Bar::new(epochs, run, self.stop.clone());
        let history = train(&mut Session {
            progress: &mut bar,
            checkpoints: Some(Checkpoints {
                folder: self.layout.training_run(),
                every: self.checkpoint_every,
                fingerprint: fingerprint.to_owned(),
            }),
        });
        bar.bar.finish_and_clear();
        let history = history.map_err(|error| match error {
            saker_train::Error::Stopped => anyhow::anyhow!(
                "stopped; `saker train {}` goes on from here",
                self.pipeline.pipeline.name
            ),
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
        if let Some(best) = history.iter().rfind(|epoch| epoch.best) {
            eprintln!(
                "✓ {}: epoch {} of {} kept ({seconds:.1} s)",
                stage.name(),
                best.epoch,
                history.len()
            );
        }
        Ok(())
    }

    /// Removes the state of a model's run.
    fn forget(&self, stage: Stage) -> Result<()> {
        for kind in ["", "-best"] {
            let file = format!("{}{kind}.safetensors", stage.name());
            let path = self.layout.training_run().join(file);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn write_towers(layout: &Layout, towers: &Towers, data: &Dataset) -> Result<()> {
    files::write(
        &layout.model("query_tower"),
        onnx::tower(&towers.query, "query_tower"),
    )?;
    files::write(
        &layout.model("candidate_tower"),
        onnx::tower(&towers.candidate, "candidate_tower"),
    )?;
    let vectors = towers.item_vectors(data);
    let vectors = ArrayView2::from_shape((data.items.rows, towers.candidate.dim()), &vectors)?;
    let mut bytes = Vec::new();
    vectors.write_npy(&mut bytes)?;
    files::write(&layout.item_vectors(), bytes)
}

/// One line per epoch, and a bar within it.
struct Bar {
    bar: ProgressBar,
    epochs: usize,
    run: TrainingRun,
    stop: Arc<AtomicBool>,
    /// Why an epoch could not be noted.
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
