//! What serving wrote of a user column, when it did: from the offline store.

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, TimeUnit, TimestampSecondType};
use chrono::NaiveDate;
use saker_offline::{EVENT_TIMESTAMP, OfflineStore};
use saker_pipeline::{Column, Pipeline};

use crate::layout::Layout;
use crate::materialize;

/// A user id, Unix seconds, the value since then.
pub(super) type Row = (i32, i32, i32);

/// The values of a column that serving wrote.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Ascending.
    rows: Vec<Row>,
}

impl Served {
    /// Reads a column's view, without what `saker materialize` wrote there: that follows from the events and says nothing new.
    pub(super) fn read(pipeline: &Pipeline, layout: &Layout, column: &Column) -> Result<Self> {
        let Some(view) = &column.view else {
            return Ok(Self::default());
        };
        let store = OfflineStore::open(&materialize::offline_store(pipeline, layout))?;
        let mut rows = Vec::new();
        let days = NaiveDate::MIN..=NaiveDate::MAX;
        store
            .read_files(
                view,
                days,
                |name| !name.starts_with(materialize::OFFLINE_FILES),
                |batch| add(&mut rows, &batch, &pipeline.user.id, &column.name),
            )
            .with_context(|| format!("offline store, view {view}"))?;
        rows.sort_unstable();
        Ok(Self { rows })
    }

    /// The rows of a user id.
    pub(super) fn of(&self, user: i32) -> &[Row] {
        let from = self.rows.partition_point(|row| row.0 < user);
        let to = self.rows.partition_point(|row| row.0 <= user);
        &self.rows[from..to]
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn add(rows: &mut Vec<Row>, batch: &RecordBatch, id: &str, column: &str) -> Result<()> {
    let read = |name: &str, kind: &DataType| {
        let column = batch
            .column_by_name(name)
            .with_context(|| format!("there is no column {name}"))?;
        cast(column, kind).with_context(|| format!("column {name} is no {kind}"))
    };
    let users = read(id, &DataType::Int32)?;
    let values = read(column, &DataType::Int32)?;
    let times = read(
        EVENT_TIMESTAMP,
        &DataType::Timestamp(TimeUnit::Second, None),
    )?;
    let (users, values) = (
        users.as_primitive::<Int32Type>(),
        values.as_primitive::<Int32Type>(),
    );
    let times = times.as_primitive::<TimestampSecondType>();
    for row in 0..batch.num_rows() {
        // A view may hold other columns, of which a row need not have each.
        if users.is_valid(row) && values.is_valid(row) && times.is_valid(row) {
            let seconds = i32::try_from(times.value(row)).with_context(|| {
                format!(
                    "{EVENT_TIMESTAMP} {} is no second of Int32",
                    times.value(row)
                )
            })?;
            rows.push((users.value(row), seconds, values.value(row)));
        }
    }
    Ok(())
}
