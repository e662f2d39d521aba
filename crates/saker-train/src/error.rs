//! Errors of this crate.

use std::path::PathBuf;

/// An error of training, export or evaluation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data set contradicts itself: a column of the wrong length, a code beyond its cardinality.
    #[error("{0}")]
    Data(String),
    /// The definition needs something that the data lack.
    #[error("{0}")]
    Definition(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A checkpoint does not match this data and definition.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The mismatch.
        reason: String,
    },
    /// An ONNX model was not exported by this crate.
    #[error("the ONNX model is not a ranker as `saker train` exports it: {0}")]
    Foreign(String),
    /// The device does not exist.
    #[error("{0}")]
    Device(String),
    /// No new interactions exist to fine-tune on.
    #[error(
        "no positive interaction is newer than the models' training data (up to Unix second {since})"
    )]
    NothingNew {
        /// Time of the newest interaction in the models' training data, Unix seconds.
        since: i32,
    },
    /// Training diverged.
    #[error("the loss of the {model} is {loss} in epoch {epoch}; a smaller learning rate may help")]
    Diverged {
        /// `towers` or `ranker`.
        model: &'static str,
        /// The loss: infinite or not a number.
        loss: f64,
        /// Epoch, from 1.
        epoch: usize,
    },
    /// The progress callback asked to stop.
    #[error("training was stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }
}
