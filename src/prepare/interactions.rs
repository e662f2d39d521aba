//! The events: cleaned, in order of user and time, split, and what is derived from the training part.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch};
use saker_pipeline::{ColumnType, Default as Fallback, Derive, Entity, Interactions, Pipeline};

use super::columns::{Cleaned, Entities};
use super::source::Source;
use super::split::{PARTS, parts};
use crate::table;

/// The events, all vectors of equal length.
pub(super) struct Events {
    /// Row of the user among the users.
    pub(super) users: Vec<usize>,
    /// Row of the item among the items.
    pub(super) items: Vec<usize>,
    timestamps: Vec<i32>,
    ratings: Vec<f32>,
    /// Context columns that features read, the event's time included.
    context: BTreeMap<String, ArrayRef>,
    parts: Vec<usize>,
    /// Events of users or items that the tables do not hold.
    pub(super) dropped: usize,
}

impl Events {
    pub(super) fn read(
        pipeline: &Pipeline,
        of: &Interactions,
        source: &Source,
        users: &Entities,
        items: &Entities,
    ) -> Result<Self> {
        let user_ids = source.ids(of.user.as_ref().unwrap_or(&pipeline.user.id))?;
        let item_ids = source.ids(of.item.as_ref().unwrap_or(&pipeline.item.id))?;
        let time = source.column(&of.timestamp)?;
        let rating = of
            .rating
            .as_ref()
            .map(|name| source.column(name))
            .transpose()?;

        struct Event {
            row: usize,
            user: usize,
            item: usize,
            timestamp: i32,
        }
        let mut events = Vec::with_capacity(source.rows());
        for row in 0..source.rows() {
            let (Some(user), Some(item)) = (users.row(user_ids[row]), items.row(item_ids[row]))
            else {
                continue;
            };
            let timestamp = time
                .int32(row)
                .and_then(|time| {
                    time.with_context(|| format!("row {}: an event needs a time", row + 1))
                })
                .with_context(|| format!("column {}", of.timestamp))?;
            events.push(Event {
                row,
                user,
                item,
                timestamp,
            });
        }
        // Rows are sorted by id, so equal times come in the order of ids and a rerun splits alike.
        events.sort_by_key(|event| (event.user, event.timestamp, event.item));

        let mut context = BTreeMap::new();
        let read: Vec<&str> = pipeline
            .context
            .features
            .iter()
            .flat_map(|feature| feature.columns())
            .collect();
        for column in pipeline
            .context
            .columns
            .iter()
            .filter(|column| read.contains(&column.name.as_str()))
        {
            if column.default == Fallback::Word("now".to_owned()) {
                let times = events.iter().map(|event| event.timestamp).collect();
                context.insert(column.name.clone(), table::int32(times));
                continue;
            }
            let values = source.column(column.source())?;
            let Fallback::Number(default) = column.default else {
                continue;
            };
            let numbers: Vec<f64> = events
                .iter()
                .map(|event| Ok(values.number(event.row)?.unwrap_or(default)))
                .collect::<Result<_>>()
                .with_context(|| format!("column {}", column.source()))?;
            let array = match column.kind {
                ColumnType::Float32 => {
                    table::float32(numbers.iter().map(|number| *number as f32).collect())
                }
                _ => table::int32(numbers.iter().map(|number| *number as i32).collect()),
            };
            context.insert(column.name.clone(), array);
        }
        let ratings = events
            .iter()
            .map(|event| {
                Ok(rating
                    .map_or(Ok(None), |values| values.number(event.row))?
                    .unwrap_or(1.0) as f32)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            users: events.iter().map(|event| event.user).collect(),
            items: events.iter().map(|event| event.item).collect(),
            timestamps: events.iter().map(|event| event.timestamp).collect(),
            ratings,
            context,
            parts: events
                .chunk_by(|a, b| a.user == b.user)
                .flat_map(|of| parts(of.len(), pipeline.split))
                .collect(),
            dropped: source.rows() - events.len(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// The training events' positions.
    pub(super) fn training(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|&event| self.parts[event] == 0)
    }

    /// Events of each part.
    pub(super) fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        self.parts.iter().for_each(|&part| counts[part] += 1);
        counts
    }

    /// Per user, the items of the training events, oldest first.
    pub(super) fn histories(&self, users: usize) -> Vec<Vec<u32>> {
        let mut histories = vec![Vec::new(); users];
        self.training()
            .for_each(|event| histories[self.users[event]].push(self.items[event] as u32));
        histories
    }

    /// The table `data/interactions.parquet`.
    pub(super) fn raw(
        &self,
        pipeline: &Pipeline,
        users: &Entities,
        items: &Entities,
    ) -> Result<RecordBatch> {
        let ids = |entities: &Entities, rows: &[usize]| {
            table::int32(rows.iter().map(|&row| entities.ids[row]).collect())
        };
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            (&pipeline.user.id, ids(users, &self.users)),
            (&pipeline.item.id, ids(items, &self.items)),
            ("timestamp", table::int32(self.timestamps.clone())),
            ("rating", table::float32(self.ratings.clone())),
        ];
        let others = self
            .context
            .iter()
            .filter(|(name, _)| name.as_str() != "timestamp");
        columns.extend(others.map(|(name, array)| (name.as_str(), array.clone())));
        columns.push((
            "split",
            table::text(
                self.parts
                    .iter()
                    .map(|&part| PARTS[part].to_owned())
                    .collect(),
            ),
        ));
        table::table(columns)
    }

    /// The context columns that features read.
    pub(super) fn context(&self) -> Result<RecordBatch> {
        table::table(
            self.context
                .iter()
                .map(|(name, array)| (name.as_str(), array.clone()))
                .collect(),
        )
    }

    /// The columns of `features/interactions.parquet` beside the context features.
    pub(super) fn encoded(&self, positive_from: Option<f32>) -> Vec<(&'static str, ArrayRef)> {
        let rows = |rows: &[usize]| table::int32(rows.iter().map(|&row| row as i32).collect());
        let label =
            |rating: &f32| f32::from(u8::from(positive_from.is_none_or(|least| *rating >= least)));
        vec![
            ("user_row", rows(&self.users)),
            ("item_row", rows(&self.items)),
            ("timestamp", table::int32(self.timestamps.clone())),
            ("rating", table::float32(self.ratings.clone())),
            (
                "label",
                table::float32(self.ratings.iter().map(label).collect()),
            ),
            (
                "split",
                table::text(
                    self.parts
                        .iter()
                        .map(|&part| PARTS[part].to_owned())
                        .collect(),
                ),
            ),
        ]
    }

    /// Fills the entity's derived columns from the training events.
    pub(super) fn derive(
        &self,
        entity: &Entity,
        of_users: bool,
        of: &mut Entities,
        items: Option<&Entities>,
    ) {
        let rows = if of_users { &self.users } else { &self.items };
        for column in &entity.columns {
            let values: Vec<Option<i32>> = match &column.derive {
                None => continue,
                Some(Derive::InteractionCount) => {
                    let mut counts = vec![0; of.ids.len()];
                    self.training().for_each(|event| counts[rows[event]] += 1);
                    counts.into_iter().map(Some).collect()
                }
                Some(Derive::TopOfRecent { column, last }) => {
                    let categories = items.and_then(|items| items.columns.get(column));
                    let histories = self.histories(of.ids.len());
                    let top =
                        |history: &Vec<u32>| {
                            let recent = history.iter().rev().take(*last);
                            most_frequent(recent.filter_map(|&item| {
                                Some(categories?.number(item as usize)? as i32)
                            }))
                        };
                    histories.iter().map(top).collect()
                }
            };
            let cleaned = match column.kind {
                ColumnType::Float32 => Cleaned::Float32(
                    values
                        .into_iter()
                        .map(|value| value.map(|v| v as f32))
                        .collect(),
                ),
                _ => Cleaned::Int32(values),
            };
            of.columns.insert(column.name.clone(), cleaned);
        }
    }
}

/// The most frequent value; on a tie, the tied one that comes first. The newest event comes first.
fn most_frequent(values: impl Iterator<Item = i32>) -> Option<i32> {
    let mut counts: HashMap<i32, (usize, usize)> = HashMap::new();
    for (place, value) in values.enumerate() {
        counts.entry(value).or_insert((0, place)).0 += 1;
    }
    counts
        .into_iter()
        .max_by_key(|&(_, (count, first))| (count, std::cmp::Reverse(first)))
        .map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::most_frequent;

    #[test]
    fn ties_go_to_the_latest() {
        assert_eq!(most_frequent([3, 5, 5, 3].into_iter()), Some(3));
        assert_eq!(most_frequent([3, 5, 5].into_iter()), Some(5));
        assert_eq!(most_frequent([].into_iter()), None);
    }
}
