//! Trains existing models on new interactions. The query tower and the ranker learn; the candidate tower, and with it the index, stays
//! unchanged.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use saker_bulk::Settings;
use saker_dataset::{features, prepare};
use saker_pipeline::Pipeline;
use saker_prepare::up_to_date::{self, Fingerprint};
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_train::Error;
use saker_train::candidates::Candidates;
use saker_train::checkpoint::{Checkpoint, LEARNED_UNTIL};
use saker_train::data::{Dataset, Split};
use saker_train::device::Device;
use saker_train::evaluate::{Held, ListMetrics, served_metrics};
use saker_train::finetune::Selection;
use saker_train::progress::{Epoch, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;
use serde::{Deserialize, Serialize};

use crate::export;
use crate::training_session::{Display, TrainingSession};

/// One fine-tuning, an entry of `models/finetuned.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The learned interactions are later than this Unix second …
    pub since: i32,
    /// … and not later than this one.
    pub until: i32,
    /// Number of new positives.
    pub new: usize,
    /// Number of replayed older positives.
    pub replayed: usize,
    /// Number of held-out users, whose new positives decide whether an epoch is kept.
    pub held_users: usize,
    /// The epoch that was kept of each model; `None` if the model is unchanged.
    pub kept: Kept,
    /// Metrics of the served answers on the test part, before and after; `None` if the models learned from the test part.
    pub test: Option<[Answers; 2]>,
}

/// The epochs that were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Of the query tower.
    pub query_tower: Option<usize>,
    /// Of the ranker.
    pub ranker: Option<usize>,
}

/// Metrics of the answers of a pair of models.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Metrics of the retrieved items.
    pub retrieval: ListMetrics,
    /// Metrics of the same items in the ranker's order.
    pub ranked: ListMetrics,
}

/// The arguments of a fine-tuning.
pub struct Request<'a> {
    /// The definition.
    pub pipeline: &'a Pipeline,
    /// The pipeline's folders.
    pub layout: &'a Layout,
    /// The hash over the sources of this program.
    pub code: &'a str,
    /// The device to compute on.
    pub device: Device,
    /// Limits for encoding the new interactions.
    pub settings: Settings,
    /// Whether the models also learn from the test part.
    pub all: bool,
    /// Maximum number of test users to measure; 0 means all.
    pub users: usize,
    /// Time between two checkpoints.
    pub checkpoint_every: Duration,
    /// What shows the progress.
    pub display: &'a dyn Display,
}

/// The result of a fine-tuning.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// No interaction is newer than this Unix second.
    NothingNew(i32),
    /// The models were fine-tuned.
    Done {
        /// The record of the fine-tuning.
        round: Box<Round>,
        /// Whether the index still matches the items' vectors.
        index_is_valid: bool,
    },
}

/// The fine-tunings since the models were trained, oldest first.
///
/// # Errors
/// Returns an error if the file is damaged.
pub fn rounds(layout: &Layout) -> Result<Vec<Round>> {
    let path = layout.finetuned();
    if !path.exists() {
        return Ok(Vec::new());
    }
    let read = || -> Result<_> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
    read().with_context(|| format!("{} is damaged; run `saker train --force`", path.display()))
}

/// Fine-tunes the query tower and the ranker on interactions newer than their training data, and exports them.
///
/// # Errors
/// Returns an error if the models are missing or belong to other features, if the source cannot be read, or if the run was stopped.
pub fn finetune(request: &Request<'_>) -> Result<Outcome> {
    let Request {
        pipeline, layout, ..
    } = *request;
    let name = &pipeline.pipeline.name;
    let checkpoints = [layout.checkpoint("towers"), layout.checkpoint("ranker")];
    let since = since(request, &checkpoints)?;
    encode(request)?;

    let step = Step::start("read the features");
    let mut data = features::read(layout)?;
    let training = &pipeline.training;
    let selected = Selection::new(
        &mut data,
        &training.finetune,
        training.seed,
        since,
        request.all,
    );
    let selection = match selected {
        Err(Error::NothingNew { since }) => {
            step.done("nothing is new");
            return Ok(Outcome::NothingNew(since));
        }
        selection => selection?,
    };
    step.done(&format!(
        "{} new positives and {} older ones; {} users are held out",
        selection.new,
        selection.rows.len() - selection.new,
        selection.held_users
    ));

    let (mut towers, mut ranker) = load(request, &data, &checkpoints)?;
    let before = measure(request, &data, &towers, &ranker, "before")?;

    let fingerprint = Fingerprint::of_code(request.code)
        .value(&(&pipeline.towers, &pipeline.ranker, training, request.all))?
        .file(&checkpoints[0])?
        .file(&checkpoints[1])?
        .file(&layout.root().join("features"))?
        .finish();
    let session = TrainingSession::new(
        layout,
        format!("saker finetune {name}"),
        request.checkpoint_every,
        request.display,
    )?;
    let epochs = training.finetune.epochs;
    let rows = &selection.rows;
    let of_towers = session.run(Stage::Towers, epochs, &fingerprint, |learning| {
        towers.finetune(&data, &pipeline.towers, training, rows, learning)
    })?;
    let step = Step::start("retrieve candidates for hard negatives");
    let candidates = Candidates::new(&towers, &data, training, pipeline.retrieval.topk);
    step.done(&format!("{} for each user", pipeline.retrieval.topk));
    let of_ranker = session.run(Stage::Ranker, epochs, &fingerprint, |learning| {
        ranker.finetune(&data, training, &candidates, rows, learning)
    })?;
    drop(candidates);
    let after = measure(request, &data, &towers, &ranker, "after")?;

    let round = Round {
        since,
        until: selection.until,
        new: selection.new,
        replayed: selection.rows.len() - selection.new,
        held_users: selection.held_users,
        kept: Kept {
            query_tower: kept(&of_towers),
            ranker: kept(&of_ranker),
        },
        test: before.zip(after).map(|(before, after)| [before, after]),
    };
    let index_is_valid = write(layout, &data, &mut towers, &mut ranker, &round)?;
    session.forget(Stage::Towers)?;
    session.forget(Stage::Ranker)?;
    Ok(Outcome::Done {
        round: Box::new(round),
        index_is_valid,
    })
}

