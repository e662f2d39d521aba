//! The events in order of user and time: split, with the state of the user that each one met, written as they pass.

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

/// What the events leave once they have passed.
pub(crate) struct Events {
    /// Events of the training, validation and test part.
    pub(crate) counts: [usize; 3],
    /// Training events of each user.
    pub(crate) of_users: Vec<u32>,
    /// Training events of each item.
    pub(crate) of_items: Vec<u32>,
    /// Columns that follow from the user's events, by name: the user's value.
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
    /// What serving wrote of it.
    served: Served,
}

impl Top {
    /// What stands before the first event; validation lets no other default through.
    fn default(&self) -> i32 {
        match self.column.default {
            Fallback::Number(number) => number as i32,
            Fallback::Word(_) => -1,
        }
    }
}

/// What is recent.
enum Window {
    /// This many training events.
    Last(usize),
    /// Items of these seconds, at each moment.
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
        // The last user's events may go on in the next batch.
        let of = table::int32s(&all, USER)?;
        let whole = of.partition_point(|user| Some(user) < of.last());
        rest = all.slice(whole, all.num_rows() - whole);
        complete(&mut events, &all.slice(0, whole))
    })?;
    complete(&mut events, &rest)?;
    writer.finish()?;
    Ok(events)
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
            let times = &times[span.clone()];
            let parts_from = of_part.len();
            of_part.extend(parts(times, met.latest(), pipeline.split.parts()));
            let of_part = &of_part[parts_from..];
            let items = &of_items[span];
            for (&part, &item) in of_part.iter().zip(items) {
                self.counts[part] += 1;
                if part == 0 {
                    self.of_users[user] += 1;
                    self.of_items[item as usize] += 1;
                }
            }
            for (top, met_values) in self.top.iter_mut().zip(&mut met_values) {
                top.values[user] = match top.window {
                    Window::Last(last) => {
                        let training = of_part.iter().zip(items).filter(|(part, _)| **part == 0);
                        let latest = training.rev().take(last);
                        most_frequent(latest.filter_map(|(_, &item)| top.categories[item as usize]))
                    }
                    Window::Seconds(seconds) => {
                        let default = top.default();
                        let mut recent = Recent::new(seconds, top.served.of(users.ids[user]));
                        for (&time, &item) in times.iter().zip(items) {
                            let before = recent.before_offer(time, item);
                            met_values.push(before.unwrap_or(default));
                            recent.add(time, item, top.categories[item as usize]);
                        }
                        recent.latest()
                    }
                };
            }
        }

        let ids = |entities: &Entities, rows: &[i32]| -> ArrayRef {
            table::int32(rows.iter().map(|&row| entities.ids[row as usize]).collect())
        };
        let context: Vec<(&str, ArrayRef)> = pipeline
            .context
            .columns
            .iter()
            .filter(|column| clean::is_time(column) && column.name != TIME)
            .map(|column| -> Result<_> { Ok((column.name.as_str(), cleaned(rows, TIME)?)) })
            .chain(clean::context_columns(pipeline).map(|column| -> Result<_> {
                let name = clean::context_name(&column.name);
                Ok((column.name.as_str(), cleaned(rows, &name)?))
            }))
            .collect::<Result<_>>()?;
        let mut columns = vec![
            (pipeline.user.id.as_str(), ids(users, of_users)),
            (pipeline.item.id.as_str(), ids(items, of_items)),
            (TIME, cleaned(rows, TIME)?),
            (RATING, cleaned(rows, RATING)?),
        ];
        columns.extend(context);
        for (top, values) in self.top.iter().zip(met_values) {
            if top.column.at_event() {
                columns.push((top.column.name.as_str(), table::int32(values)));
            }
        }
        let of_part = of_part.iter().map(|&part| PARTS[part].to_owned());
        columns.push(("split", table::text(of_part.collect())));
        table::table(columns)
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
