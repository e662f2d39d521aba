use std::path::{Path, PathBuf};

use datafusion::error::DataFusionError;

/// An error of a function over rows.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What kept a bulk job from its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A column or value that the workflow does not accept.
    #[error(transparent)]
    Workflow(#[from] saker_workflow::Error),
    /// What a function over rows said.
    #[error(transparent)]
    Rows(BoxError),
    /// More memory is needed at once than the setting allows, for something that cannot be spilled.
    #[error("the bound of {bound_mib} MiB is too small for this job; allow more memory ({reason})")]
    Memory {
        /// The setting, in MiB.
        bound_mib: usize,
        /// What DataFusion says.
        reason: String,
    },
    /// Anything else that DataFusion says.
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

    /// An error of DataFusion: ours comes back as it went in.
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
