use parquet::errors::ParquetError;

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or cannot be opened.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// The file is not Parquet, is damaged, or uses a feature that this build lacks.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// Two files of one table have different columns.
    #[error("the columns {found} differ from those of the files before it: {expected}")]
    Columns {
        /// Names and types in this file.
        found: String,
        /// Names and types in the first file.
        expected: String,
    },
    /// The table has no such column.
    #[error("there is no column {column}; there are {given}")]
    MissingColumn {
        /// The column that was asked for.
        column: String,
        /// The table's columns.
        given: String,
    },
    /// A column has another type.
    #[error("column {column} has type {found}, accepted: {accepted}")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// What would be right.
        accepted: String,
    },
    /// A value that is not accepted.
    #[error("column {column}, row {row}: {value}, accepted: {accepted}")]
    Value {
        /// The column.
        column: String,
        /// The row, from 1.
        row: usize,
        /// The value.
        value: String,
        /// What would be right.
        accepted: String,
    },
}

impl Error {
    pub(crate) fn kind(column: &str, found: &str, accepted: &str) -> Self {
        Self::Type {
            column: column.to_owned(),
            found: found.to_owned(),
            accepted: accepted.to_owned(),
        }
    }
}
