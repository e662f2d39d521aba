//! The fused ensemble: the same answer as the 14 steps', from the single step `fused_recommendation`.
//!
//! The ranker is derived from the exported one: see [`saker_train::onnx::hoist`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ndarray::{Array1, Axis};
use saker_contract::Step;
use saker_contract::artefact::{HOISTED, HOISTED_IDS, HOISTED_MODEL, HOISTED_TABLES};
use saker_contract::ensemble::FUSED;
use saker_contract::tensor::DEGRADED;
use saker_dataset::features::{KnownItems, embedding_table};
use saker_pipeline::{FeatureKind, Pipeline};
use saker_prepare::table;
use saker_prepare::up_to_date::{self, Fingerprint};
use saker_serving::defaults::Defaults;
use saker_serving::files::write;
use saker_serving::layout::Layout;
use saker_train::onnx::{self, Items};

use super::pbtxt::{DataType, ModelConfig, Tensor};
use super::steps::{
    Steps, answer_of_release, data_type, filter_parameters, lookup_parameters, max_users,
    onnxruntime_parameters, request_defaults, retrieval_parameters, wire,
};

/// Version of the hoisted files; a change makes `saker assemble` build them again.
const FORMAT: u32 = 2;

/// The models of the fused ensemble that the 14 steps lack, and the ensemble as the last one.
///
/// # Errors
/// Returns an error if `defaults` lacks a default.
pub fn models(pipeline: &Pipeline, defaults: &Defaults, version: u64) -> Result<Vec<ModelConfig>> {
    let mut steps = Steps::new(pipeline, version);
    let user_id = pipeline.user.id.as_str();
    let given = |name: &str| name.to_owned();

    let mut inputs = wire([Tensor::column(user_id, DataType::Int32).optional()], given);
    let moment = pipeline.context.columns.iter();
    inputs.extend(wire(
        moment.map(|column| Tensor::column(&column.name, data_type(column)).optional()),
        given,
    ));
    let mut parameters = lookup_parameters(pipeline, &pipeline.user, &defaults.user)?;
    let filter = filter_parameters(pipeline);
    // The step reads the store for each request, and reads the seen items on the same connection.
    parameters.remove("MODE");
    parameters.remove("REFRESH_SECONDS");
    for (key, value) in filter {
        let key = match key.as_str() {
            "REDIS_URL" => "SEEN_URL".to_owned(),
            "MODE" => "SEEN_MODE".to_owned(),
            _ => key,
        };
        parameters.insert(key, value);
    }
    let columns = pipeline.user.stored().map(|column| {
        let kind = match data_type(column) {
            DataType::Fp32 => "FP32",
            _ => "INT32",
        };
        (column.name.clone(), kind.into())
    });
    let columns = serde_json::Value::Object(columns.collect());
    parameters.insert("USER_COLUMNS".to_owned(), columns.to_string());
    parameters.insert(
        "REQUEST_DEFAULTS".to_owned(),
        request_defaults(&pipeline.context.columns),
    );
    if let Some(column) = &pipeline.store.popularity_category {
        parameters.insert("CATEGORY_COLUMN".to_owned(), column.clone());
    }
    parameters.extend(retrieval_parameters(pipeline));
    parameters.extend([max_users(pipeline)]);
    parameters.insert(
        "DIVERSITY_MODE".to_owned(),
        pipeline.ranking.diversity.to_string(),
    );
    let threads = onnxruntime_parameters(pipeline).remove_entry("intra_op_thread_count");
    parameters.extend(threads);
    steps.add(Step::Fused, inputs, answer_of_fused(), parameters);
    Ok(steps.finish(FUSED))
}

/// The outputs of the step: those of the ensemble, the release's id last.
fn answer_of_fused() -> Vec<Tensor> {
    let mut tensors = answer_of_release();
    let release = tensors.len() - 1;
    tensors.insert(release, Tensor::column(DEGRADED, DataType::Int32));
    tensors
}

/// Hoists the trained ranker over the catalogue into `models/fused/`, unless the files are up to date. `code` is the hash over the
/// sources of this program.
///
/// # Errors
/// Returns an error if `saker train` did not export the ranker, if the catalogue does not match it, or if a file cannot be written.
pub(super) fn hoist(pipeline: &Pipeline, layout: &Layout, code: &str) -> Result<PathBuf> {
    let ranker = layout.model(Step::Ranking.model());
    let folder = layout.fused();
    let mut fingerprint = Fingerprint::of_code(code)
        .value(&(FORMAT, &pipeline.item))?
        .file(&ranker)?
        .file(&layout.data("items"))?
        .file(&layout.features("items"))?;
    for embedding in &pipeline.item.embeddings {
        fingerprint = fingerprint.file(&layout.table(&embedding.name))?;
    }
    let fingerprint = fingerprint.finish();
    let made = HOISTED.map(|file| folder.join(file));
    let made: Vec<&Path> = made.iter().map(PathBuf::as_path).collect();
    if up_to_date::is_current(layout, "fused", &fingerprint, &made) {
        return Ok(folder);
    }
    let (ids, items) = catalogue(pipeline, layout)?;
    let model = fs::read(&ranker).with_context(|| format!("cannot read {}", ranker.display()))?;
    let hoisted = onnx::hoist(&model, &items, HOISTED_TABLES).with_context(|| {
        format!(
            "{} cannot be hoisted for the fused ensemble; `fused = false` under [serving] does without",
            ranker.display()
        )
    })?;
    up_to_date::renew(layout, "fused", &fingerprint, || {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        write(&folder.join(HOISTED_MODEL), hoisted.model)?;
        write(&folder.join(HOISTED_TABLES), hoisted.tables)?;
        let path = folder.join(HOISTED_IDS);
        ndarray_npy::write_npy(&path, &Array1::from(ids))
            .with_context(|| format!("cannot write {}", path.display()))
    })?;
    Ok(folder)
}

/// The items in the decoder's vocabulary, in the order of the index: raw ids and encoded features.
fn catalogue(pipeline: &Pipeline, layout: &Layout) -> Result<(Vec<i64>, Items)> {
    let KnownItems {
        encoded,
        rows: known,
        ids,
    } = KnownItems::read(pipeline, layout)?;
    let codes = table::int32s(&encoded, &pipeline.item.id)?;
    let mut items = Items {
        rows: known.len(),
        ..Items::default()
    };
    for feature in &pipeline.item.features {
        let name = feature.name.clone();
        match feature.kind() {
            FeatureKind::Categorical => {
                let column = table::int32s(&encoded, &name)?;
                let column = known.iter().map(|&row| column[row]).collect();
                items.codes.insert(name, column);
            }
            FeatureKind::Continuous => {
                let column = table::float32s(&encoded, &name)?;
                let column = known.iter().map(|&row| column[row]).collect();
                items.numbers.insert(name, column);
            }
        }
    }
    let rows: Vec<usize> = known.iter().map(|&row| codes[row] as usize).collect();
    let mut vectors = BTreeMap::new();
    for embedding in &pipeline.item.embeddings {
        let table = embedding_table(layout, &embedding.name)?;
        let vector = |row: &usize| table.index_axis(Axis(0), *row).to_vec();
        vectors.insert(
            embedding.name.clone(),
            rows.iter().flat_map(vector).collect(),
        );
    }
    items.vectors = vectors;
    Ok((ids, items))
}
