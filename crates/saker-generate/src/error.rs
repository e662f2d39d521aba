//! Errors of this crate.

use std::path::PathBuf;

/// An error of generating or reading a shop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is invalid.
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
    /// A table could not be written or read, or does not match the shop.
    #[error("{path}: {reason}")]
    Table {
        /// The file.
        path: PathBuf,
        /// The error of Parquet or Arrow.
        reason: String,
    },
    /// A `generator.json` is invalid or belongs to another version.
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
