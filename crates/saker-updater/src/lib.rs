//! Applies what visitors do.
//!
//! The gateway (or any other writer) adds events to the stream of [`saker_store::events`]. Workers of one consumer group take
//! them from there and turn each into all that follows from it: what its user has seen, the recent items, the top category in
//! the online store, and popularity. One script per user and batch does that together with the acknowledgement
//! ([`saker_store::guarded`]), so an event is applied exactly once, whenever a worker is killed or paused:
//!
//! ```text
//! events ──XREADGROUP──▶ worker ──┬─▶ bf:seen:{user} or saker:seen:1:{user}     db 1
//!    ▲  pending: claimed          ├─▶ user:{user}:recent_items                  db 1
//!    │                            ├─▶ top category, Feast's layout              db 0
//!    └─ trimmed                   ├─▶ trending:*                                db 3
//!                                 └─▶ events:applied ──▶ offline store, Parquet
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`catalogue`] | the categories of the items |
//! | [`change`] | what follows from a user's events: pure |
//! | [`worker`] | taking events, applying them, claiming what a dead worker left |
//! | [`housekeeping`] | trimming the stream, decay of popularity |
//! | [`offline`] | what was applied, as Parquet in the offline store |
//! | [`counters`] | what was done so far |

#![warn(clippy::indexing_slicing)]

pub mod catalogue;
pub mod change;
pub mod counters;
pub mod housekeeping;
pub mod offline;
pub mod worker;

mod entry;
mod updater;

pub use entry::EntryId;
pub use updater::{Readiness, Settings, Updater};
