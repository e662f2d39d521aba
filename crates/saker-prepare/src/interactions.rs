//! Writes the events in order of user and time: each with its part of the split and with the user's state before it.

use crate::table;
use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use saker_bulk::{Engine, Writer};
use saker_pipeline::{Column, Default as Fallback, Derive, Entity, Pipeline};
use saker_serving::layout::Layout;

use crate::clean::{self, ITEM, Met, RATING, Sorted, TIME, USER};
use crate::columns::{Cleaned, Entities};
use crate::derive::{Recent, most_frequent};
use crate::serving_log::Served;
use crate::split::{PARTS, parts};

/// Counts and derived columns of all events.
pub(crate) struct Events {
    /// Events of the training, validation and test part.
    pub(crate) counts: [usize; 3],
    /// Training events of each user.
    pub(crate) of_users: Vec<u32>,
    /// Training events of each item.
    pub(crate) of_items: Vec<u32>,
    /// User columns that are derived from the user's events.
    top: Vec<Top>,
}

/// A user column that is the most frequent category of recent items.
struct Top {
    column: Column,
    /// Category of each item; `None` where it has none.
    categories: Vec<Option<i32>>,
    window: Window,
    /// Value of each user: the latest one.
    values: Vec<Option<i32>>,
    /// The values that serving wrote.
    served: Served,
}

impl Top {
    /// The value before the first event. The definition's validation accepts only a number here.
    fn default(&self) -> i32 {
        match self.column.default {
            Fallback::Number(number) => number as i32,
            Fallback::Word(_) => -1,
        }
    }
}

impl Top {
    /// The value after a user's last training events.
    fn of_last(&self, last: usize, items: &[i32], of_part: &[usize]) -> Option<i32> {
        let training = of_part.iter().zip(items).filter(|(part, _)| **part == 0);
        let latest = training.rev().take(last);
        most_frequent(latest.filter_map(|(_, &item)| self.categories[item as usize]))
    }

    /// The value after the last of a user's events. Appends the value before each event to `met_values`.
    fn of_seconds(
        &self,
        seconds: i32,
        user_id: i32,
        (times, items): (&[i32], &[i32]),
        met_values: &mut Vec<i32>,
    ) -> Option<i32> {
        let default = self.default();
        let mut recent = Recent::new(seconds, self.served.of(user_id));
        for (&time, &item) in times.iter().zip(items) {
            let before = recent.before_offer(time, item);
            met_values.push(before.unwrap_or(default));
            recent.add(time, item, self.categories[item as usize]);
        }
        recent.latest()
    }
}

/// The events that count as recent.
enum Window {
    /// The last training events, this many.
    Last(usize),
    /// At each moment, the events of this many seconds before it.
    Seconds(i32),
}

/// Writes `data/interactions.parquet`.
pub(crate) fn write(
    pipeline: &Pipeline,
    engine: &Engine,
    layout: &Layout,
    sorted: Sorted,
    (users, items): (&Entities, &Entities),
    served: impl Fn(&Column) -> Result<Served>,
    mut progress: impl FnMut(u64),
) -> Result<Events> {
    let mut events = Events {
        counts: [0; 3],
        of_users: vec![0; users.ids.len()],
        of_items: vec![0; items.ids.len()],
        top: tops(&pipeline.user, users, items),
    };
    for top in &mut events.top {
        top.served = served(&top.column)?;
    }
    let Sorted {
        plan,
        mut arriving,
        schema,
        met,
    } = sorted;
    let is_in_order = arriving.is_none();
    let mut rest = RecordBatch::new_empty(schema.clone());
    let mut writer = Writer::new(&layout.data("interactions"));
    let mut complete = |events: &mut Events, rows: &RecordBatch| -> Result<()> {
        let table = match is_in_order {
            true => events.complete(pipeline, rows, &met, users, items)?,
            false => events.complete(pipeline, &clean::in_order(rows)?, &met, users, items)?,
        };
        Ok(writer.write(&table)?)
    };
    complete(&mut events, &rest)?;
    engine.run(plan, &mut progress, |batch| -> Result<()> {
        let batch = match &mut arriving {
            None => batch,
            Some(arriving) => arriving.clean(&batch)?,
        };
        let all = concat_batches(&schema, [&rest, &batch])?;
        // The last user may have more events in the next batch.
        let of = table::int32s(&all, USER)?;
        let whole = of.partition_point(|user| Some(user) < of.last());
        rest = all.slice(whole, all.num_rows() - whole);
        complete(&mut events, &all.slice(0, whole))
    })?;
    complete(&mut events, &rest)?;
    writer.finish()?;
    Ok(events)
}

