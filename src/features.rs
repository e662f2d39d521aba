//! The encoded features of `saker prepare`, as the models learn from them.

use std::fs;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use ndarray::Array2;
use saker_train::data::{Categorical, Continuous, Dataset, Interactions, Pretrained, Split, Table};

use crate::layout::{FeatureSchema, Layout, Schema};
use crate::prepare::PARTS;
use crate::table;

/// Reads `features/schema.json`.
///
/// # Errors
/// It is missing or damaged; the message says to prepare.
pub fn schema(layout: &Layout) -> Result<Schema> {
    let path = layout.schema();
    let text = fs::read(&path)
        .with_context(|| format!("cannot read {}; run `saker prepare`", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged; run `saker prepare --force`", path.display()))
}

/// Reads everything under `features/`.
///
/// # Errors
/// A file is missing or does not fit the others; the message says to prepare.
pub fn read(layout: &Layout) -> Result<Dataset> {
    let schema = schema(layout)?;
    let read = |name| table::read(&layout.features(name)).context("run `saker prepare --force`");
    let (users, items, events) = (read("users")?, read("items")?, read("interactions")?);
    let rows = |name| -> Result<Vec<u32>> {
        Ok(table::int32s(&events, name)?
            .iter()
            .map(|&row| row as u32)
            .collect())
    };
    let split = |name: &str| match PARTS.iter().position(|part| *part == name) {
        Some(0) => Ok(Split::Train),
        Some(1) => Ok(Split::Validation),
        Some(2) => Ok(Split::Test),
        _ => bail!(
            "split \"{name}\" in {}; accepted: {}",
            layout.features("interactions").display(),
            PARTS.join(", ")
        ),
    };
    let parts = table::texts(&events, "split")?;
    let dataset = Dataset {
        users: encoded(&schema.user, &users)?,
        items: encoded(&schema.item, &items)?,
        context: encoded(&schema.context, &events)?,
        pretrained: schema
            .embeddings
            .iter()
            .map(|(name, &dim)| pretrained(layout, name, dim))
            .collect::<Result<_>>()?,
        interactions: Interactions {
            user: rows("user_row")?,
            item: rows("item_row")?,
            timestamp: table::int32s(&events, "timestamp")?
                .iter()
                .map(|&time| i64::from(time))
                .collect(),
            label: table::float32s(&events, "label")?.to_vec(),
            split: parts.iter().flatten().map(split).collect::<Result<_>>()?,
        },
        user_id: schema.user_id,
        item_id: schema.item_id,
    };
    dataset
        .validate()
        .context("the prepared features do not fit each other; run `saker prepare --force`")?;
    Ok(dataset)
}

fn encoded(features: &[FeatureSchema], rows: &RecordBatch) -> Result<Table> {
    let mut encoded = Table {
        rows: rows.num_rows(),
        ..Table::default()
    };
    for feature in features {
        let name = feature.name.clone();
        match feature.cardinality {
            Some(cardinality) => encoded.categorical.push(Categorical {
                cardinality,
                embedding_dim: feature.embedding_dim,
                cold_start: feature.cold_start as i32,
                codes: table::int32s(rows, &name)?.to_vec(),
                name,
            }),
            None => {
                encoded.continuous.push(Continuous {
                    values: table::float32s(rows, &name)?.to_vec(),
                    name,
                });
            }
        }
    }
    Ok(encoded)
}

fn pretrained(layout: &Layout, name: &str, dim: usize) -> Result<Pretrained> {
    let path = layout.table(name);
    let rows: Array2<f32> = ndarray_npy::read_npy(&path).with_context(|| {
        format!(
            "{} cannot be read; run `saker prepare --force`",
            path.display()
        )
    })?;
    Ok(Pretrained {
        name: name.to_owned(),
        dim,
        values: rows.into_iter().collect(),
    })
}
