//! Fitted vocabularies (Categorify) and group statistics (JoinGroupby, TargetEncoding), read from their parquet files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use saker_contract::Code;
use saker_tables::{Table, Values};

use crate::error::Error;
use crate::lookup::{ABSENT, KeyIndex, Keys};

/// The code of padding.
pub const PADDING_CODE: usize = Code::PADDING as usize;
/// The code of null.
pub const NULL_CODE: usize = Code::NULL as usize;
/// The first out-of-vocabulary code.
pub const OOV_CODE: usize = Code::OOV as usize;

/// Where the codes of a vocabulary begin, and which ones stand for null and for unseen values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codes {
    /// The code of the first value.
    pub(crate) start: usize,
    pub(crate) null: usize,
    /// The first code of unseen values.
    pub(crate) unseen: usize,
}

impl Codes {
    /// Those of a vocabulary with a table of its own.
    pub(crate) fn new(num_buckets: usize) -> Self {
        Self {
            start: OOV_CODE.saturating_add(num_buckets),
            null: NULL_CODE,
            unseen: OOV_CODE,
        }
    }

    /// Those that NVTabular gives for `single_table`, where each column's values follow the ones of the column before it. Null has the
    /// code of the column's first value, and unseen values have the codes after that one.
    ///
    /// # Errors
    /// The start does not leave a code for unseen values.
    pub(crate) fn in_single_table(path: &Path, start: usize) -> Result<Self, Error> {
        let accepted = PADDING_CODE + 1..=i32::MAX as usize - 1;
        if !accepted.contains(&start) {
            let (least, most) = accepted.into_inner();
            return Err(Error::file(
                path,
                format!("its codes start at {start}, accepted: {least} to {most}"),
            ));
        }
        Ok(Self {
            start,
            null: start,
            unseen: start + 1,
        })
    }
}

/// The values of a Categorify, in code order, with how often each was seen when fitting.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    pub(crate) name: String,
    pub(crate) columns: Vec<(String, Keys)>,
    pub(crate) sizes: Vec<i64>,
    pub(crate) codes: Codes,
    index: KeyIndex,
}

impl Vocabulary {
    pub(crate) fn new(
        name: &str,
        columns: Vec<(String, Keys)>,
        sizes: Vec<i64>,
        codes: Codes,
    ) -> Self {
        let index = KeyIndex::new(&columns.iter().map(|(_, keys)| keys).collect::<Vec<_>>());
        Self {
            name: name.to_owned(),
            columns,
            sizes,
            codes,
            index,
        }
    }

    /// Column name, or the columns' names joined with `_`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, |(_, keys)| keys.len())
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The code of the first value: 2 + the number of out-of-vocabulary codes, more in a table that columns share.
    pub fn start(&self) -> usize {
        self.codes.start
    }

    pub(crate) fn codes(&self) -> Codes {
        self.codes
    }

    /// Whether the columns of its Categorify shared one table of codes, as with NVTabular's `single_table`.
    pub(crate) fn in_single_table(&self) -> bool {
        self.codes.null == self.codes.start
    }

    /// Rows of an embedding table for these codes: start + number of values.
    pub fn cardinality(&self) -> usize {
        // In a shared table the codes of unseen values may lie after the values.
        let codes = self.len().max(if self.in_single_table() { 2 } else { 0 });
        self.codes.start.saturating_add(codes)
    }

    /// The raw values by key column, in code order: element i has code `start() + i`. One column unless the keys are combinations.
    pub fn columns(&self) -> &[(String, Keys)] {
        &self.columns
    }

    /// How often each value was seen when fitting, in code order; empty where the file does not say.
    pub fn sizes(&self) -> &[i64] {
        &self.sizes
    }

    /// The raw integers in code order, when the vocabulary has one integer column.
    pub fn ints(&self) -> Option<Vec<i64>> {
        match self.columns.as_slice() {
            [(_, Keys::Int(keys))] => keys.iter().copied().collect(),
            _ => None,
        }
    }

    /// The raw integer of a code; none for the reserved codes, for codes beyond the vocabulary and for other key types.
    pub fn decode(&self, code: i64) -> Option<i64> {
        let position = usize::try_from(code).ok()?.checked_sub(self.codes.start)?;
        match self.columns.as_slice() {
            [(_, Keys::Int(keys))] => keys.get(position).copied().flatten(),
            _ => None,
        }
    }

