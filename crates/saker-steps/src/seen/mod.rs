//! Removes items that a user has seen. Used by `bloom_filter` and the fused step.

mod along;
mod fallback;
mod filter;
mod parameters;
mod rows;

pub use filter::{Filter, Worker};
pub use parameters::{Parameters, mode, redis_url};
pub use rows::Row;
