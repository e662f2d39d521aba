//! Users and items: ids and columns out of the source, cleaned and numbered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, RecordBatch};
use rustc_hash::FxHashMap;
use saker_pipeline::{Codes, Column, ColumnType, Default as Fallback, Entity, Names};

use super::source::{Source, Values};
use crate::table;

/// The values of a column, before defaults fill what is empty.
pub(super) enum Cleaned {
    Int32(Vec<Option<i32>>),
    Float32(Vec<Option<f32>>),
    Text(Vec<String>),
}

impl Cleaned {
    /// Whole numbers as a column of this type.
    pub(super) fn numbers(kind: ColumnType, values: Vec<Option<i32>>) -> Self {
        match kind {
            ColumnType::Float32 => {
                let numbers = values
                    .into_iter()
                    .map(|value| value.map(|value| value as f32));
                Self::Float32(numbers.collect())
            }
            _ => Self::Int32(values),
        }
    }

    pub(super) fn number(&self, row: usize) -> Option<f64> {
        match self {
            Self::Int32(values) => values[row].map(f64::from),
            Self::Float32(values) => values[row].map(f64::from),
            Self::Text(_) => None,
        }
    }
}

/// What people call the numbers of a column: its place is the number. A number that no row labels is called by itself.
fn label(
    column: &Column,
    labels: &str,
    source: &Source,
    order: &[usize],
    cleaned: &Cleaned,
) -> Result<Vec<String>> {
    /// A list of labels is as long as its largest number.
    const MOST: usize = 1 << 20;
    let texts = source.column(labels)?;
    let Cleaned::Int32(numbers) = cleaned else {
        bail!("column {} has labels and is not int32", column.name);
    };
    let mut names: Vec<Option<String>> = Vec::new();
    for (&row, number) in order.iter().zip(numbers) {
        let Some(number) = number else { continue };
        let place = usize::try_from(*number).ok().filter(|&place| place < MOST);
        let Some(place) = place else {
            bail!(
                "column {} is {number} in row {}; labels are for numbers from 0 to {}",
                column.name,
                row + 1,
                MOST - 1
            );
        };
        let text = texts.text(row);
        names.resize(names.len().max(place + 1), None);
        match &names[place] {
            Some(known) if *known != text => bail!(
                "column {labels} calls {number} of {} {known:?} and, in row {}, {text:?}; a number has one label",
                column.name,
                row + 1
            ),
            _ => names[place] = Some(text),
        }
    }
    let call = |(place, name): (usize, Option<String>)| name.unwrap_or_else(|| place.to_string());
    Ok(names.into_iter().enumerate().map(call).collect())
}

/// The users or the items, sorted by id.
pub(super) struct Entities {
    pub(super) ids: Vec<i32>,
    /// In the order of the definition; derived ones join when they are known.
    pub(super) columns: BTreeMap<String, Cleaned>,
    /// The row in the source of each row here.
    pub(super) order: Vec<usize>,
    /// From id to row.
    pub(super) row_of: Arc<FxHashMap<i32, i32>>,
}

