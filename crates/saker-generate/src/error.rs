//! Errors of this crate.

use std::path::PathBuf;

/// Why a shop was not made, or has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that is not accepted.
    #[error("{setting} = {value}: accepted is {accepted}")]
    Setting {
        /// Its name, which is also the command's argument: `users`, `first-day`.
        setting: &'static str,
        /// The given value.
        value: String,
        /// The accepted values.
        accepted: String,
    },
    /// A file or folder that could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A table that Parquet did not take, or that is not what was written.
    #[error("{path}: {reason}")]
    Table {
        /// The file.
        path: PathBuf,
        /// The error of Parquet or Arrow.
        reason: String,
    },
    /// A `generator.json` from which no shop can be rebuilt.
    #[error("{path}: {reason}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The mismatch.
        reason: String,
    },
    /// A product picture that could not be drawn.
    #[error("picture of item {item}: {reason}")]
    Picture {
        /// The item id.
        item: i32,
        /// The error of the renderer.
        reason: String,
    },
}

impl Error {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn table<E: std::fmt::Display>(
        path: &std::path::Path,
    ) -> impl FnOnce(E) -> Self + '_ {
        move |reason| Self::Table {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
