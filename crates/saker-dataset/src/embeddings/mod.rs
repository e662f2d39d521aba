//! Embedding tables of the items: computed here or read from a file, rows = encoded ids.

mod content;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use ndarray::Array2;
use rustc_hash::FxHashMap;
use saker_bulk::plan::{ident, lit};
use saker_bulk::{Engine, Settings};
use saker_contract::Code;
use saker_pipeline::{Embedding, EmbeddingSource, Pipeline};
use saker_prepare::{PARTS, table};
use saker_serving::layout::{Layout, Schema};
use saker_serving::progress::Step;
use saker_train::pretrained;

/// The vectors of all items.
struct Vectors {
    /// Row-major f32 [items, dim].
    values: Vec<f32>,
    /// How they were made, to follow `… rows of …`.
    note: String,
}

impl From<Vec<f32>> for Vectors {
    fn from(values: Vec<f32>) -> Self {
        Self {
            values,
            note: String::new(),
        }
    }
}

/// Files and folders that the definition's embeddings are read from.
///
/// # Errors
/// A path with a variable that is not set.
pub fn files(pipeline: &Pipeline) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for embedding in &pipeline.item.embeddings {
        match &embedding.source {
            EmbeddingSource::File { path } => files.push(pipeline.resolve(path)?),
            EmbeddingSource::Sentence { path, model, .. } => {
                if let Some(path) = path {
                    let format = saker_prepare::data(pipeline)?.format;
                    let key = format!("item.embeddings.{}.source.path", embedding.name);
                    let table = saker_prepare::files::files(pipeline, format, &key, path)?;
                    files.extend(table.into_iter().map(|file| file.path));
                }
                files.push(model_at(pipeline, model)?);
            }
            EmbeddingSource::Image { path, model, .. } => {
                // All pictures: the folder above the part of the path that holds the id.
                let place = path.find(&format!("{{{}}}", pipeline.item.id));
                let above = &path[..place.unwrap_or(path.len())];
                let folder = above.rfind('/').map_or(".", |end| &above[..=end]);
                files.push(pipeline.resolve(folder)?);
                let model = model_at(pipeline, model)?;
                let config = model.with_file_name("preprocessor_config.json");
                files.push(model);
                files.extend(config.exists().then_some(config));
            }
            EmbeddingSource::Text { .. } | EmbeddingSource::Cooccurrence => {}
        }
    }
    Ok(files)
}

fn model_at(pipeline: &Pipeline, model: &str) -> Result<PathBuf> {
    let path = pipeline.resolve(model)?;
    if !path.exists() {
        bail!(
            "the model {} is missing; `scripts/install --content` fetches those of the examples",
            path.display()
        );
    }
    Ok(path)
}

/// Writes every embedding table of the definition, for the items and the schema that [`saker_prepare::prepare`] has left.
///
/// # Errors
/// A source cannot be read, or does not fit the items.
pub fn write_all(
    pipeline: &Pipeline,
    layout: &Layout,
    schema: &Schema,
    settings: &Settings,
) -> Result<()> {
    if pipeline.item.embeddings.is_empty() {
        return Ok(());
    }
    let id = &pipeline.item.id;
    let items = table::read(&layout.data("items"))?;
    let features = table::read(&layout.features("items"))?;
    let codes = table::int32s(&features, id)?;
    let cardinality = schema.item.iter().find(|feature| feature.name == *id);
    let cardinality = cardinality
        .and_then(|feature| feature.cardinality)
        .context("the item id has no vocabulary")?;
    for embedding in &pipeline.item.embeddings {
        let step = Step::start(format!("embedding table {}", embedding.name));
        let vectors = vectors(pipeline, layout, embedding, &items, settings, &step)?;
        let path = layout.table(&embedding.name);
        write(&path, &vectors.values, codes, cardinality, embedding.dim)?;
        step.done(&format!(
            "{cardinality} rows of {}{}",
            embedding.dim, vectors.note
        ));
    }
    Ok(())
}

