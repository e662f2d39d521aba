//! Parquet files as tables of plain columns.
//!
//! Serving reads vocabularies, items and users, and writes events. For that it needs neither Arrow nor its kernels, which
//! would be a third of what its programs compile. This crate reads flat columns of the types below and writes three of them.
//!
//! | Parquet | [`Values`] |
//! |---|---|
//! | BOOLEAN | [`Values::Bools`] |
//! | INT32 and INT64, signed and unsigned | [`Values::Integers`] |
//! | FLOAT and DOUBLE | [`Values::Floats`] |
//! | BYTE_ARRAY with the logical type String or Enum | [`Values::Texts`] |
//! | INT64 with the logical type Timestamp | [`Values::Times`] |
//! | all others, and nested columns | [`Values::Unsupported`] |

#![warn(clippy::indexing_slicing)]

mod error;
mod read;
mod write;

pub use error::Error;
pub use read::ParquetFile;
pub use write::{NewColumn, NewValues, write};

/// The rows of one or more Parquet files.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<Column>,
    rows: usize,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// One value a row; `None` is null.
    pub values: Values,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Booleans.
    Bools(Vec<Option<bool>>),
    /// Integers of any width.
    Integers(Vec<Option<i64>>),
    /// Floating-point numbers.
    Floats {
        /// The numbers.
        values: Vec<Option<f64>>,
        /// Whether the file holds them with 32 bits.
        single: bool,
    },
    /// Texts in UTF-8.
    Texts(Vec<Option<String>>),
    /// Moments since the Unix epoch.
    Times {
        /// Count of `unit`.
        values: Vec<Option<i64>>,
        /// What the values count.
        unit: TimeUnit,
        /// Whether they are in UTC; otherwise local times without a zone.
        utc: bool,
    },
    /// A type that this crate does not read, by its name in Parquet.
    Unsupported(String),
}

/// The unit of [`Values::Times`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

impl TimeUnit {
    /// Nanoseconds of one unit.
    #[must_use]
    pub fn nanoseconds(self) -> i64 {
        match self {
            Self::Milliseconds => 1_000_000,
            Self::Microseconds => 1_000,
            Self::Nanoseconds => 1,
        }
    }
}

impl Values {
    /// The type's name, for messages.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Bools(_) => "bool",
            Self::Integers(_) => "integer",
            Self::Floats { single: true, .. } => "float32",
            Self::Floats { .. } => "float64",
            Self::Texts(_) => "text",
            Self::Times { unit, utc, .. } => match (unit, utc) {
                (TimeUnit::Milliseconds, true) => "timestamp in milliseconds, UTC",
                (TimeUnit::Microseconds, true) => "timestamp in microseconds, UTC",
                (TimeUnit::Nanoseconds, true) => "timestamp in nanoseconds, UTC",
                (TimeUnit::Milliseconds, false) => "timestamp in milliseconds, no zone",
                (TimeUnit::Microseconds, false) => "timestamp in microseconds, no zone",
                (TimeUnit::Nanoseconds, false) => "timestamp in nanoseconds, no zone",
            },
            Self::Unsupported(kind) => kind,
        }
    }

    /// These values as 32-bit integers without nulls; `name` is the column's, for messages.
    ///
    /// # Errors
    /// Returns an error if the type is another, or a value is null or greater.
    pub fn int32s(&self, name: &str) -> Result<Vec<i32>, Error> {
        let Self::Integers(integers) = self else {
            return Err(Error::kind(name, self.kind(), "32-bit integers"));
        };
        let narrow = |(row, value): (usize, &Option<i64>)| {
            let narrow = value.and_then(|value| i32::try_from(value).ok());
            narrow.ok_or_else(|| Error::Value {
                column: name.to_owned(),
                row: row + 1,
                value: value.map_or("null".to_owned(), |value| value.to_string()),
                accepted: "32-bit integers".to_owned(),
            })
        };
        integers.iter().enumerate().map(narrow).collect()
    }
}

impl Table {
    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, in the file's order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns, in the file's order.
    #[must_use]
    pub fn into_columns(self) -> Vec<Column> {
        self.columns
    }

    /// A column by its name.
    ///
    /// # Errors
    /// Returns [`Error::MissingColumn`] with the names that the table has.
    pub fn column(&self, name: &str) -> Result<&Values, Error> {
        let found = self.columns.iter().find(|column| column.name == name);
        found.map(|column| &column.values).ok_or_else(|| {
            let names = self.columns.iter().map(|column| column.name.as_str());
            Error::MissingColumn {
                column: name.to_owned(),
                given: names.collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// A column of 32-bit integers without nulls.
    ///
    /// # Errors
    /// Returns an error if the column is missing, and as [`Values::int32s`].
    pub fn int32s(&self, name: &str) -> Result<Vec<i32>, Error> {
        self.column(name)?.int32s(name)
    }
}
