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
mod rows;
mod served;
mod source;
mod split;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, RecordBatch};
use saker_bulk::{Engine, Progress, Settings};
use saker_pipeline::{Data, EmbeddingSource, Group, Names, Pipeline};
use saker_workflow::Workflow;

pub use split::PARTS;

use crate::assemble::Defaults;
use crate::layout::{FeatureSchema, Layout, Schema};
use crate::progress::Step;
use crate::stamp::Fingerprint;
use crate::table;
use columns::Entities;
use served::Served;
pub use served::files as served_files;
use source::Source;

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
    let data = data(pipeline)?;
    let kept = workflows == Workflows::Kept;
    let engine = Engine::new(Settings {
        spill: Some(
            settings
                .spill
                .unwrap_or_else(|| layout.root().join("spill")),
        ),
        ..settings
    })?;
    let step = Step::start("read users and items");
    let mut names = if kept {
        read_json(&layout.names())?
    } else {
        Names::new()
    };
    let mut entities = |entity: &saker_pipeline::Entity, table: &saker_pipeline::Table, key| {
        let id = table.id.as_deref().unwrap_or(&entity.id);
        let files = files::files(pipeline, data.format, key, &table.path)?;
        let source = Source::read(data, &files, &columns::read_columns(entity, id))?;
        Entities::read(entity, id, &source, &mut names)
    };
    let mut users = entities(&pipeline.user, &data.users, USERS)
        .with_context(|| format!("users, {}", data.users.path))?;
    let mut items = entities(&pipeline.item, &data.items, ITEMS)
        .with_context(|| format!("items, {}", data.items.path))?;
    step.done(&format!(
        "{} users, {} items",
        users.ids.len(),
        items.ids.len()
    ));

    let step = Step::start("sort, split and write the interactions");
    let interactions = || -> Result<_> {
        // A whole training goes by the source; what visitors did since is learned on top of it.
        let live = match kept {
            true => served::events(pipeline, layout, &data.interactions)?,
            false => Vec::new(),
        };
        let path = &data.interactions.path;
        let files = files::files(pipeline, data.format, INTERACTIONS, path)?;
        let (rows, met) = clean::rows(pipeline, &engine, data, (files, live), &users, &items)?;
        let read = |rows: u64| step.say(format!("sort the interactions, {rows} read"));
        let plan = (rows, met.as_ref());
        let served = |column: &saker_pipeline::Column| {
            if !kept {
                return Ok(Served::default());
            }
            let served = Served::read(pipeline, layout, column)?;
            if served.len() > 0 {
                tracing::info!(
                    "{} values of {} as serving wrote them",
                    served.len(),
                    column.name
                );
            }
            Ok(served)
        };
        let events = interactions::write(
            pipeline,
            &engine,
            layout,
            plan,
            (&users, &items),
            served,
            read,
        )?;
        Ok((events, met))
    };
    let (events, met) =
        interactions().with_context(|| format!("interactions, {}", data.interactions.path))?;
    events.derive(&pipeline.item, &events.of_items, &mut items);
    events.derive(&pipeline.user, &events.of_users, &mut users);
    let summary = Summary {
        users: users.ids.len(),
        items: items.ids.len(),
        events: events.counts,
        dropped: met.dropped() as usize,
        unrated: met.unrated.load(Ordering::Relaxed) as usize,
    };
    step.done(&format!("{} interactions", events.len()));
    met.report();
    if events.counts[0] == 0 {
        bail!(
            "there is no training interaction; the data is empty, or its ids match no user and item"
        );
    }

    let defaults = if kept {
        read_json(&layout.defaults())?
    } else {
        Defaults {
            user: users.defaults(&pipeline.user, &events.of_users)?,
            item: items.defaults(&pipeline.item, &events.of_items)?,
        }
    };
    let user_table = users.table(&pipeline.user, &defaults.user)?;
    let item_table = items.table(&pipeline.item, &defaults.item)?;
    table::write(&layout.data("users"), &user_table)?;
    table::write(&layout.data("items"), &item_table)?;
    write_json(&layout.names(), &names)?;
    write_json(&layout.defaults(), &defaults)?;

    let fit = |group: Group| -> Result<Workflow> {
        if kept {
            let folder = layout.workflow(group.as_str());
            return Workflow::load(&folder).with_context(again);
        }
        let step = Step::start(format!("fit the {} features", group.as_str()));
        let progress = |at: Progress| {
            step.say(format!(
                "fit the {} features, scan {} of {}, {} rows",
                group.as_str(),
                at.scan,
                at.scans,
                at.rows
            ));
        };
        let workflow = encode::fit(pipeline, &engine, layout, group, progress)?;
        encode::save(&workflow, &layout.workflow(group.as_str()))?;
        step.done(&format!("{} training interactions", events.counts[0]));
        Ok(workflow)
    };
    let user_workflow = fit(Group::User)?;
    let context_workflow = fit(Group::Context)?;
    let item_workflow = fit(Group::Item)?;

    let step = Step::start("encode the features");
    let user_features = encode::apply(&user_workflow, pipeline.features(Group::User), &user_table)?;
    let item_features = encode::apply(&item_workflow, pipeline.features(Group::Item), &item_table)?;
    table::write(&layout.features("users"), &user_features)?;
    table::write(&layout.features("items"), &item_features)?;
    let encoder = rows::Encoder::new(
        pipeline,
        &data.interactions,
        (&users, &user_table),
        &items,
        &user_workflow,
        context_workflow.clone(),
    )?;
    engine.write(
        &engine.read(&[layout.data("interactions")])?,
        &layout.features("interactions"),
        |at| step.say(format!("encode the features, {} interactions", at.rows)),
        move |batch| encoder.encode(batch),
    )?;

    let schema = Schema {
        user_id: pipeline.user.id.clone(),
        item_id: pipeline.item.id.clone(),
        user: schema_of(
            pipeline,
            Group::User,
            &user_workflow,
            &cold_row(pipeline, Group::User, &defaults)?,
        )?,
        context: schema_of(
            pipeline,
            Group::Context,
            &context_workflow,
            &cold_row(pipeline, Group::Context, &defaults)?,
        )?,
        item: schema_of(
            pipeline,
            Group::Item,
            &item_workflow,
            &cold_row(pipeline, Group::Item, &defaults)?,
        )?,
        embeddings: pipeline
            .item
            .embeddings
            .iter()
            .map(|table| (table.name.clone(), table.dim))
            .collect(),
    };
    step.done(&format!(
        "{} features",
        schema.user.len() + schema.context.len() + schema.item.len()
    ));

    // Tables are by encoded id, and no code is new.
    let embeddings: &[saker_pipeline::Embedding] = match workflows {
        Workflows::Fitted => &pipeline.item.embeddings,
        Workflows::Kept => &[],
    };
    let codes = table::int32s(&item_features, &pipeline.item.id)?;
    let cardinality = schema
        .item
        .iter()
        .find(|feature| feature.name == pipeline.item.id);
    let cardinality = cardinality
        .and_then(|feature| feature.cardinality)
        .context("the item id has no vocabulary")?;
    for embedding in embeddings {
        let step = Step::start(format!("embedding table {}", embedding.name));
        let histories = match embedding.source {
            EmbeddingSource::Cooccurrence => {
                rows::histories(&engine, layout, pipeline, &users, &items)?
            }
            _ => Vec::new(),
        };
        let vectors = embeddings::vectors(
            pipeline,
            layout,
            embedding,
            &item_table,
            &items.order,
            &histories,
            &step,
        )?;
        embeddings::write(
            &layout.table(&embedding.name),
            &vectors.values,
            codes,
            cardinality,
            embedding.dim,
        )?;
        step.done(&format!(
            "{cardinality} rows of {}{}",
            embedding.dim, vectors.note
        ));
    }
    // Spilled rows are gone by now; the folder is empty.
    drop(engine);
    let _ = fs::remove_dir_all(layout.root().join("spill"));
    // Last, since training starts from it.
    write_json(&layout.schema(), &schema)?;
    Ok(summary)
}

