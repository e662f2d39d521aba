use std::path::{Path, PathBuf};

/// An error in a pipeline definition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the pipeline definition {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The text is not TOML, or has an invalid key or kind of value; the message shows the line.
    #[error("{0}")]
    Toml(String),
    /// A value that parses but is not accepted.
    #[error("{key} = {value}: accepted is {accepted}")]
    Invalid {
        /// The key with its table, such as `retrieval.topk`.
        key: String,
        /// The value found.
        value: String,
        /// The accepted values.
        accepted: String,
    },
    /// Any of the above, in a file.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error in that file.
        error: Box<Error>,
    },
}

impl Error {
    pub(crate) fn invalid(
        key: impl Into<String>,
        value: impl ToString,
        accepted: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            key: key.into(),
            value: value.to_string(),
            accepted: accepted.into(),
        }
    }

    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::InFile {
            path: path.to_owned(),
            error: Box::new(self),
        }
    }
}
