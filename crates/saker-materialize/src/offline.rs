//! Writes the history of features to the offline store.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use saker_offline::{EVENT_TIMESTAMP, OfflineStore};
use saker_pipeline::{Column, Entity, Pipeline};
use saker_prepare::table;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_serving::views::MATERIALIZED;

/// Number of rows kept in memory before they are written.
const ROWS: usize = 1 << 20;

/// Writes the views of users and items at the time of the newest interaction. Also writes earlier changes of the users' columns that have
/// their own view. Returns the number of rows.
pub(super) fn write(
    pipeline: &Pipeline,
    layout: &Layout,
    store: &OfflineStore,
    (users, items): (&RecordBatch, &RecordBatch),
    newest: i32,
) -> Result<usize> {
    let views = &pipeline.store;
    let mut written = 0;
    for (entity, view, rows) in [
        (&pipeline.user, &views.user_view, users),
        (&pipeline.item, &views.item_view, items),
    ] {
        let step = Step::start(format!("offline store, view {view}"));
        let rows = snapshot(entity, rows, newest)?;
        store.remove(view, MATERIALIZED)?;
        store.append(view, MATERIALIZED, &rows)?;
        written += rows.num_rows();
        step.done(&format!("{} rows", rows.num_rows()));
    }
    let interactions = layout.data("interactions");
    let there = table::columns(&interactions)?;
    let own = |column: &&Column| column.view.is_some() && there.contains(&column.name);
    for column in pipeline.user.stored().filter(own) {
        let view = column.view.as_deref().unwrap_or_default();
        let step = Step::start(format!("offline store, view {view}"));
        store.remove(view, MATERIALIZED)?;
        let mut file = 0;
        let mut changes = 0;
        history(
            &interactions,
            &pipeline.user.id,
            &column.name,
            users,
            |rows| {
                file += 1;
                changes += rows.num_rows();
                store.append(view, &format!("{MATERIALIZED}-{file:04}"), &rows)?;
                step.say(format!("offline store, view {view}, {changes} rows"));
                Ok(())
            },
        )?;
        written += changes;
        step.done(&format!("{changes} changes of {}", column.name));
    }
    Ok(written)
}

/// The entity's id and stored columns, all at the time `seconds`.
fn snapshot(entity: &Entity, rows: &RecordBatch, seconds: i32) -> Result<RecordBatch> {
    let names = std::iter::once(entity.id.as_str()).chain(entity.stored().map(|c| c.name.as_str()));
    let mut columns = names
        .map(|name| {
            let column = rows
                .column_by_name(name)
                .with_context(|| format!("no column {name}; run `saker prepare`"))?;
            Ok((name, Arc::clone(column)))
        })
        .collect::<Result<Vec<_>>>()?;
    columns.push((EVENT_TIMESTAMP, times(&vec![seconds; rows.num_rows()])));
    table::table(columns)
}

/// The values of a user column and their times, from the interactions. These are sorted by user and time, and each holds the value before
/// it. A change is visible at the next interaction and was caused by the previous one. The last value of each user comes from `users`.
fn history(
    interactions: &Path,
    id: &str,
    column: &str,
    users: &RecordBatch,
    mut found: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let latest: std::collections::HashMap<i32, i32> = table::int32s(users, id)?
        .iter()
        .copied()
        .zip(table::int32s(users, column)?.iter().copied())
        .collect();
    let mut changes = Changes::default();
    let mut before: Option<Before> = None;
    for batch in table::stream(interactions, &[id, column, "timestamp"])? {
        let batch = batch?;
        let rows = table::int32s(&batch, id)?
            .iter()
            .zip(table::int32s(&batch, column)?)
            .zip(table::int32s(&batch, "timestamp")?);
        for ((&user, &value), &seconds) in rows {
            match &before {
                Some(last) if last.user == user => changes.note(last, value),
                Some(last) => {
                    changes.note(last, latest.get(&last.user).copied().unwrap_or(last.value))
                }
                None => {}
            }
            before = Some(Before {
                user,
                value,
                seconds,
            });
        }
        if changes.users.len() >= ROWS {
            found(std::mem::take(&mut changes).table(id, column)?)?;
        }
    }
    if let Some(last) = &before {
        changes.note(last, latest.get(&last.user).copied().unwrap_or(last.value));
    }
    if !changes.users.is_empty() {
        found(changes.table(id, column)?)?;
    }
    Ok(())
}

/// An interaction and the value before it.
struct Before {
    user: i32,
    value: i32,
    seconds: i32,
}

#[derive(Default)]
struct Changes {
    users: Vec<i32>,
    values: Vec<i32>,
    seconds: Vec<i32>,
}

impl Changes {
    /// Records the value after the interaction `last`.
    fn note(&mut self, last: &Before, value: i32) {
        if value != last.value {
            self.users.push(last.user);
            self.values.push(value);
            self.seconds.push(last.seconds);
        }
    }

    fn table(self, id: &str, column: &str) -> Result<RecordBatch> {
        let times = times(&self.seconds);
        table::table(vec![
            (id, table::int32(self.users)),
            (column, table::int32(self.values)),
            (EVENT_TIMESTAMP, times),
        ])
    }
}

fn times(seconds: &[i32]) -> ArrayRef {
    let micros = seconds
        .iter()
        .map(|&seconds| i64::from(seconds) * 1_000_000);
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;

    use super::*;

    #[test]
    fn a_change_is_dated_by_the_interaction_that_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("interactions.parquet");
        let rows = [
            // user, category before, time
            (7, -1, 10),
            (7, 3, 20),
            (7, 3, 30),
            (7, 5, 40),
            (9, -1, 15),
            (11, 2, 50),
        ];
        let column = |of: fn(&(i32, i32, i32)) -> i32| table::int32(rows.iter().map(of).collect());
        let interactions = table::table(vec![
            ("user_id", column(|row| row.0)),
            ("top_category", column(|row| row.1)),
            ("timestamp", column(|row| row.2)),
        ])
        .unwrap();
        table::write(&path, &interactions).unwrap();
        let users = table::table(vec![
            ("user_id", table::int32(vec![7, 9, 11])),
            ("top_category", table::int32(vec![6, 4, 2])),
        ])
        .unwrap();
        let mut found = Vec::new();
        history(&path, "user_id", "top_category", &users, |batch| {
            let times = batch.column_by_name(EVENT_TIMESTAMP).unwrap();
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let users = table::int32s(&batch, "user_id")?;
            let values = table::int32s(&batch, "top_category")?;
            found.extend((0..users.len()).map(|row| (users[row], values[row], times.value(row))));
            Ok(())
        })
        .unwrap();
        let expected = [(7, 3, 10), (7, 5, 30), (7, 6, 40), (9, 4, 15)];
        assert_eq!(
            found,
            expected.map(|(user, value, seconds)| (user, value, seconds * 1_000_000))
        );
    }
}
