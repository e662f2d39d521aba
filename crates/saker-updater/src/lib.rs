//! Applies visitors' events.
//!
//! The gateway (or another writer) adds events to the stream of [`saker_store::events`]. The consumers of one group take
//! them from there. Each event changes its user's seen items, recent items and top category in the online store, and popularity.
//! One script per user and batch makes these changes and acknowledges the events ([`saker_store::guarded`]). So an event is
//! applied exactly once, even if a consumer is killed or paused:
//!
//! ```text
//! events ──XREADGROUP──▶ worker ──┬─▶ bf:seen:{user} or saker:seen:1:{user}     db 1
//!    ▲  pending: claimed          ├─▶ user:{user}:recent_items                  db 1
//!    │                            ├─▶ top category, Feast's layout              db 0
//!    └─ trimmed                   ├─▶ trending:*                                db 3
//!                                 └─▶ events:applied ──▶ offline store, Parquet
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`item_categories`] | the categories of the items |
//! | [`change`] | the changes that follow from a user's events, as a pure function |
//! | [`consumer`] | takes events, applies them, and claims the events of a dead consumer |
//! | [`housekeeping`] | trims the stream, applies the decay of popularity |
//! | [`offline`] | writes applied events to the offline store, as Parquet |
//! | [`counters`] | Prometheus metrics |

#![warn(clippy::indexing_slicing)]

pub mod change;
pub mod consumer;
pub mod counters;
pub mod housekeeping;
pub mod item_categories;
pub mod offline;

mod entry;
mod updater;

pub use entry::EntryId;
pub use updater::{Readiness, Settings, Updater};
