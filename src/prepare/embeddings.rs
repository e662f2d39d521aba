//! Embedding tables of the items: computed here or read from a file, rows = encoded ids.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, RecordBatch};
use ndarray::Array2;
use saker_pipeline::{Embedding, EmbeddingSource, Pipeline};
use saker_train::pretrained;

use crate::table;

/// Files that the definition's embeddings are read from.
pub(super) fn files(pipeline: &Pipeline) -> impl Iterator<Item = &String> {
    pipeline
        .item
        .embeddings
        .iter()
        .filter_map(|embedding| match &embedding.source {
            EmbeddingSource::File { path } => Some(path),
            _ => None,
        })
}

/// The vectors of all items, row-major f32 [items, dim], row i for row i of `items`, which is row `order[i]` of the source.
pub(super) fn vectors(
    pipeline: &Pipeline,
    embedding: &Embedding,
    items: &RecordBatch,
    order: &[usize],
    histories: &[Vec<u32>],
) -> Result<Vec<f32>> {
    let (dim, seed) = (embedding.dim, pipeline.training.seed);
    match &embedding.source {
        EmbeddingSource::Text { columns } => {
            let columns = columns
                .iter()
                .map(|name| table::texts(items, name))
                .collect::<Result<Vec<_>>>()?;
            let text = |row| {
                columns
                    .iter()
                    .map(|column| column.value(row))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let texts: Vec<String> = (0..items.num_rows()).map(text).collect();
            debug_assert!(columns.iter().all(|column| column.null_count() == 0));
            Ok(pretrained::text_vectors(&texts, dim, seed))
        }
        EmbeddingSource::Cooccurrence => Ok(pretrained::cooccurrence_vectors(
            histories,
            items.num_rows(),
            dim,
            seed,
        )),
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
            Ok(order
                .iter()
                .flat_map(|&row| vectors.row(row).to_vec())
                .collect())
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
