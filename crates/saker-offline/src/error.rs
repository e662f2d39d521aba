/// What can go wrong with an offline store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of a store is not one that can be opened.
    #[error(
        "'{location}': {reason}; accepted: a folder, file:///folder or s3://bucket/prefix (with AWS_REGION, \
         AWS_ACCESS_KEY_ID and so on in the environment)"
    )]
    Location {
        /// What was given.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A view's or a file's name would not be one folder or file.
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
        /// What is wrong with them.
        reason: String,
    },
    /// The disk or the bucket does not do what it should.
    #[error("offline store, {path}: {source}")]
    Storage {
        /// The object, below the root.
        path: String,
        /// What the storage says.
        source: object_store::Error,
    },
    /// A file of that name is there already.
    #[error("offline store, {0}: there is a file of that name")]
    Exists(String),
    /// A file of the store is no Parquet, or other than it should be.
    #[cfg(feature = "tables")]
    #[error("offline store, {path}: {source}")]
    Parquet {
        /// The object, below the root.
        path: String,
        /// What the reader says.
        source: parquet::errors::ParquetError,
    },
    /// No runtime to talk to the storage with.
    #[error("no thread for the offline store: {0}")]
    Runtime(#[from] std::io::Error),
}
