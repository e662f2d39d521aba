//! The offline store: the history of feature values, for training and for fine-tuning.
//!
//! One folder per feature view, partitioned by the day (UTC) of the event time, in Parquet:
//!
//! ```text
//! <root>/<view>/event_date=2026-05-01/<name>.parquet
//! ```
//!
//! A file holds the join key, the features and the column `event_timestamp` (microseconds, UTC). Feast reads a view's folder
//! as the path of a `FileSource`; other programs read it as Hive partitions. The root is a folder or an S3 bucket.
//!
//! A file is visible only when it is complete, and the writer chooses its name. If a batch is appended again, for example after a crash,
//! it replaces its earlier file and is not counted twice.

#![warn(clippy::indexing_slicing)]

mod error;
mod location;
mod partition;
mod store;
#[cfg(feature = "tables")]
mod tables;

pub use error::Error;
pub use location::open as open_storage;
pub use partition::{EVENT_TIMESTAMP, EVENTS};
pub use store::OfflineStore;
#[cfg(feature = "tables")]
pub use tables::Appended;