impl Entities {
    /// Reads an entity's rows. What the numbers of `codes` columns stand for is in `names`: what it holds already keeps its number,
    /// the rest is added.
    pub(super) fn read(
        entity: &Entity,
        id_column: &str,
        source: &Source,
        names: &mut Names,
    ) -> Result<Self> {
        let ids = source.ids(id_column)?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&row| ids[row]);
        if let Some(pair) = order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
            bail!(
                "{} {} stands in rows {} and {}; each id must stand once",
                entity.id,
                ids[pair[0]],
                pair[0] + 1,
                pair[1] + 1
            );
        }
        let mut columns = BTreeMap::new();
        for column in entity
            .columns
            .iter()
            .filter(|column| column.derive.is_none())
        {
            let cleaned = clean(column, source, &order, names)
                .with_context(|| format!("column {}", column.name))?;
            if let Some(labels) = &column.labels {
                let labelled = label(column, labels, source, &order, &cleaned);
                names.insert(column.name.clone(), labelled?);
            }
            columns.insert(column.name.clone(), cleaned);
        }
        let ids: Vec<i32> = order.iter().map(|&row| ids[row]).collect();
        let row_of = ids.iter().copied().zip(0..).collect();
        Ok(Self {
            ids,
            columns,
            order,
            row_of: Arc::new(row_of),
        })
    }

    /// What empty values get: the definition's numbers, and means over the training events, of which each row has `events`.
    pub(super) fn defaults(
        &self,
        entity: &Entity,
        events: &[u32],
    ) -> Result<BTreeMap<String, f64>> {
        let default = |column: &Column| -> Result<(String, f64)> {
            let number = match &column.default {
                Fallback::Number(number) => *number,
                Fallback::Word(_) => {
                    let values = &self.columns[&column.name];
                    let known = (0..self.ids.len())
                        .filter_map(|row| Some((values.number(row)?, f64::from(events[row]))));
                    let (sum, count) = known.fold((0.0, 0.0), |(sum, count), (value, events)| {
                        (sum + value * events, count + events)
                    });
                    if count == 0.0 {
                        bail!(
                            "column {} has no value in the training rows, so there is no mean",
                            column.name
                        );
                    }
                    let mean = sum / count;
                    if column.kind == ColumnType::Int32 {
                        mean.trunc()
                    } else {
                        f64::from(mean as f32)
                    }
                }
            };
            Ok((column.name.clone(), number))
        };
        entity.stored().map(default).collect()
    }

    /// The table that is written: ids, then every column, empty values filled.
    pub(super) fn table(
        &self,
        entity: &Entity,
        defaults: &BTreeMap<String, f64>,
    ) -> Result<RecordBatch> {
        let mut columns: Vec<(&str, ArrayRef)> = vec![(&entity.id, table::int32(self.ids.clone()))];
        for column in &entity.columns {
            let default = defaults.get(&column.name).copied().unwrap_or_default();
            let array = match &self.columns[&column.name] {
                Cleaned::Int32(values) => table::int32(
                    values
                        .iter()
                        .map(|value| value.unwrap_or(default as i32))
                        .collect(),
                ),
                Cleaned::Float32(values) => table::float32(
                    values
                        .iter()
                        .map(|value| value.unwrap_or(default as f32))
                        .collect(),
                ),
                Cleaned::Text(values) => table::text(values.clone()),
            };
            columns.push((&column.name, array));
        }
        table::table(columns)
    }
}

/// A column of the source as the definition wants it, its rows in `order`.
fn clean(column: &Column, source: &Source, order: &[usize], names: &mut Names) -> Result<Cleaned> {
    let values = source.column(column.source())?;
    let blanked;
    let values = if column.empty.is_empty() {
        values
    } else {
        blanked = blank(values, &column.empty);
        &blanked
    };
    if let Some(codes) = column.codes {
        let keys: Vec<Option<String>> = order
            .iter()
            .map(|&row| key(&values.text(row), codes))
            .collect();
        let names = names.entry(column.name.clone()).or_default();
        let distinct: BTreeSet<&String> = keys.iter().flatten().collect();
        let new: Vec<String> = distinct
            .into_iter()
            .filter(|key| !names.contains(key))
            .cloned()
            .collect();
        names.extend(new);
        let numbers: HashMap<&String, i32> = names.iter().zip(0..).collect();
        let coded = keys
            .iter()
            .map(|key| key.as_ref().map(|key| numbers[key]))
            .collect();
        return Ok(Cleaned::Int32(coded));
    }
    let place = |row: usize| move || source.place(row);
    Ok(match column.kind {
        ColumnType::Int32 => Cleaned::Int32(
            order
                .iter()
                .map(|&row| values.int32(row).with_context(place(row)))
                .collect::<Result<_>>()?,
        ),
        ColumnType::Float32 => {
            let number = |&row: &usize| {
                let number = values.number(row).with_context(place(row))?;
                Ok(number.map(|number| number as f32))
            };
            Cleaned::Float32(order.iter().map(number).collect::<Result<_>>()?)
        }
        ColumnType::Text => Cleaned::Text(order.iter().map(|&row| values.text(row)).collect()),
    })
}

/// The same values without those that stand for none.
fn blank(values: &Values, empty: &[String]) -> Values {
    let text = |row| Some(values.text(row)).filter(|text| !empty.contains(text));
    Values::Texts((0..values.len()).map(text).collect())
}

/// What of a text is numbered; nothing of an empty one.
fn key(text: &str, codes: Codes) -> Option<String> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    match codes {
        Codes::Value => words = vec![text.trim()],
        Codes::First => words.truncate(1),
        Codes::Set => {
            words.sort_unstable();
            words.dedup();
        }
    }
    let key = words.join(" ");
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_numbered_by_rule() {
        let key = |text, codes| key(text, codes).unwrap_or_default();
        assert_eq!(key(" War  Drama ", Codes::Value), "War  Drama");
        assert_eq!(key("War Drama", Codes::First), "War");
        assert_eq!(key("War Drama War", Codes::Set), "Drama War");
        assert_eq!(super::key("  ", Codes::First), None);
    }
}
