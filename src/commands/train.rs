use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::ArrayView2;
use saker_pipeline::Pipeline;
use saker_train::checkpoint::Checkpoint;
use saker_train::data::Dataset;
use saker_train::onnx;
use saker_train::progress::{Epoch, Progress, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

use super::Target;
use crate::features;
use crate::layout::Layout;
use crate::progress::Step;
use crate::stamp::{self, Fingerprint};

/// Arguments of `saker train`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker train\n  saker train movielens --force\n\n\
    The tables [towers], [ranker] and [training] of the definition say how large the models are and how they learn. A \
    run that was stopped goes on after the last model that was finished."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Train even when neither features nor definition have changed
    #[arg(long)]
    force: bool,
}

/// Trains both models, unless nothing has changed, and exports them.
pub(super) fn run(args: &Args) -> Result<()> {
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
    let towers = towers(&pipeline, &layout, &data, &towers_fingerprint, args.force)?;
    write_towers(&layout, &towers, &data)?;

    let candidates = towers.retrieve(&data, pipeline.retrieval.topk);
    let mut ranker = Ranker::new(&pipeline.ranker, &data, pipeline.training.seed);
    if pipeline.training.ranker.warm_start {
        ranker.warm_start(&towers, &data);
    }
    let mut bar = Bar::new(pipeline.training.ranker.epochs);
    let epochs = ranker.train(&data, &pipeline.training, &candidates, &mut bar)?;
    bar.done("ranker", &epochs);
    ranker.save(&layout.checkpoint("ranker"))?;
    write(&layout.model("dlrm_ranking"), &onnx::ranker(&ranker))?;
    stamp::record(&layout, "train", &fingerprint)?;
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
    );
    Ok(Fingerprint::default()
        .value(&(&pipeline.towers, &training.towers, shared))?
        .file(&layout.root().join("features"))?
        .finish())
}

/// Trains the towers, or reads them from the checkpoint of a run that got this far.
fn towers(
    pipeline: &Pipeline,
    layout: &Layout,
    data: &Dataset,
    fingerprint: &str,
    force: bool,
) -> Result<Towers> {
    let path = layout.checkpoint("towers");
    let mut towers = Towers::new(&pipeline.towers, data, pipeline.training.seed);
    if !force && stamp::is_current(layout, "train-towers", fingerprint, &[&path]) {
        towers.load(&path)?;
        eprintln!("✓ towers: read from {}", path.display());
        return Ok(towers);
    }
    let mut bar = Bar::new(pipeline.training.towers.epochs);
    let epochs = towers.train(data, &pipeline.towers, &pipeline.training, &mut bar)?;
    bar.done("towers", &epochs);
    towers.save(&path)?;
    stamp::record(layout, "train-towers", fingerprint)?;
    Ok(towers)
}

fn write_towers(layout: &Layout, towers: &Towers, data: &Dataset) -> Result<()> {
    write(
        &layout.model("query_tower"),
        &onnx::tower(&towers.query, "query_tower"),
    )?;
    write(
        &layout.model("candidate_tower"),
        &onnx::tower(&towers.candidate, "candidate_tower"),
    )?;
    let vectors = towers.item_vectors(data);
    let vectors = ArrayView2::from_shape((data.items.rows, towers.candidate.dim()), &vectors)?;
    let path = layout.item_vectors();
    ndarray_npy::write_npy(&path, &vectors)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// One line per epoch, and a bar within it.
struct Bar {
    bar: ProgressBar,
    epochs: usize,
}

impl Bar {
    fn new(epochs: usize) -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} batches {eta}")
        {
            bar.set_style(style);
        }
        Self { bar, epochs }
    }

    fn done(self, model: &str, epochs: &[Epoch]) {
        self.bar.finish_and_clear();
        let seconds: f64 = epochs.iter().map(|epoch| epoch.seconds).sum();
        if let Some(best) = epochs.iter().rfind(|epoch| epoch.best) {
            eprintln!(
                "✓ {model}: epoch {} of {} kept ({seconds:.1} s)",
                best.epoch,
                epochs.len()
            );
        }
    }
}

fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Towers => "towers",
        Stage::Ranker => "ranker",
    }
}

impl Progress for Bar {
    fn batch(&mut self, stage: Stage, epoch: usize, done: usize, of: usize) -> bool {
        if done == 1 {
            self.bar.set_length(of as u64);
            self.bar
                .set_message(format!("{} epoch {epoch}/{}", title(stage), self.epochs));
        }
        self.bar.set_position(done as u64);
        true
    }

    fn epoch(&mut self, stage: Stage, epoch: &Epoch) {
        let metric = |name: &str| epoch.validation.get(name).copied().unwrap_or(f64::NAN);
        let line = format!(
            "  {} {:2}/{}: loss {:.4}, validation NDCG@10 {:.4}, recall@100 {:.4} ({:.1} s){}",
            title(stage),
            epoch.epoch,
            self.epochs,
            epoch.loss,
            metric("ndcg@10"),
            metric("recall@100"),
            epoch.seconds,
            if epoch.best { " best" } else { "" }
        );
        self.bar.suspend(|| eprintln!("{line}"));
    }
}
