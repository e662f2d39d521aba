//! Keys: the values of a batch that vocabularies and groups are made of.

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use smallvec::SmallVec;

use crate::column::DType;
use crate::error::Error;
use crate::ingest::Ingested;
use crate::lookup::Keys;

/// A value of a key column, in the order in which ties are broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Null,
    Int(i64),
    String(Box<str>),
}

/// A row's values in the key columns.
pub(crate) type KeyRow = SmallVec<[Key; 2]>;

/// A key column of a batch: integers of any width, or strings.
pub(crate) enum KeyColumn<'a> {
    Int(Int64Array),
    String(&'a StringArray),
}

impl<'a> KeyColumn<'a> {
    pub(crate) fn new(column: &'a Ingested) -> Result<Self, Error> {
        let elements = &column.elements;
        let failed = |error| Error::types(&column.name, error, "integers, strings or bool");
        Ok(match column.dtype {
            DType::String => Self::String(elements.as_string::<i32>()),
            DType::Float32 | DType::Float64 => {
                let numbers = cast(elements, &DataType::Float64).map_err(failed)?;
                Self::Int(
                    numbers
                        .as_primitive::<Float64Type>()
                        .values()
                        .iter()
                        .map(|&x| whole(&column.name, x))
                        .collect::<Result<_, _>>()?,
                )
            }
            DType::Int32 | DType::Int64 | DType::Bool => {
                let numbers = cast(elements, &DataType::Int64).map_err(failed)?;
                Self::Int(numbers.as_primitive::<Int64Type>().clone())
            }
        })
    }

    pub(crate) fn get(&self, row: usize) -> Key {
        match self {
            Self::Int(keys) if keys.is_valid(row) => Key::Int(keys.value(row)),
            Self::String(keys) if keys.is_valid(row) => Key::String(keys.value(row).into()),
            _ => Key::Null,
        }
    }
}

/// A number as a key; NaN is null.
fn whole(column: &str, x: f64) -> Result<Option<i64>, Error> {
    if x.is_nan() {
        Ok(None)
    } else if x.fract() == 0.0 && x.abs() < 9.2e18 {
        Ok(Some(x as i64))
    } else {
        Err(Error::Value {
            column: column.to_owned(),
            value: x.to_string(),
            accepted: "whole numbers or strings as keys (Bucketize or HashBucket it first)"
                .to_owned(),
        })
    }
}

/// The key columns of the columns, in their order.
pub(crate) fn key_columns(columns: &[Ingested]) -> Result<Vec<KeyColumn<'_>>, Error> {
    columns.iter().map(KeyColumn::new).collect()
}

/// The keys' columns of a table, from its rows; strings when the first batch said so.
pub(crate) fn table_keys(names: &[(String, bool)], rows: &[KeyRow]) -> Vec<(String, Keys)> {
    names
        .iter()
        .enumerate()
        .map(|(position, (name, string))| {
            let keys = rows.iter().map(|row| row.get(position));
            let keys = if *string {
                Keys::String(
                    keys.map(|key| match key {
                        Some(Key::String(s)) => Some(s.to_string()),
                        _ => None,
                    })
                    .collect(),
                )
            } else {
                Keys::Int(
                    keys.map(|key| match key {
                        Some(Key::Int(i)) => Some(*i),
                        _ => None,
                    })
                    .collect(),
                )
            };
            (name.clone(), keys)
        })
        .collect()
}
