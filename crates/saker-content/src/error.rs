//! Errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// An error of opening an encoder or of encoding a catalogue.
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
    /// A model, or a file beside it, that the encoder does not support.
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
    /// The number of components exceeds the width of the vectors.
    #[error(
        "{asked} components were requested for vectors of width {width}; accepted are at most {width}"
    )]
    Components {
        /// Requested number of components.
        asked: usize,
        /// Width of the vectors.
        width: usize,
    },
    /// There are no vectors to fit on.
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