/// Per user, the rows of the items of the training events, oldest first.
fn histories(
    pipeline: &Pipeline,
    layout: &Layout,
    items: &RecordBatch,
    settings: &Settings,
) -> Result<Vec<Vec<u32>>> {
    let (user, item) = (&pipeline.user.id, &pipeline.item.id);
    let row_of: FxHashMap<i32, u32> = table::int32s(items, item)?
        .iter()
        .copied()
        .zip(0..)
        .collect();
    let engine = Engine::new(settings.clone())?;
    let events = engine.read(&[layout.data("interactions")])?;
    let training = events.filter(ident("split").eq(lit(PARTS[0])))?;
    let training = engine.ordered(&training.select(vec![ident(user), ident(item)])?);
    let mut histories: Vec<Vec<u32>> = Vec::new();
    // The events are in the order of their users.
    let mut of = None;
    engine.run(
        training,
        |_| {},
        |batch| -> Result<()> {
            let pairs = table::int32s(&batch, user)?.iter();
            for (user, item) in pairs.zip(table::int32s(&batch, item)?) {
                if of != Some(*user) {
                    of = Some(*user);
                    histories.push(Vec::new());
                }
                let row = row_of.get(item).copied();
                let row = row.with_context(|| format!("item {item} is in no table"))?;
                if let Some(history) = histories.last_mut() {
                    history.push(row);
                }
            }
            Ok(())
        },
    )?;
    Ok(histories)
}

/// The vectors of all items, row-major f32 [items, dim], row i for row i of `items`.
fn vectors(
    pipeline: &Pipeline,
    layout: &Layout,
    embedding: &Embedding,
    items: &RecordBatch,
    settings: &Settings,
    step: &Step,
) -> Result<Vectors> {
    let (dim, seed) = (embedding.dim, pipeline.training.seed);
    match &embedding.source {
        EmbeddingSource::Text { columns } => {
            let texts = content::texts_of_items(items, columns)?;
            Ok(pretrained::text_vectors(&texts, dim, seed).into())
        }
        EmbeddingSource::Cooccurrence => {
            let histories = histories(pipeline, layout, items, settings)?;
            let items = items.num_rows();
            Ok(pretrained::cooccurrence_vectors(&histories, items, dim, seed).into())
        }
        EmbeddingSource::Sentence { .. } | EmbeddingSource::Image { .. } => {
            content::vectors(pipeline, layout, embedding, items, step)
        }
        EmbeddingSource::File { path } => {
            let path = pipeline.resolve(path)?;
            let vectors: Array2<f32> = ndarray_npy::read_npy(&path).with_context(|| {
                format!("{} is no .npy file of f32 [items, {dim}]", path.display())
            })?;
            if vectors.dim() != (items.num_rows(), dim) {
                bail!(
                    "{} holds {:?} numbers; [[item.embeddings]] {} needs [{}, {dim}], a row per row of [data.items]",
                    path.display(),
                    vectors.dim(),
                    embedding.name,
                    items.num_rows()
                );
            }
            for (row, vector) in vectors.rows().into_iter().enumerate() {
                if let Some(number) = vector.iter().find(|number| !number.is_finite()) {
                    bail!(
                        "{}, row {}: {number} is not finite; accepted are finite numbers",
                        path.display(),
                        row + 1
                    );
                }
            }
            let order = saker_prepare::order_of_items(pipeline)?;
            let rows = order.iter().flat_map(|&row| vectors.row(row).to_vec());
            Ok(rows.collect::<Vec<f32>>().into())
        }
    }
}

/// Writes the table by encoded id: the rows of codes that no item has (padding, null, out-of-vocabulary) are zero.
fn write(
    path: &Path,
    vectors: &[f32],
    codes: &[i32],
    cardinality: usize,
    dim: usize,
) -> Result<()> {
    let mut rows = Array2::<f32>::zeros((cardinality, dim));
    for (vector, &code) in vectors
        .chunks_exact(dim)
        .zip(codes)
        // Codes below are reserved: an item without a code of its own is out-of-vocabulary.
        .filter(|(_, code)| i64::from(**code) >= Code::FIRST)
    {
        rows.row_mut(code as usize)
            .iter_mut()
            .zip(vector)
            .for_each(|(to, from)| *to = *from);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    ndarray_npy::write_npy(path, &rows).with_context(|| format!("cannot write {}", path.display()))
}
