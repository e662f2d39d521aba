//! From the source's tables to encoded features: clean, split, derive, fit on the training part, encode everything.
//!
//! Users and items are held in memory, a few columns each. Interactions, of which there may be many more, pass by in batches: cleaned and
//! sorted into `data/interactions.parquet`, counted by the fits, and encoded into `features/interactions.parquet`.

mod clean;
mod columns;
mod content;
mod derive;
mod embeddings;
mod encode;
mod files;
mod interactions;
mod job;
mod rows;
mod served;
mod source;
mod split;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use saker_bulk::Settings;
use saker_pipeline::{Data, Group, Pipeline};
use saker_serving::layout::Layout;

pub use served::files as served_files;
pub use split::PARTS;

use crate::stamp::Fingerprint;

/// The keys of the tables' paths.
const USERS: &str = "data.users.path";
const ITEMS: &str = "data.items.path";
const INTERACTIONS: &str = "data.interactions.path";

/// What was prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Users.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// Events of the training, validation and test part.
    pub events: [usize; 3],
    /// Events left out because they name no user or item, or one that the tables do not hold.
    pub dropped: usize,
    /// Events left out because they have no rating.
    pub unrated: usize,
}

/// `[data]` of a definition that is to be prepared.
fn data(pipeline: &Pipeline) -> Result<&Data> {
    pipeline.data.as_ref().context(
        "the pipeline definition has no [data], so there is nothing to prepare; add it as docs/pipeline.md shows",
    )
}

/// The hash over all that preparing reads.
///
/// # Errors
/// A file is missing.
pub fn fingerprint(pipeline: &Pipeline) -> Result<String> {
    let data = data(pipeline)?;
    let mut fingerprint = Fingerprint::default()
        .value(data)?
        .value(&pipeline.split)?
        .value(&pipeline.user)?
        .value(&pipeline.context)?
        .value(&pipeline.item)?;
    let tables = [
        (INTERACTIONS, &data.interactions.path),
        (USERS, &data.users.path),
        (ITEMS, &data.items.path),
    ];
    for (key, path) in tables {
        for file in files::files(pipeline, data.format, key, path)? {
            fingerprint = fingerprint.file(&file.path)?.value(&file.partition)?;
        }
    }
    for path in embeddings::files(pipeline)? {
        fingerprint = fingerprint.file(&path)?;
    }
    Ok(fingerprint.finish())
}

/// What preparing makes, to be checked for when it is skipped.
pub fn made(pipeline: &Pipeline, layout: &Layout) -> Vec<PathBuf> {
    let tables = ["users", "items", "interactions"];
    let mut made = vec![layout.names(), layout.defaults(), layout.schema()];
    made.extend(
        tables
            .iter()
            .flat_map(|table| [layout.data(table), layout.features(table)]),
    );
    made.extend(Group::ALL.map(|group| layout.workflow(group.as_str())));
    made.extend(
        pipeline
            .item
            .embeddings
            .iter()
            .map(|embedding| layout.table(&embedding.name)),
    );
    made
}

/// Prepares a pipeline's data and features, within the bounds of `settings`.
///
/// # Errors
/// The source cannot be read or holds what the definition does not accept; the message names file, column, row and value.
pub fn prepare(pipeline: &Pipeline, layout: &Layout, settings: Settings) -> Result<Summary> {
    run(pipeline, layout, settings, Workflows::Fitted)
}

/// Encodes what the source holds now with the workflows, names, defaults and embedding tables of an earlier run, so that models which
/// were trained on them can go on learning. A user column that serving keeps is taken as serving wrote it, from the offline store.
///
/// # Errors
/// As [`prepare`]; and nothing was prepared before.
pub fn encode_again(pipeline: &Pipeline, layout: &Layout, settings: Settings) -> Result<Summary> {
    run(pipeline, layout, settings, Workflows::Kept)
}

/// Where the fitted workflows come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workflows {
    /// They are fitted on the training part.
    Fitted,
    /// They are there already.
    Kept,
}

fn run(
    pipeline: &Pipeline,
    layout: &Layout,
    settings: Settings,
    workflows: Workflows,
) -> Result<Summary> {
    job::Job::new(pipeline, data(pipeline)?, layout, settings, workflows)?.run()
}

fn read_json<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T> {
    let read = || -> Result<T> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read()
        .with_context(|| format!("cannot read {}", path.display()))
        .with_context(again)
}

fn again() -> &'static str {
    "run `saker prepare` and `saker train` first"
}

fn write_json(path: &std::path::Path, value: &impl serde::Serialize) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(value)? + "\n")
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
