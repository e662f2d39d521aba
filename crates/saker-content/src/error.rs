//! Errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Why an encoder could not be opened, or a catalogue not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A model, or a file beside it, that is not what the encoder runs.
    #[error("{path}: {reason}")]
    Model {
        /// The file.
        path: PathBuf,
        /// The wrong value, and the accepted ones.
        reason: String,
    },
    /// ONNX Runtime's shared library cannot be used.
    #[error("ONNX Runtime at {path} cannot be used: {reason}")]
    Runtime {
        /// The shared library.
        path: PathBuf,
        /// The message.
        reason: String,
    },
    /// The cache could not be written.
    #[error("cannot write the cache {path}: {reason}")]
    Cache {
        /// The file.
        path: PathBuf,
        /// The failed operation.
        reason: String,
    },
    /// More components than the vectors are wide.
    #[error(
        "{asked} components were asked of vectors of {width} numbers; at most {width} can be had"
    )]
    Components {
        /// Requested number of components.
        asked: usize,
        /// Width of the vectors.
        width: usize,
    },
    /// No vector to fit on.
    #[error("no vectors to compute components from")]
    NoVectors,
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn model(path: &Path, reason: impl ToString) -> Self {
        Self::Model {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
