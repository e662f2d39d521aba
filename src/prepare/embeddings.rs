//! Embedding tables of the items: computed here or read from a file, rows = encoded ids.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use ndarray::Array2;
use saker_pipeline::{Embedding, EmbeddingSource, Pipeline};
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_train::pretrained;

use super::content;

/// The vectors of all items.
pub(super) struct Vectors {
    /// Row-major f32 [items, dim].
    pub(super) values: Vec<f32>,
    /// How they were made, to follow `… rows of …`.
    pub(super) note: String,
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
pub(super) fn files(pipeline: &Pipeline) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for embedding in &pipeline.item.embeddings {
        match &embedding.source {
            EmbeddingSource::File { path } => files.push(pipeline.resolve(path)?),
            EmbeddingSource::Sentence { path, model, .. } => {
                if let Some(path) = path {
                    let format = super::data(pipeline)?.format;
                    let key = format!("item.embeddings.{}.source.path", embedding.name);
                    let table = super::files::files(pipeline, format, &key, path)?;
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

/// The vectors of all items, row-major f32 [items, dim], row i for row i of `items`, which is row `order[i]` of the source.
pub(super) fn vectors(
    pipeline: &Pipeline,
    layout: &Layout,
    embedding: &Embedding,
    items: &RecordBatch,
    order: &[usize],
    histories: &[Vec<u32>],
    step: &Step,
) -> Result<Vectors> {
    let (dim, seed) = (embedding.dim, pipeline.training.seed);
    match &embedding.source {
        EmbeddingSource::Text { columns } => {
            let texts = content::texts_of_items(items, columns)?;
            Ok(pretrained::text_vectors(&texts, dim, seed).into())
        }
        EmbeddingSource::Cooccurrence => {
            let items = items.num_rows();
            Ok(pretrained::cooccurrence_vectors(histories, items, dim, seed).into())
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
            let rows = order.iter().flat_map(|&row| vectors.row(row).to_vec());
            Ok(rows.collect::<Vec<f32>>().into())
        }
    }
}

/// Writes the table by encoded id: the rows of codes that no item has (padding, null, out-of-vocabulary) are zero.
pub(super) fn write(
    path: &Path,
    vectors: &[f32],
    codes: &[i32],
    cardinality: usize,
    dim: usize,
) -> Result<()> {
    /// Codes below are reserved: an item without a code of its own is out-of-vocabulary.
    const FIRST_CODE: i32 = 3;
    let mut rows = Array2::<f32>::zeros((cardinality, dim));
    for (vector, &code) in vectors
        .chunks_exact(dim)
        .zip(codes)
        .filter(|(_, code)| **code >= FIRST_CODE)
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
