//! Preparing a dataset: tables and features by [`saker_prepare`], on this machine or with a cluster, then the embedding tables.

use std::fs::File;

use anyhow::{Context, Result};
use saker_bulk::Settings;
use saker_pipeline::Pipeline;
use saker_prepare::up_to_date::Fingerprint;
use saker_serving::layout::{Layout, Schema};

use crate::embeddings;

pub use saker_prepare::{Summary, encode_again, made, served_files};

/// The hash over all that preparing reads, and over the code of the hash `code`.
///
/// # Errors
/// A file is missing.
pub fn fingerprint(pipeline: &Pipeline, code: &str) -> Result<String> {
    let mut fingerprint = Fingerprint::of_code(code)
        .value(saker_prepare::data(pipeline)?)?
        .value(&pipeline.split)?
        .value(&pipeline.user)?
        .value(&pipeline.context)?
        .value(&pipeline.item)?;
    for file in saker_prepare::inputs(pipeline)? {
        fingerprint = fingerprint.file(&file.path)?.value(&file.partition)?;
    }
    for path in embeddings::files(pipeline)? {
        fingerprint = fingerprint.file(&path)?;
    }
    Ok(fingerprint.finish())
}

/// Prepares a pipeline's data, features and embedding tables on this machine, within the bounds of `settings`.
///
/// # Errors
/// The source cannot be read or holds what the definition does not accept; the message names file, column, row and value.
pub fn prepare(pipeline: &Pipeline, layout: &Layout, settings: Settings) -> Result<Summary> {
    let summary = saker_prepare::prepare(pipeline, layout, settings.clone(), None)?;
    complete(pipeline, layout, &settings)?;
    Ok(summary)
}

/// Writes the embedding tables, the last part of preparing.
///
/// # Errors
/// A table's source cannot be read, or does not fit the items.
pub fn complete(pipeline: &Pipeline, layout: &Layout, settings: &Settings) -> Result<()> {
    let path = layout.schema_without_tables();
    let cannot = || format!("cannot read {}", path.display());
    let schema = File::open(&path).with_context(cannot)?;
    let schema: Schema = serde_json::from_reader(schema).with_context(cannot)?;
    embeddings::write_all(pipeline, layout, &schema, settings)?;
    saker_prepare::complete(layout)
}
