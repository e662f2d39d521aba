/// An error of an offline store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address does not name a store.
    #[error(
        "'{location}': {reason}; accepted: a folder, file:///folder or s3://bucket/prefix (with AWS_REGION, \
         AWS_ACCESS_KEY_ID and so on in the environment)"
    )]
    Location {
        /// The address.
        location: String,
        /// The fault.
        reason: String,
    },
    /// The name of a view or a file is invalid.
    #[error(
        "'{0}' cannot name a view or a file; accepted: letters, digits, '_', '-' and '.', not first"
    )]
    Name(String),
    /// The rows cannot be stored.
    #[cfg(feature = "tables")]
    #[error("rows of view '{view}': {reason}")]
    Rows {
        /// The feature view.
        view: String,
        /// The fault.
        reason: String,
    },
    /// An operation on the disk or the bucket failed.
    #[error("offline store, {path}: {source}")]
    Storage {
        /// The object, below the root.
        path: String,
        /// The error of the storage.
        source: object_store::Error,
    },
    /// A file of that name exists.
    #[error("offline store, {0}: there is a file of that name")]
    Exists(String),
    /// A file of the store is not a Parquet file, or its columns are wrong.
    #[cfg(feature = "tables")]
    #[error("offline store, {path}: {source}")]
    Parquet {
        /// The object, below the root.
        path: String,
        /// The error of the reader.
        source: parquet::errors::ParquetError,
    },
    /// The asynchronous runtime could not be started.
    #[error("no thread for the offline store: {0}")]
    Runtime(#[from] std::io::Error),
}