/// One row as a cold start has it: id -1, and the defaults.
fn cold_row(pipeline: &Pipeline, group: Group, defaults: &Defaults) -> Result<RecordBatch> {
    let (entity, values) = match group {
        Group::User => (&pipeline.user, &defaults.user),
        Group::Item => (&pipeline.item, &defaults.item),
        Group::Context => {
            let columns = pipeline.context.columns.iter().map(|column| {
                let number = match column.default {
                    saker_pipeline::Default::Number(number) => number,
                    saker_pipeline::Default::Word(_) => 0.0,
                };
                (column.name.as_str(), constant(column, number))
            });
            return table::table(columns.collect());
        }
    };
    let mut columns = vec![(entity.id.as_str(), table::int32(vec![-1]))];
    columns.extend(entity.stored().map(|column| {
        (
            column.name.as_str(),
            constant(column, values.get(&column.name).copied().unwrap_or(-1.0)),
        )
    }));
    table::table(columns)
}

fn constant(column: &saker_pipeline::Column, number: f64) -> ArrayRef {
    match column.kind {
        saker_pipeline::ColumnType::Float32 => table::float32(vec![number as f32]),
        _ => table::int32(vec![number as i32]),
    }
}

fn schema_of(
    pipeline: &Pipeline,
    group: Group,
    workflow: &Workflow,
    cold_row: &RecordBatch,
) -> Result<Vec<FeatureSchema>> {
    let features = pipeline.features(group);
    let cold = encode::apply(workflow, features, cold_row)?;
    let schema = |feature: &saker_pipeline::Feature| -> Result<FeatureSchema> {
        let cardinality = encode::cardinality(workflow, feature)?;
        let cold_start = match cardinality {
            // Training knows an absent item only as padding, whose code is never learned.
            Some(_) => table::int32s(&cold, &feature.name)?[0] as f32,
            None => table::float32s(&cold, &feature.name)?[0],
        };
        Ok(FeatureSchema {
            name: feature.name.clone(),
            cardinality,
            embedding_dim: feature.embedding_dim,
            cold_start: if cold_start.is_finite() {
                cold_start
            } else {
                0.0
            },
        })
    };
    features.iter().map(schema).collect()
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