    /// The code of a raw integer, when it is in the vocabulary.
    pub fn encode(&self, value: i64) -> Option<usize> {
        match self.index.columns.as_slice() {
            [lookup] => match lookup.int(value) {
                ABSENT => None,
                row => Some(self.codes.start + row as usize),
            },
            _ => None,
        }
    }

    pub(crate) fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Reads an NVTabular vocabulary: a parquet file, or a folder of `part.N.parquet`. Row order and `start` give the codes; the index
    /// that pandas may have saved is not looked at, as some writers leave it out or start it at 0.
    ///
    /// # Errors
    /// The file cannot be read, or a key column is neither integer nor string.
    pub fn read(path: &Path, name: &str, start: usize) -> Result<Self, Error> {
        let codes = Codes {
            start,
            ..Codes::new(1)
        };
        Self::read_with(path, name, codes)
    }

    pub(crate) fn read_with(path: &Path, name: &str, codes: Codes) -> Result<Self, Error> {
        let size_name = format!("{name}_size");
        let mut columns = Vec::new();
        let mut sizes = Vec::new();
        for column in read_table(path)?.into_columns() {
            if column.name == size_name {
                let counts = integers(path, &column.name, column.values)?;
                sizes = counts.into_iter().map(Option::unwrap_or_default).collect();
            } else if !column.name.starts_with("__index_level_") {
                let keys = keys(path, &column.name, column.values)?;
                columns.push((column.name, keys));
            }
        }
        if columns.is_empty() {
            return Err(Error::file(
                path,
                format!("holds no key column; expected a column '{name}'"),
            ));
        }
        // NVTabular writes one null row when there was nothing to fit on.
        if let [(_, keys)] = columns.as_mut_slice() {
            match keys {
                Keys::Int(keys) if keys.as_slice() == [None] => keys.clear(),
                Keys::String(keys) if keys.as_slice() == [None] => keys.clear(),
                _ => {}
            }
            sizes.truncate(keys.len());
            let null = match keys {
                Keys::Int(keys) => keys.iter().position(Option::is_none),
                Keys::String(keys) => keys.iter().position(Option::is_none),
            };
            if let Some(row) = null {
                return Err(Error::file(
                    path,
                    format!(
                        "row {row} of the column '{name}' is null, accepted: values. NVTabular before 23.06 writes such vocabularies, \
                         with other codes than 23.08: fit the workflow again with NVTabular 23.08"
                    ),
                ));
            }
        }
        Ok(Self::new(name, columns, sizes, codes))
    }
}

/// Statistics by key, one row a key.
#[derive(Debug, Clone)]
pub struct GroupTable {
    pub(crate) keys: Vec<(String, Keys)>,
    /// Statistic columns; whether they are float32, otherwise float64.
    pub(crate) values: Vec<(String, bool, Vec<f64>)>,
    pub(crate) index: Arc<KeyIndex>,
}

impl GroupTable {
    pub(crate) fn new(keys: Vec<(String, Keys)>, values: Vec<(String, bool, Vec<f64>)>) -> Self {
        let index = KeyIndex::new(&keys.iter().map(|(_, keys)| keys).collect::<Vec<_>>());
        Self {
            keys,
            values,
            index: Arc::new(index),
        }
    }

    /// The key columns, in row order.
    pub fn keys(&self) -> &[(String, Keys)] {
        &self.keys
    }

    /// A statistic's values in row order, by the name of its column in the file (`<key>_count`, `<key>_<column>_sum`).
    pub fn statistic(&self, name: &str) -> Option<&[f64]> {
        self.column(name).map(|(_, values)| values)
    }

    pub(crate) fn column(&self, name: &str) -> Option<(bool, &[f64])> {
        self.values
            .iter()
            .find(|(column, _, _)| column == name)
            .map(|(_, single, values)| (*single, values.as_slice()))
    }

    pub(crate) fn read(path: &Path, key_columns: &[String]) -> Result<Self, Error> {
        let mut table_keys = Vec::new();
        let mut values = Vec::new();
        for column in read_table(path)?.into_columns() {
            if key_columns.contains(&column.name) {
                let keys = keys(path, &column.name, column.values)?;
                table_keys.push((column.name, keys));
            } else {
                let single = matches!(column.values, Values::Floats { single: true, .. });
                let numbers = floats(path, &column.name, column.values)?;
                let numbers = numbers.into_iter().map(|x| x.unwrap_or(f64::NAN));
                values.push((column.name, single, numbers.collect()));
            }
        }
        if table_keys.len() != key_columns.len() {
            return Err(Error::file(
                path,
                format!("expected the key columns {}", key_columns.join(", ")),
            ));
        }
        Ok(Self::new(table_keys, values))
    }
}

