//! Removes items that a user has seen. Used by `bloom_filter` and the fused step.

mod along;
mod fallback;
mod filter;
mod parameters;
mod rows;

pub use filter::{Filter, Row, Worker};
pub use parameters::{Parameters, mode};

/// The id that means "no item" or "no user".
pub const PADDING: i64 = -1;
