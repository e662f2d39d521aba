//! Reads from the offline store what serving wrote: values of user columns, and visitors' events.

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::DataType;
use chrono::NaiveDate;
use saker_offline::{EVENT_TIMESTAMP, EVENTS, OfflineStore};
use saker_pipeline::{Column, Interactions, Pipeline, Unit};
use saker_serving::layout::Layout;
use saker_serving::views;

use crate::table;
use crate::values::Values;

/// A user id, Unix seconds, the value from that time on.
pub(crate) type Row = (i32, i32, i32);

/// The values of a column that serving wrote.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// In ascending order.
    rows: Vec<Row>,
}

impl Served {
    /// Reads a column's view, without the rows of `saker materialize`: these were computed from the same events.
    pub(crate) fn read(pipeline: &Pipeline, layout: &Layout, column: &Column) -> Result<Self> {
        let Some(view) = &column.view else {
            return Ok(Self::default());
        };
        let store = OfflineStore::open(&views::offline_store(pipeline, layout))?;
        let mut rows = Vec::new();
        let days = NaiveDate::MIN..=NaiveDate::MAX;
        store
            .read_files(
                view,
                days,
                |name| !name.starts_with(views::MATERIALIZED),
                |batch| add(&mut rows, &batch, &pipeline.user.id, &column.name),
            )
            .with_context(|| format!("offline store, view {view}"))?;
        rows.sort_unstable();
        Ok(Self { rows })
    }

    /// The rows of a user id.
    pub(crate) fn of(&self, user: i32) -> &[Row] {
        let from = self.rows.partition_point(|row| row.0 < user);
        let to = self.rows.partition_point(|row| row.0 <= user);
        &self.rows[from..to]
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// The files of serving that [`crate::encode_again`] reads: views, days and names. An existing file never changes.
pub fn files(pipeline: &Pipeline, layout: &Layout) -> Result<Vec<String>> {
    let store = OfflineStore::open(&views::offline_store(pipeline, layout))?;
    let columns = pipeline.user.stored();
    let views = columns.filter_map(|column| column.view.as_deref());
    let mut files = Vec::new();
    for view in views.chain([EVENTS]) {
        for day in store.days(view)? {
            let names = store.names(view, day)?.into_iter();
            let served = names.filter(|name| !name.starts_with(views::MATERIALIZED));
            files.extend(served.map(|name| format!("{view}/{day}/{name}")));
        }
    }
    Ok(files)
}

/// Visitors' events, as the updater wrote them, with the columns of the definition's source. Returns none if the definition does not
/// rate kinds of events.
pub(crate) fn events(
    pipeline: &Pipeline,
    layout: &Layout,
    of: &Interactions,
) -> Result<Vec<RecordBatch>> {
    if of.rating.is_some() && of.ratings.is_none() {
        tracing::info!(
            "the visitors' events are left out, because data.interactions.ratings does not rate clicks"
        );
        return Ok(Vec::new());
    }
    let store = OfflineStore::open(&views::offline_store(pipeline, layout))?;
    let mut batches = Vec::new();
    let days = NaiveDate::MIN..=NaiveDate::MAX;
    store
        .read(EVENTS, days, |batch| {
            batches.push(as_in_source(pipeline, of, &batch)?);
            anyhow::Ok(())
        })
        .with_context(|| format!("offline store, view {EVENTS}"))?;
    Ok(batches)
}

fn as_in_source(
    pipeline: &Pipeline,
    of: &Interactions,
    batch: &RecordBatch,
) -> Result<RecordBatch> {
    let read = |name: &str| {
        let column = batch.column_by_name(name);
        column.with_context(|| format!("there is no column {name}"))
    };
    let (user, item) = (&pipeline.user.id, &pipeline.item.id);
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (of.user.as_deref().unwrap_or(user), read(user)?.clone()),
        (of.item.as_deref().unwrap_or(item), read(item)?.clone()),
        // A timestamp has its own unit, so the unit of the source's numbers does not apply.
        (&of.timestamp, read(EVENT_TIMESTAMP)?.clone()),
    ];
    if let Some(rating) = &of.rating {
        columns.push((rating, read("event_type")?.clone()));
    }
    for column in &pipeline.context.columns {
        let source = column.source();
        if columns.iter().any(|(name, _)| *name == source) {
            continue;
        }
        // An event has only its device as context.
        let unknown = || new_null_array(&DataType::Int32, batch.num_rows());
        let known = batch.column_by_name(source).cloned();
        columns.push((source, known.unwrap_or_else(unknown)));
    }
    table::table(columns)
}

fn add(rows: &mut Vec<Row>, batch: &RecordBatch, id: &str, column: &str) -> Result<()> {
    let read = |name: &str| {
        let column = batch.column_by_name(name);
        let column = column.with_context(|| format!("there is no column {name}"))?;
        Values::of(column).with_context(|| format!("column {name}"))
    };
    let (users, values, times) = (read(id)?, read(column)?, read(EVENT_TIMESTAMP)?);
    for row in 0..batch.num_rows() {
        let place = |name: &str| format!("column {name}, row {}", row + 1);
        let user = users.value(row).int32().with_context(|| place(id))?;
        let value = values.value(row).int32().with_context(|| place(column))?;
        let time = times.value(row).unix_seconds(Unit::S);
        let time = time.with_context(|| place(EVENT_TIMESTAMP))?;
        // A view may have more columns, and a row may lack some of them.
        if let (Some(user), Some(value), Some(time)) = (user, value, time) {
            rows.push((user, time, value));
        }
    }
    Ok(())
}