/// The Unix second up to which both models have learned. A killed run is completed or undone first.
fn since(request: &Request<'_>, checkpoints: &[PathBuf; 2]) -> Result<i32> {
    let layout = request.layout;
    let name = &request.pipeline.pipeline.name;
    for path in checkpoints
        .iter()
        .chain([&layout.model("candidate_tower"), &layout.item_vectors()])
    {
        if !path.exists() {
            bail!("{} is missing; run `saker train {name}`", path.display());
        }
    }
    let known = rounds(layout)?;
    settle(&checkpoints[0], &known, learned_until::<Towers>)?;
    settle(&checkpoints[1], &known, learned_until::<Ranker>)?;
    let towers = learned_until::<Towers>(&checkpoints[0])?;
    Ok(towers.min(learned_until::<Ranker>(&checkpoints[1])?))
}

/// The models of the checkpoints. Their candidate tower is the exported one, which the index belongs to.
fn load(
    request: &Request<'_>,
    data: &Dataset,
    checkpoints: &[PathBuf; 2],
) -> Result<(Towers, Ranker)> {
    let Request {
        pipeline, layout, ..
    } = *request;
    let name = &pipeline.pipeline.name;
    let seed = pipeline.training.seed;
    let again = || format!("features or definition have changed since; run `saker train {name}`");
    let mut towers = Towers::new(&pipeline.towers, data, seed).on(request.device.clone());
    let mut ranker = Ranker::new(&pipeline.ranker, data, seed).on(request.device.clone());
    towers.load(&checkpoints[0]).with_context(again)?;
    ranker.load(&checkpoints[1]).with_context(again)?;
    let candidate = export::candidate_tower(&towers);
    let exported = layout.model("candidate_tower");
    if fs::read(&exported).with_context(|| format!("cannot read {}", exported.display()))?
        != candidate
    {
        bail!(
            "{} is not the candidate tower of {}; run `saker train {name} --force`",
            exported.display(),
            checkpoints[0].display()
        );
    }
    Ok((towers, ranker))
}

/// Encodes the source and the events of serving with the workflows of the models' training, unless this is already done.
fn encode(request: &Request<'_>) -> Result<()> {
    const STEP: &str = "encode-again";
    let Request {
        pipeline, layout, ..
    } = *request;
    let source = prepare::fingerprint(pipeline, request.code)?;
    let served = prepare::served_files(pipeline, layout)?;
    let fingerprint = match served.is_empty() {
        true => source,
        false => Fingerprint::of_code(request.code)
            .value(&(source, &served))?
            .finish(),
    };
    let made = prepare::made(pipeline, layout);
    let made: Vec<&Path> = made.iter().map(|path| path.as_path()).collect();
    let is_done = |step| up_to_date::is_current(layout, step, &fingerprint, &made);
    if is_done("prepare") || is_done(STEP) {
        return Ok(());
    }
    // The next `saker prepare` must fit the workflows again.
    up_to_date::forget(layout, "prepare")?;
    up_to_date::renew(layout, STEP, &fingerprint, || {
        prepare::encode_again(pipeline, layout, request.settings.clone()).map(drop)
    })
}

/// Path of a checkpoint before its round is recorded.
fn next(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("next.safetensors")
}

/// Completes the writes of a killed run: a checkpoint whose round is recorded replaces the old one; any other is removed.
fn settle(
    checkpoint: &Path,
    rounds: &[Round],
    learned_until: impl Fn(&Path) -> Result<i32>,
) -> Result<()> {
    let next = next(checkpoint);
    if !next.exists() {
        return Ok(());
    }
    let until = learned_until(&next)?;
    if rounds.last().is_some_and(|round| round.until == until) {
        take_place(checkpoint)
    } else {
        files::remove(&next)
    }
}

fn take_place(checkpoint: &Path) -> Result<()> {
    fs::rename(next(checkpoint), checkpoint)
        .with_context(|| format!("cannot replace {}", checkpoint.display()))
}

