//! Users and items: cleaned ids and columns of the source, with codes for texts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::table;
use anyhow::{Result, bail};
use arrow::array::{ArrayRef, RecordBatch};
use rustc_hash::FxHashMap;
use saker_pipeline::{Codes, Column, ColumnType, Default as Fallback, Entity, Names};

use crate::source::Source;
use crate::values::Value;

/// The values of a column, before defaults replace empty ones.
pub(crate) enum Cleaned {
    Int32(Vec<Option<i32>>),
    Float32(Vec<Option<f32>>),
    Text(Vec<String>),
}

impl Cleaned {
    /// A column of integers, converted to this type.
    pub(crate) fn numbers(kind: ColumnType, values: Vec<Option<i32>>) -> Self {
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

    pub(crate) fn number(&self, row: usize) -> Option<f64> {
        match self {
            Self::Int32(values) => values[row].map(f64::from),
            Self::Float32(values) => values[row].map(f64::from),
            Self::Text(_) => None,
        }
    }
}

/// The display names of a column's numbers: the index is the number. A number without a label has itself as its name.
fn label(
    column: &Column,
    labels: &str,
    source: &Source,
    order: &[usize],
    cleaned: &Cleaned,
) -> Result<Vec<String>> {
    /// Bounds the largest number with a label, because the list of labels has that length.
    const MOST: usize = 1 << 20;
    let texts = source.texts(labels, &[])?;
    let Cleaned::Int32(numbers) = cleaned else {
        bail!("column {} has labels and is not int32", column.name);
    };
    let mut names: Vec<Option<String>> = Vec::new();
    for (&row, number) in order.iter().zip(numbers) {
        let Some(number) = number else { continue };
        let place = usize::try_from(*number).ok().filter(|&place| place < MOST);
        let Some(place) = place else {
            bail!(
                "column {} is {number} in {}; labels are for numbers from 0 to {}",
                column.name,
                source.place(row),
                MOST - 1
            );
        };
        let text = &texts[row];
        names.resize(names.len().max(place + 1), None);
        match &names[place] {
            Some(known) if known != text => bail!(
                "column {labels} calls {number} of {} {known:?} and, in {}, {text:?}; a number has one label",
                column.name,
                source.place(row)
            ),
            _ => names[place] = Some(text.clone()),
        }
    }
    let call = |(place, name): (usize, Option<String>)| name.unwrap_or_else(|| place.to_string());
    Ok(names.into_iter().enumerate().map(call).collect())
}

/// The source's columns that an entity is read from.
pub(crate) fn read_columns<'e>(entity: &'e Entity, id_column: &'e str) -> Vec<&'e str> {
    let read = entity.columns.iter();
    let read = read.filter(|column| column.derive.is_none());
    let read = read.flat_map(|column| [Some(column.source()), column.labels.as_deref()]);
    std::iter::once(id_column).chain(read.flatten()).collect()
}

/// The rows of these ids, the smallest first.
pub(crate) fn order(ids: &[i32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|&row| ids[row]);
    order
}

/// The users or the items, sorted by id.
pub(crate) struct Entities {
    pub(crate) ids: Vec<i32>,
    /// In the order of the definition. Derived columns are added when they are computed.
    pub(crate) columns: BTreeMap<String, Cleaned>,
    /// The row of each id.
    pub(crate) row_of: Arc<FxHashMap<i32, i32>>,
}

impl Entities {
    /// Reads an entity's rows. `names` has the texts of `codes` columns, by code: its texts keep their codes, and new texts are added.
    pub(crate) fn read(
        entity: &Entity,
        id_column: &str,
        source: &Source,
        names: &mut Names,
    ) -> Result<Self> {
        let ids = source.all_ids(id_column)?;
        let order = order(&ids);
        if let Some(pair) = order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
            bail!(
                "{} {} is in {} and in {}; one row per id is accepted",
                entity.id,
                ids[pair[0]],
                source.place(pair[0]),
                source.place(pair[1])
            );
        }
        let mut columns = BTreeMap::new();
        for column in entity
            .columns
            .iter()
            .filter(|column| column.derive.is_none())
        {
            let cleaned = clean(column, source, &order, names)?;
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
            row_of: Arc::new(row_of),
        })
    }

    /// The defaults of empty values: the definition's numbers, and means over the training events. `events` has their number by row.
    pub(crate) fn defaults(
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

    /// The table to write: ids, then every column, with defaults in place of empty values.
    pub(crate) fn table(
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

/// A column of the source, converted as the definition says, with its rows in `order`.
fn clean(column: &Column, source: &Source, order: &[usize], names: &mut Names) -> Result<Cleaned> {
    let (name, empty) = (column.source(), column.empty.as_slice());
    if let Some(codes) = column.codes {
        let keys = source.each(name, |value| key(&value.without(empty), codes))?;
        let known = names.entry(column.name.clone()).or_default();
        let distinct: BTreeSet<&String> = keys.iter().flatten().collect();
        let new: Vec<String> = {
            let known: HashSet<&String> = known.iter().collect();
            let new = distinct.into_iter().filter(|key| !known.contains(key));
            new.cloned().collect()
        };
        known.extend(new);
        let numbers: HashMap<&String, i32> = known.iter().zip(0..).collect();
        let coded = order
            .iter()
            .map(|&row| keys[row].as_ref().map(|key| numbers[key]))
            .collect();
        return Ok(Cleaned::Int32(coded));
    }
    fn ordered<T: Clone>(values: &[T], order: &[usize]) -> Vec<T> {
        order.iter().map(|&row| values[row].clone()).collect()
    }
    Ok(match column.kind {
        ColumnType::Int32 => Cleaned::Int32(ordered(&source.int32s(name, empty)?, order)),
        ColumnType::Float32 => Cleaned::Float32(ordered(&source.float32s(name, empty)?, order)),
        ColumnType::Text => Cleaned::Text(ordered(&source.texts(name, empty)?, order)),
    })
}

/// The key of a value that gets a code; `None` for an empty value. Different values have different keys.
fn key(value: &Value<'_>, codes: Codes) -> Result<Option<String>> {
    Ok(match (codes, value) {
        (Codes::First | Codes::Set, _) | (_, Value::List(_)) => codes.key_of_words(value.words()?),
        (Codes::Value, _) => value.text()?.and_then(|text| codes.key(&text)),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
    use proptest::prelude::*;

    use super::*;
    use crate::values::Values;

    #[test]
    fn texts_are_numbered_by_rule() {
        let key = |text, codes| key(&Value::Text(text), codes).unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(key(" War  Drama ", Codes::Value), some("War  Drama"));
        assert_eq!(key("War Drama", Codes::First), some("War"));
        assert_eq!(key("War Drama War", Codes::Set), some("Drama War"));
        assert_eq!(key("  ", Codes::First), None);
    }

    fn key_of_list(words: &[String], codes: Codes) -> Option<String> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value(words.iter().map(Some));
        let lists: ArrayRef = Arc::new(lists.finish());
        key(&Values::of(&lists).unwrap().value(0), codes).unwrap()
    }

    #[test]
    fn elements_stay_one() {
        let words = ["Tea", "Coffee Beans"].map(str::to_owned);
        let key = |codes| key_of_list(&words, codes).unwrap();
        assert_eq!(key(Codes::First), "Tea");
        assert_eq!(key(Codes::Set), "\"Coffee Beans\" Tea");
        assert_eq!(key(Codes::Value), "Tea \"Coffee Beans\"");
    }

    proptest! {
        /// Two lists have one key only where they have the same words.
        #[test]
        fn keys_tell_sets_apart(
            one in prop::collection::vec("[ab \"]{1,3}", 0..4),
            other in prop::collection::vec("[ab \"]{1,3}", 0..4),
        ) {
            let set = |words: &[String]| -> BTreeSet<String> {
                let words = words.iter().map(|word| word.trim().to_owned());
                words.filter(|word| !word.is_empty()).collect()
            };
            prop_assert_eq!(
                set(&one) == set(&other),
                key_of_list(&one, Codes::Set) == key_of_list(&other, Codes::Set)
            );
        }
    }
}