/// Reads a parquet file, or a folder of `part.N.parquet` in the order of N.
pub(crate) fn read_table(path: &Path) -> Result<Table, Error> {
    let mut table: Option<Table> = None;
    for file in parts(path)? {
        let part = Table::read(&file).map_err(|error| Error::file(&file, error))?;
        match &mut table {
            None => table = Some(part),
            Some(table) => (table.append(part)).map_err(|error| Error::file(&file, error))?,
        }
    }
    table.ok_or_else(|| Error::file(path, "holds no schema"))
}

/// The files of a table: itself, or a folder's `part.N.parquet` in the order of N.
pub(crate) fn parts(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut parts = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| Error::file(path, error))? {
        let file = entry.map_err(|error| Error::file(path, error))?.path();
        let number = file
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("part."))
            .and_then(|name| name.strip_suffix(".parquet"))
            .and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number {
            parts.push((number, file));
        }
    }
    if parts.is_empty() {
        return Err(Error::file(path, "the folder holds no part.N.parquet"));
    }
    parts.sort();
    Ok(parts.into_iter().map(|(_, file)| file).collect())
}

fn keys(path: &Path, name: &str, values: Values) -> Result<Keys, Error> {
    match values {
        Values::Texts(texts) => Ok(Keys::String(texts)),
        // Datetimes are nanoseconds here.
        Values::Times {
            values,
            unit,
            utc: false,
        } => {
            let nanoseconds = |time: Option<i64>| match time {
                None => Ok(None),
                Some(time) => time
                    .checked_mul(unit.nanoseconds())
                    .map(Some)
                    .ok_or_else(|| {
                        let accepted = "a time that fits into 64 bits of nanoseconds";
                        Error::file(
                            path,
                            format!(
                                "key column '{name}' holds the time {time}, accepted: {accepted}"
                            ),
                        )
                    }),
            };
            let keys = values.into_iter().map(nanoseconds);
            Ok(Keys::Int(keys.collect::<Result<_, Error>>()?))
        }
        Values::Bools(_) | Values::Integers(_) | Values::Floats { .. } => {
            Ok(Keys::Int(integers(path, name, values)?))
        }
        other => Err(Error::file(
            path,
            format!(
                "key column '{name}' has type {}, accepted: integers, bool or strings",
                other.kind()
            ),
        )),
    }
}

/// Whole numbers of a column of numbers.
pub(crate) fn integers(path: &Path, name: &str, values: Values) -> Result<Vec<Option<i64>>, Error> {
    match values {
        Values::Integers(integers) => Ok(integers),
        Values::Bools(bools) => Ok(bools
            .into_iter()
            .map(|value| value.map(i64::from))
            .collect()),
        Values::Floats { values, .. } => {
            let whole = |value: Option<f64>| match value {
                None => Ok(None),
                Some(value) if value == (value as i64) as f64 => Ok(Some(value as i64)),
                Some(_) => Err(Error::file(
                    path,
                    format!("key column '{name}' holds numbers that are not whole"),
                )),
            };
            values.into_iter().map(whole).collect()
        }
        other => Err(not_numbers(path, name, &other)),
    }
}

/// A column of numbers.
pub(crate) fn floats(path: &Path, name: &str, values: Values) -> Result<Vec<Option<f64>>, Error> {
    let float = |value: Option<i64>| value.map(|value| value as f64);
    match values {
        Values::Floats { values, .. } => Ok(values),
        Values::Integers(values) | Values::Times { values, .. } => {
            Ok(values.into_iter().map(float).collect())
        }
        Values::Bools(bools) => Ok(bools
            .into_iter()
            .map(|value| float(value.map(i64::from)))
            .collect()),
        other => Err(not_numbers(path, name, &other)),
    }
}

fn not_numbers(path: &Path, name: &str, values: &Values) -> Error {
    Error::file(
        path,
        format!(
            "column '{name}' has type {}, accepted: numbers",
            values.kind()
        ),
    )
}
