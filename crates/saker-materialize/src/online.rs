//! Writes users and items to the online store, in Feast's layout.

use anyhow::Result;
use arrow::array::RecordBatch;
use saker_pipeline::{Column, ColumnType, Entity, Pipeline};
use saker_prepare::table;
use saker_serving::progress::Step;
use saker_serving::views::feature_view;
use saker_store::Connection;
use saker_store::feast::{Timestamp, Value, Writer};

/// Writes a view: one row per entity, all with the event time `time`.
pub(super) fn entities(
    pipeline: &Pipeline,
    connection: &mut Connection,
    entity: &Entity,
    view: &str,
    rows: &RecordBatch,
    time: &Timestamp,
) -> Result<()> {
    enum Values<'t> {
        Int32(&'t [i32]),
        Float32(&'t [f32]),
    }
    let step = Step::counted(format!("write view {view}"), rows.num_rows() as u64);
    let columns: Vec<&Column> = entity.stored().collect();
    let names = columns.iter().map(|column| column.name.as_str());
    let feature_view = feature_view(pipeline, entity, view, names);
    let values = columns
        .iter()
        .map(|column| {
            Ok(match column.kind {
                ColumnType::Float32 => Values::Float32(table::float32s(rows, &column.name)?),
                _ => Values::Int32(table::int32s(rows, &column.name)?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut writer = Writer::new(connection, feature_view.clone(), None);
    for (row, &id) in table::int32s(rows, &entity.id)?.iter().enumerate() {
        let values: Vec<Option<Value>> = values
            .iter()
            .map(|column| {
                Some(match column {
                    Values::Int32(values) => Value::Int32(values[row]),
                    Values::Float32(values) => Value::Float(values[row]),
                })
            })
            .collect();
        step.at(writer.write(&feature_view.id(id), &values, *time)?);
    }
    writer.finish()?;
    step.done(&format!("{} rows", rows.num_rows()));
    Ok(())
}
