//! How often each value, or combination of values, was seen: what Categorify's vocabularies are made of.

use arrow::array::Array;
use rustc_hash::FxHashMap;

use super::counts::Counts;
use super::keys::{Key, KeyColumn, KeyRow, key_columns, table_keys};
use crate::column::DType;
use crate::error::Error;
use crate::ingest::Ingested;
use crate::vocabulary::{Codes, Vocabulary};

#[derive(Debug)]
pub(crate) struct Counter {
    name: String,
    /// Key columns, and whether they hold strings.
    columns: Vec<(String, bool)>,
    /// Whether all columns count into one vocabulary.
    joint: bool,
    ints: FxHashMap<i64, u64>,
    strings: FxHashMap<Box<str>, u64>,
    combined: FxHashMap<KeyRow, u64>,
}

impl Counter {
    pub(crate) fn new(name: &str, members: &[Ingested], joint: bool) -> Self {
        let string = |c: &Ingested| c.dtype == DType::String;
        let columns = if joint {
            vec![(name.to_owned(), members.iter().any(string))]
        } else {
            members
                .iter()
                .map(|c| (c.name.clone(), string(c)))
                .collect()
        };
        Self {
            name: name.to_owned(),
            columns,
            joint,
            ints: FxHashMap::default(),
            strings: FxHashMap::default(),
            combined: FxHashMap::default(),
        }
    }

    pub(crate) fn update(&mut self, members: &[Ingested], counts: Counts<'_>) -> Result<(), Error> {
        if !self.joint && members.len() > 1 {
            if let Some(list) = members.iter().find(|column| column.lists.is_some()) {
                return Err(Error::types(
                    &list.name,
                    format!("list of {}", list.dtype),
                    "one value a row, for a combination of columns",
                ));
            }
            let columns = key_columns(members)?;
            for row in 0..members.first().map_or(0, |column| column.elements.len()) {
                let keys = columns.iter().map(|column| column.get(row)).collect();
                *self.combined.entry(keys).or_default() += counts.at(row);
            }
            return Ok(());
        }
        for column in members {
            let string = column.dtype == DType::String;
            if (self.columns.first()).is_none_or(|(_, fitted)| *fitted != string) {
                return Err(Error::types(
                    &column.name,
                    column.dtype,
                    "the type of the columns it shares a vocabulary with",
                ));
            }
            // A null has a code of its own, so only values are counted.
            let counts = counts.of_elements(column);
            match KeyColumn::new(column)? {
                KeyColumn::Int(keys) if keys.null_count() == 0 => {
                    for (place, &key) in keys.values().iter().enumerate() {
                        *self.ints.entry(key).or_default() += counts.at(place);
                    }
                }
                KeyColumn::Int(keys) => {
                    for (place, key) in keys.iter().enumerate() {
                        if let Some(key) = key {
                            *self.ints.entry(key).or_default() += counts.at(place);
                        }
                    }
                }
                KeyColumn::String(keys) => {
                    for (place, key) in keys.iter().enumerate() {
                        let Some(key) = key else { continue };
                        match self.strings.get_mut(key) {
                            Some(count) => *count += counts.at(place),
                            None => {
                                self.strings.insert(key.into(), counts.at(place));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The vocabulary of the values that were seen at least `threshold` times, of at most `max_size` codes unless that is 0.
    pub(crate) fn finish(self, threshold: u64, max_size: usize, codes: Codes) -> Vocabulary {
        let single = |key: Key, count| (KeyRow::from_iter([key]), count);
        let mut counted: Vec<(KeyRow, u64)> = (self.ints.into_iter())
            .map(|(key, count)| single(Key::Int(key), count))
            .chain((self.strings.into_iter()).map(|(key, count)| single(Key::String(key), count)))
            .chain(self.combined)
            .filter(|(keys, count)| *count >= threshold && keys.iter().any(|key| *key != Key::Null))
            .collect();
        counted.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        if max_size > 0 {
            counted.truncate(max_size.saturating_sub(codes.start));
        }
        let sizes = counted.iter().map(|(_, count)| *count as i64).collect();
        let keys: Vec<KeyRow> = counted.into_iter().map(|(keys, _)| keys).collect();
        Vocabulary::new(&self.name, table_keys(&self.columns, &keys), sizes, codes)
    }
}
