//! The encoded features of `saker prepare`, as training reads them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::{Array, RecordBatch};
use ndarray::Array2;
use saker_pipeline::Pipeline;
use saker_prepare::table;
use saker_serving::layout::{FeatureSchema, Layout, Schema};
use saker_train::data::{
    Categorical, Codes, Continuous, Dataset, Interactions, Numbers, OUT_OF_VOCABULARY, Pretrained,
    Split, Table,
};

use saker_prepare::PARTS;

/// Reads `features/schema.json`.
///
/// # Errors
/// Returns an error if the file is missing or damaged; the message names `saker prepare`.
pub fn schema(layout: &Layout) -> Result<Schema> {
    let path = layout.schema();
    let text = fs::read(&path)
        .with_context(|| format!("cannot read {}; run `saker prepare`", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged; run `saker prepare --force`", path.display()))
}

/// Reads all files in `features/`, in batches of rows. The columns are kept in memory in their narrowest type.
///
/// # Errors
/// Returns an error if a file is missing or does not match the others; the message names `saker prepare`.
pub fn read(layout: &Layout) -> Result<Dataset> {
    let schema = schema(layout)?;
    let all = |name, features: &[FeatureSchema]| -> Result<Table> {
        let mut encoded = empty(features);
        let names: Vec<&str> = features
            .iter()
            .map(|feature| feature.name.as_str())
            .collect();
        each_part(&layout.features(name), &names, |rows| {
            extend(&mut encoded, rows)
        })?;
        Ok(encoded)
    };
    let path = layout.features("interactions");
    let there = table::columns(&path).with_context(again)?;
    let then: Vec<FeatureSchema> = schema
        .user
        .iter()
        .filter(|feature| there.contains(&feature.name))
        .cloned()
        .collect();
    let (mut context, mut users_then) = (empty(&schema.context), empty(&then));
    let mut interactions = Interactions::default();
    let names = ["user_row", "item_row", "timestamp", "label", "split"];
    let features = schema.context.iter().chain(&then);
    let names: Vec<&str> = names
        .into_iter()
        .chain(features.map(|feature| feature.name.as_str()))
        .collect();
    each_part(&path, &names, |rows| {
        extend(&mut context, rows)?;
        extend(&mut users_then, rows)?;
        extend_interactions(&mut interactions, rows)
    })?;
    let dataset = Dataset {
        users: all("users", &schema.user)?,
        items: all("items", &schema.item)?,
        context,
        users_then,
        pretrained: schema
            .embeddings
            .iter()
            .map(|(name, &dim)| pretrained(layout, name, dim))
            .collect::<Result<_>>()?,
        interactions,
        user_id: schema.user_id,
        item_id: schema.item_id,
    };
    dataset
        .validate()
        .context("the prepared features do not fit each other; run `saker prepare --force`")?;
    Ok(dataset)
}

fn again() -> &'static str {
    "run `saker prepare --force`"
}

/// Calls `take` for each batch of rows.
fn each_part(
    path: &Path,
    columns: &[&str],
    mut take: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut read = || -> Result<()> {
        for rows in table::stream(path, columns)? {
            take(&rows?).with_context(|| path.display().to_string())?;
        }
        Ok(())
    };
    read().with_context(again)
}

fn extend_interactions(interactions: &mut Interactions, rows: &RecordBatch) -> Result<()> {
    let numbers = |name| -> Result<_> {
        let column = table::int32s(rows, name)?;
        Ok(column.iter().map(|&row| row as u32))
    };
    interactions.user.extend(numbers("user_row")?);
    interactions.item.extend(numbers("item_row")?);
    let times = table::int32s(rows, "timestamp")?;
    interactions.timestamp.extend_from_slice(times);
    let labels = table::float32s(rows, "label")?;
    interactions
        .positive
        .extend(labels.iter().map(|&label| label == 1.0));
    interactions
        .weak
        .extend(labels.iter().map(|&label| label > 0.0 && label < 1.0));
    let parts = table::texts(rows, "split")?;
    for row in 0..parts.len() {
        let split = match PARTS.iter().position(|part| *part == parts.value(row)) {
            Some(0) => Split::Train,
            Some(1) => Split::Validation,
            Some(2) => Split::Test,
            _ => {
                return Err(anyhow!(
                    "split \"{}\"; accepted: {}",
                    parts.value(row),
                    PARTS.join(", ")
                ));
            }
        };
        interactions.split.push(split);
    }
    Ok(())
}

/// A table of these features without rows.
fn empty(features: &[FeatureSchema]) -> Table {
    let mut table = Table::default();
    for feature in features {
        let name = feature.name.clone();
        match feature.cardinality {
            Some(cardinality) => table.categorical.push(Categorical {
                name,
                cardinality,
                embedding_dim: feature.embedding_dim,
                cold_start: feature.cold_start as i32,
                codes: Codes::with_cardinality(cardinality),
            }),
            None => table.continuous.push(Continuous {
                name,
                cold_start: feature.cold_start,
                values: Numbers::default(),
            }),
        }
    }
    table
}

/// Adds rows to every column of a table.
fn extend(table: &mut Table, rows: &RecordBatch) -> Result<()> {
    for column in &mut table.categorical {
        column.codes.extend(table::int32s(rows, &column.name)?);
    }
    for column in &mut table.continuous {
        column.values.extend(table::float32s(rows, &column.name)?);
    }
    table.rows += rows.num_rows();
    Ok(())
}

/// The items with their own code. Items without training interactions share codes, so retrieval could not tell them apart.
pub struct KnownItems {
    /// The encoded features of all items.
    pub encoded: RecordBatch,
    /// Rows of the known items in `encoded`.
    pub rows: Vec<usize>,
    /// Their raw ids.
    pub ids: Vec<i64>,
}

impl KnownItems {
    /// Reads the prepared items.
    ///
    /// # Errors
    /// Returns an error if the tables are missing or damaged, or come from two different runs of `saker prepare`.
    pub fn read(pipeline: &Pipeline, layout: &Layout) -> Result<Self> {
        let raw = table::read(&layout.data("items"))?;
        let encoded = table::read(&layout.features("items"))?;
        let ids = table::int32s(&raw, &pipeline.item.id)?;
        let codes = table::int32s(&encoded, &pipeline.item.id)?;
        ensure!(
            ids.len() == codes.len(),
            "{} has {} items, {} has {}; run `saker prepare --force`",
            layout.data("items").display(),
            ids.len(),
            layout.features("items").display(),
            codes.len()
        );
        let known = |&row: &usize| codes[row] > OUT_OF_VOCABULARY;
        let rows: Vec<usize> = (0..codes.len()).filter(known).collect();
        let ids = rows.iter().map(|&row| i64::from(ids[row])).collect();
        Ok(Self { encoded, rows, ids })
    }
}

/// Reads an embedding table: the row number is the encoded item id.
///
/// # Errors
/// Returns an error if the file is missing or damaged; the message names `saker prepare`.
pub fn embedding_table(layout: &Layout, name: &str) -> Result<Array2<f32>> {
    let path = layout.table(name);
    ndarray_npy::read_npy(&path).with_context(|| {
        format!(
            "{} cannot be read; run `saker prepare --force`",
            path.display()
        )
    })
}

fn pretrained(layout: &Layout, name: &str, dim: usize) -> Result<Pretrained> {
    Ok(Pretrained {
        name: name.to_owned(),
        dim,
        values: embedding_table(layout, name)?.into_iter().collect(),
    })
}