/// Ids, time, rating and context of cleaned rows, under their names in `data/interactions.parquet`.
fn event_columns<'a>(
    pipeline: &'a Pipeline,
    rows: &RecordBatch,
    users: &Entities,
    items: &Entities,
) -> Result<Vec<(&'a str, ArrayRef)>> {
    let ids = |entities: &Entities, name| -> Result<ArrayRef> {
        let rows = table::int32s(rows, name)?.iter();
        let ids = rows.map(|&row| entities.ids[row as usize]);
        Ok(table::int32(ids.collect()))
    };
    let mut columns = vec![
        (pipeline.user.id.as_str(), ids(users, USER)?),
        (pipeline.item.id.as_str(), ids(items, ITEM)?),
        (TIME, cleaned(rows, TIME)?),
        (RATING, cleaned(rows, RATING)?),
    ];
    for column in &pipeline.context.columns {
        if clean::is_time(column) && column.name != TIME {
            columns.push((column.name.as_str(), cleaned(rows, TIME)?));
        }
    }
    for column in clean::context_columns(pipeline) {
        let name = clean::context_name(&column.name);
        columns.push((column.name.as_str(), cleaned(rows, &name)?));
    }
    Ok(columns)
}

fn cleaned(rows: &RecordBatch, name: &str) -> Result<ArrayRef> {
    let column = rows.column_by_name(name).cloned();
    column.with_context(|| format!("cleaned interactions have no column {name}"))
}

fn tops(entity: &Entity, users: &Entities, items: &Entities) -> Vec<Top> {
    let mut tops = Vec::new();
    for column in &entity.columns {
        let Some(Derive::TopOfRecent {
            column: category,
            last,
            hours,
        }) = &column.derive
        else {
            continue;
        };
        let category = items.columns.get(category);
        let of = |item| category.and_then(|category| category.number(item));
        tops.push(Top {
            column: column.clone(),
            categories: (0..items.ids.len())
                .map(|item| Some(of(item)? as i32))
                .collect(),
            window: match hours {
                Some(hours) => Window::Seconds(*hours as i32 * 3600),
                None => Window::Last(last.unwrap_or(1)),
            },
            values: vec![None; users.ids.len()],
            served: Served::default(),
        });
    }
    tops
}

impl Events {
    /// All events that were kept.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The rows of `data/interactions.parquet` for all events of some users.
    fn complete(
        &mut self,
        pipeline: &Pipeline,
        rows: &RecordBatch,
        met: &Met,
        users: &Entities,
        items: &Entities,
    ) -> Result<RecordBatch> {
        let (of_users, of_items) = (table::int32s(rows, USER)?, table::int32s(rows, ITEM)?);
        let times = table::int32s(rows, TIME)?;
        let mut of_part = Vec::with_capacity(rows.num_rows());
        let mut met_values: Vec<Vec<i32>> = vec![Vec::new(); self.top.len()];
        let mut first = 0;
        for of_user in of_users.chunk_by(|a, b| a == b) {
            let span = first..first + of_user.len();
            first = span.end;
            let user = of_user[0] as usize;
            let (times, items) = (&times[span.clone()], &of_items[span]);
            let parts_from = of_part.len();
            of_part.extend(parts(times, met.latest(), pipeline.split.parts()));
            let of_part = &of_part[parts_from..];
            self.count(user, items, of_part);
            for (top, met_values) in self.top.iter_mut().zip(&mut met_values) {
                top.values[user] = match top.window {
                    Window::Last(last) => top.of_last(last, items, of_part),
                    Window::Seconds(seconds) => {
                        let id = users.ids[user];
                        top.of_seconds(seconds, id, (times, items), met_values)
                    }
                };
            }
        }
        let mut columns = event_columns(pipeline, rows, users, items)?;
        for (top, values) in self.top.iter().zip(met_values) {
            if top.column.at_event() {
                columns.push((top.column.name.as_str(), table::int32(values)));
            }
        }
        let of_part = of_part.iter().map(|&part| PARTS[part].to_owned());
        columns.push(("split", table::text(of_part.collect())));
        table::table(columns)
    }

    /// Counts a user's events by part, and those of the training part by user and item.
    fn count(&mut self, user: usize, items: &[i32], of_part: &[usize]) {
        for (&part, &item) in of_part.iter().zip(items) {
            self.counts[part] += 1;
            if part == 0 {
                self.of_users[user] += 1;
                self.of_items[item as usize] += 1;
            }
        }
    }

    /// Fills an entity's derived columns.
    pub(crate) fn derive(&self, entity: &Entity, events: &[u32], of: &mut Entities) {
        for column in &entity.columns {
            let values: Vec<Option<i32>> = match &column.derive {
                None => continue,
                Some(Derive::InteractionCount) => {
                    events.iter().map(|&events| Some(events as i32)).collect()
                }
                Some(Derive::TopOfRecent { .. }) => {
                    let mut tops = self.top.iter();
                    match tops.find(|top| top.column.name == column.name) {
                        Some(top) => top.values.clone(),
                        None => continue,
                    }
                }
            };
            of.columns
                .insert(column.name.clone(), Cleaned::numbers(column.kind, values));
        }
    }
}
