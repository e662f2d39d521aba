use std::path::{Path, PathBuf};

use datafusion::error::DataFusionError;

/// An error of a function over rows.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of a bulk job.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system or of Parquet.
        reason: String,
    },
    /// The workflow does not accept a column or a value.
    #[error(transparent)]
    Workflow(#[from] saker_workflow::Error),
    /// The error of a function over rows.
    #[error(transparent)]
    Rows(BoxError),
    /// An operation that cannot spill needs more memory than the limit.
    #[error("the bound of {bound_mib} MiB is too small for this job; allow more memory ({reason})")]
    Memory {
        /// The limit, in MiB.
        bound_mib: usize,
        /// The message of DataFusion.
        reason: String,
    },
    /// Another error of DataFusion.
    #[error("{0}")]
    Engine(String),
}

impl Error {
    pub(crate) fn file(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// Converts an error of DataFusion. An error of this crate that passed through DataFusion is returned unchanged.
    pub(crate) fn of(error: DataFusionError, bound_bytes: usize) -> Self {
        match error {
            DataFusionError::External(error) => match error.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(error) => Self::Rows(error),
            },
            DataFusionError::Context(_, error) => Self::of(*error, bound_bytes),
            DataFusionError::Shared(error) => match std::sync::Arc::try_unwrap(error) {
                Ok(error) => Self::of(error, bound_bytes),
                Err(error) => Self::Engine(error.strip_backtrace()),
            },
            DataFusionError::ResourcesExhausted(reason) => Self::Memory {
                bound_mib: bound_bytes >> 20,
                reason,
            },
            error => Self::Engine(error.strip_backtrace()),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}
