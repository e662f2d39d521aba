//! The offline store: what an entity's features were, and when, for training and for fine-tuning.
//!
//! One folder per feature view, partitioned by the day (UTC) of the event time, in Parquet:
//!
//! ```text
//! <root>/<view>/event_date=2026-05-01/<name>.parquet
//! ```
//!
//! A file holds the join key, the features and the column `event_timestamp` (microseconds, UTC). Feast reads a view's folder
//! as the path of a `FileSource`, and so does anything that knows Hive partitions. The root is a folder or a bucket of S3.
//!
//! Files are written whole and under names that the writer chooses: a batch that is appended once more, after a crash say,
//! replaces itself and is not counted twice.

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
