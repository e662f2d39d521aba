//! What a user has seen is not shown again: `bloom_filter`, and the fused step.

mod along;
mod fallback;
mod filter;
mod parameters;
mod rows;

pub use filter::{Filter, Row, Worker};
pub use parameters::{Parameters, mode};

/// Stands for no item, and for no user.
pub const PADDING: i64 = -1;
