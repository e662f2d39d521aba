//! Turns the source's tables into encoded features: cleans, splits and derives, fits on the training part, encodes all rows.
//!
//! Users and items are in memory, a few columns each. Interactions may be many more, so they are processed in batches: cleaned and sorted
//! into `data/interactions.parquet`, counted by the fits, and encoded into `features/interactions.parquet`.

mod clean;
mod cluster;
mod columns;
mod derive;
mod encode;
pub mod files;
mod interactions;
mod job;
pub mod limits;
mod rows;
mod serving_log;
pub mod source;
mod split;
pub mod table;
pub mod up_to_date;
pub mod values;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use saker_bulk::Settings;
use saker_bulk::plan::SessionContext;
use saker_pipeline::{Data, Group, Pipeline};
use saker_serving::layout::Layout;
use serde::{Deserialize, Serialize};

pub use serving_log::files as served_files;
pub use split::PARTS;

use files::TableFile;
use source::Source;

/// The keys of the tables' paths.
const USERS: &str = "data.users.path";
const ITEMS: &str = "data.items.path";
const INTERACTIONS: &str = "data.interactions.path";

/// The result of [`prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of users.
    pub users: usize,
    /// Number of items.
    pub items: usize,
    /// Events of the training, validation and test part.
    pub events: [usize; 3],
    /// Number of events without a user or an item, or with one that is missing from the tables. They are left out.
    pub dropped: usize,
    /// Number of events without a rating. They are left out.
    pub unrated: usize,
}

/// `[data]` of a definition.
///
/// # Errors
/// Returns an error if the definition has no `[data]`.
pub fn data(pipeline: &Pipeline) -> Result<&Data> {
    pipeline.data.as_ref().context(
        "the pipeline definition has no [data], so there is nothing to prepare; add it as docs/pipeline.md shows",
    )
}

/// The files of the users', items' and interactions' tables.
///
/// # Errors
/// Returns an error if a file is missing.
pub fn inputs(pipeline: &Pipeline) -> Result<Vec<TableFile>> {
    let data = data(pipeline)?;
    let tables = [
        (INTERACTIONS, &data.interactions.path),
        (USERS, &data.users.path),
        (ITEMS, &data.items.path),
    ];
    let mut inputs = Vec::new();
    for (key, path) in tables {
        inputs.extend(files::files(pipeline, data.format, key, path)?);
    }
    Ok(inputs)
}

/// The row in the source of each row of `data/items.parquet`.
///
/// # Errors
/// Returns an error if the table of items cannot be read.
pub fn order_of_items(pipeline: &Pipeline) -> Result<Vec<usize>> {
    let data = data(pipeline)?;
    let id = data.items.id.as_deref().unwrap_or(&pipeline.item.id);
    let files = files::files(pipeline, data.format, ITEMS, &data.items.path)?;
    let ids = Source::read(data, &files, &[id])?.all_ids(id)?;
    Ok(columns::order(&ids))
}

/// The outputs of [`prepare`]. The step can be skipped only if they exist.
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

/// Prepares a pipeline's data and features with the resources of `settings`, without the embedding tables. Training starts from the schema,
/// which [`complete`] renames to its final name when these tables exist.
///
/// With a session of a cluster, such as Ballista's, the cluster reads and sorts the interactions and counts the values that the workflows
/// are fitted on. The files are the same byte for byte.
///
/// # Errors
/// Returns an error if the source cannot be read or has a value that is not accepted. The message names file, column, row and value.
pub fn prepare(
    pipeline: &Pipeline,
    layout: &Layout,
    settings: Settings,
    cluster: Option<SessionContext>,
) -> Result<Summary> {
    run(pipeline, layout, settings, Workflows::Fitted, cluster)
}

/// Renames the schema of [`prepare`] to its final name.
///
/// # Errors
/// Returns an error if the schema cannot be renamed, for example because nothing was prepared.
pub fn complete(layout: &Layout) -> Result<()> {
    let pending = layout.schema_without_tables();
    fs::rename(&pending, layout.schema())
        .with_context(|| format!("cannot move {} to its place", pending.display()))
}

/// Encodes the source's current rows with the workflows, names, defaults and embedding tables of an earlier run, so that its models can be
/// trained further. User columns that serving updates have the values that serving wrote to the offline store.
///
/// # Errors
/// Returns an error as [`prepare`] does, and if nothing was prepared before.
pub fn encode_again(pipeline: &Pipeline, layout: &Layout, settings: Settings) -> Result<Summary> {
    run(pipeline, layout, settings, Workflows::Kept, None)
}

/// The origin of the fitted workflows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workflows {
    /// They are fitted on the training part.
    Fitted,
    /// They exist already.
    Kept,
}

fn run(
    pipeline: &Pipeline,
    layout: &Layout,
    settings: Settings,
    workflows: Workflows,
    cluster: Option<SessionContext>,
) -> Result<Summary> {
    let data = data(pipeline)?;
    job::Job::new(pipeline, data, layout, settings, workflows, cluster)?.run()
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
