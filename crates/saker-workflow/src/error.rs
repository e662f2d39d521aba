//! What can be wrong with a definition, with data or with a saved workflow.

use std::path::{Path, PathBuf};

/// An error that names the column or file, what was found and what is accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The definition itself is not accepted.
    #[error("column '{column}': {message}")]
    Definition {
        /// Column, or columns, that the operator gets.
        column: String,
        /// What is wrong and what is accepted.
        message: String,
    },
    /// An input column is missing.
    #[error("column '{column}' is missing; the columns given are: {given}")]
    MissingColumn {
        /// The column.
        column: String,
        /// What was given instead.
        given: String,
    },
    /// A column has a type that its operator does not take.
    #[error("column '{column}' has type {found}, accepted: {accepted}")]
    Type {
        /// The column.
        column: String,
        /// The type found.
        found: String,
        /// The types accepted.
        accepted: String,
    },
    /// A column's value cannot be used.
    #[error("column '{column}': value {value} is not accepted: {accepted}")]
    Value {
        /// The column.
        column: String,
        /// The value.
        value: String,
        /// What is accepted.
        accepted: String,
    },
    /// Columns or buffers differ in length.
    #[error("column '{column}' has {found} rows, expected {expected}")]
    Length {
        /// The column.
        column: String,
        /// Its length.
        found: usize,
        /// The length of the others.
        expected: usize,
    },
    /// The data that was fitted holds nothing to fit an operator on.
    #[error("column '{column}': {operator} cannot be fitted: {reason}")]
    Fit {
        /// The column.
        column: String,
        /// The operator.
        operator: &'static str,
        /// Why not.
        reason: String,
    },
    /// The workflow prepares data and cannot answer requests.
    #[error(
        "{operator} {effect}, but a request must get one answer for each of its rows: the workflow cannot be served; \
         prepare the table with one workflow and serve another, whose definition has no `table`"
    )]
    NotServed {
        /// The operator.
        operator: &'static str,
        /// What it does to the rows.
        effect: &'static str,
    },
    /// A file of a saved workflow is not as it should be.
    #[error("{path}: {message}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what is accepted.
        message: String,
    },
}

impl Error {
    pub(crate) fn definition(column: &str, message: &str) -> Self {
        Self::Definition {
            column: column.to_owned(),
            message: message.to_owned(),
        }
    }

    pub(crate) fn file(path: &Path, message: impl std::fmt::Display) -> Self {
        Self::File {
            path: path.to_owned(),
            message: message.to_string(),
        }
    }

    pub(crate) fn types(column: &str, found: impl std::fmt::Display, accepted: &str) -> Self {
        Self::Type {
            column: column.to_owned(),
            found: found.to_string(),
            accepted: accepted.to_owned(),
        }
    }
}