/// The rounds including this one. An earlier round over the same time is dropped: its run was killed before its checkpoints replaced the
/// old ones, so its models are not in use.
fn with_round(mut rounds: Vec<Round>, round: &Round) -> Vec<Round> {
    rounds.retain(|known| known.until <= round.since);
    rounds.push(round.clone());
    rounds
}

/// The Unix second up to which a model has learned.
fn learned_until<M: Checkpoint>(path: &Path) -> Result<i32> {
    let notes = M::notes(path)?;
    let until = notes
        .get(LEARNED_UNTIL)
        .and_then(|until| until.parse().ok());
    until.with_context(|| {
        format!(
            "{} does not say up to when it has learned; run `saker train --force`",
            path.display()
        )
    })
}

fn kept(history: &[Epoch]) -> Option<usize> {
    let best = history.iter().rfind(|epoch| epoch.best)?;
    Some(best.epoch)
}

/// Metrics of the served answers on the test part; `None` if there is no test part.
fn measure(
    request: &Request<'_>,
    data: &Dataset,
    towers: &Towers,
    ranker: &Ranker,
    when: &str,
) -> Result<Option<Answers>> {
    let held = Held::new(data, Split::Test, request.users);
    if held.cases.is_empty() {
        return Ok(None);
    }
    let step = Step::start(format!("answer the test part, {when}"));
    let topk = request.pipeline.retrieval.topk;
    let (retrieval, ranked) = served_metrics(towers, ranker, data, &held, topk);
    step.done(&format!(
        "{} users, NDCG@10 {:.4}",
        held.cases.len(),
        ranked.ndcg_10
    ));
    Ok(Some(Answers { retrieval, ranked }))
}

/// Writes the changed files; returns whether the index still matches the items' vectors.
fn write(
    layout: &Layout,
    data: &Dataset,
    towers: &mut Towers,
    ranker: &mut Ranker,
    round: &Round,
) -> Result<bool> {
    let notes = HashMap::from([(LEARNED_UNTIL.to_owned(), round.until.to_string())]);
    let checkpoints = [layout.checkpoint("towers"), layout.checkpoint("ranker")];
    let rounds = with_round(rounds(layout)?, round);
    towers.save_with(&next(&checkpoints[0]), notes.clone())?;
    ranker.save_with(&next(&checkpoints[1]), notes)?;
    export::write_query_tower(layout, towers)?;
    export::write_ranker(layout, ranker)?;
    // The candidate tower has not learned, but the items' features may have changed, and items may have been added.
    let vectors = export::item_vectors(towers, data)?;
    let path = layout.item_vectors();
    let known =
        fs::read(&path).map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
    let is_valid = known == vectors;
    if !is_valid {
        files::write(&path, vectors)?;
    }
    // A run that is killed before this starts again from the old checkpoints. After it, the next run completes the steps below.
    files::write(
        &layout.finetuned(),
        serde_json::to_string_pretty(&rounds)? + "\n",
    )?;
    checkpoints.iter().try_for_each(|path| take_place(path))?;
    Ok(is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(since: i32, until: i32) -> Round {
        Round {
            since,
            until,
            new: 1,
            replayed: 0,
            held_users: 0,
            kept: Kept {
                query_tower: None,
                ranker: None,
            },
            test: None,
        }
    }

    #[test]
    fn a_round_is_noted_once_whenever_the_one_before_was_killed() {
        let first = with_round(Vec::new(), &round(10, 20));
        let second = with_round(first.clone(), &round(20, 30));
        assert_eq!(second, [round(10, 20), round(20, 30)]);
        // The run was recorded and then killed; the next run has the same data, or more.
        assert_eq!(with_round(second.clone(), &round(20, 30)), second);
        assert_eq!(
            with_round(second, &round(20, 35)),
            [round(10, 20), round(20, 35)]
        );
        assert_eq!(with_round(first, &round(10, 25)), [round(10, 25)]);
    }

    /// After a kill at any step of `write`, both checkpoints are old or both are new.
    #[test]
    fn checkpoints_follow_what_is_noted() {
        let until = |path: &Path| -> Result<i32> { Ok(fs::read_to_string(path)?.parse()?) };
        for (saved, noted, placed, expected) in [
            (0, false, 0, "20"),
            (1, false, 0, "20"),
            (2, false, 0, "20"),
            (2, true, 0, "30"),
            (2, true, 1, "30"),
            (2, true, 2, "30"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let paths = ["towers", "ranker"].map(|name| {
                let path = folder.path().join(name).with_extension("safetensors");
                fs::write(&path, "20").unwrap();
                path
            });
            for path in &paths[..saved] {
                fs::write(next(path), "30").unwrap();
            }
            for path in &paths[..placed] {
                take_place(path).unwrap();
            }
            let mut rounds = vec![round(10, 20)];
            rounds.extend(noted.then(|| round(20, 30)));
            for path in &paths {
                settle(path, &rounds, until).unwrap();
                assert_eq!(fs::read_to_string(path).unwrap(), expected);
                assert!(!next(path).exists());
            }
        }
    }
}
