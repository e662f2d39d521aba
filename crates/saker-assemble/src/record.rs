//! The part of a release's manifest that describes the run that made it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use saker_contract::Step;
use saker_models::finetune;
use saker_serving::layout::Layout;
use saker_serving::releases::record::{Record, Window};
use serde_json::Value;

/// Collects the records of the other commands; a missing one is `None`.
///
/// # Errors
/// Returns an error if an existing file cannot be read.
pub(super) fn of(layout: &Layout) -> Result<Record> {
    let interactions = layout.data("interactions");
    let finetuned = finetune::rounds(layout)?;
    let mut data = match interactions.is_file() {
        true => window(&interactions)?,
        false => None,
    };
    if let (Some(data), Some(last)) = (&mut data, finetuned.last()) {
        data.last = data.last.max(i64::from(last.until));
    }
    let finetuned: Vec<Value> = finetuned
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()
        .context("the fine-tunings as JSON")?;
    Ok(Record {
        data,
        finetuned,
        metrics: metrics(layout)?,
        labels: BTreeMap::new(),
    })
}

/// The metrics of these models. A file that is older than the models belongs to others and is ignored.
///
/// # Errors
/// Returns an error if the file is damaged.
pub fn metrics(layout: &Layout) -> Result<Option<Value>> {
    let path = layout.metrics();
    let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let measured = written(&path);
    if measured.is_none() || measured < written(&layout.model(Step::Ranking.model())) {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let metrics = serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged; run `saker evaluate`", path.display()))?;
    Ok(Some(metrics))
}

/// The training rows' timestamps; only these two columns are read.
fn window(path: &Path) -> Result<Option<Window>> {
    let damaged = || format!("{} is not a readable table of interactions", path.display());
    let file = File::open(path).with_context(damaged)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(damaged)?;
    let columns = ["timestamp", "split"];
    if columns
        .iter()
        .any(|name| builder.schema().column_with_name(name).is_none())
    {
        return Ok(None);
    }
    let projection = ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut window: Option<Window> = None;
    for batch in builder
        .with_projection(projection)
        .build()
        .with_context(damaged)?
    {
        let batch = batch.with_context(damaged)?;
        let times = batch.column_by_name("timestamp");
        let times = times.and_then(|column| column.as_primitive_opt::<Int32Type>());
        let splits = batch
            .column_by_name("split")
            .and_then(|column| column.as_string_opt::<i32>());
        let (Some(times), Some(splits)) = (times, splits) else {
            return Ok(None);
        };
        for row in (0..batch.num_rows()).filter(|&row| times.is_valid(row)) {
            if splits.value(row) != "train" {
                continue;
            }
            let time = i64::from(times.value(row));
            let window = window.get_or_insert(Window {
                first: time,
                last: time,
                interactions: 0,
            });
            window.first = window.first.min(time);
            window.last = window.last.max(time);
            window.interactions += 1;
        }
    }
    Ok(window)
}
