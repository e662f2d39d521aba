//! Valkey and Redis as Saker uses them. This crate knows nothing of Triton.
//!
//! | module | what it holds |
//! |---|---|
//! | [`address`] | where a store's URL comes from: a text, or the environment |
//! | [`settings`] | store URLs (TLS, ACL users, databases, clusters), never printed with their credentials |
//! | [`pipeline`] | commands packed for one round trip |
//! | [`connection`] | one blocking connection whose calls end by a deadline, whatever the server does |
//! | [`link`] | connections made and kept in the background; the request path never connects |
//! | [`feast`] | Feast's online store layout, read and written byte for byte |
//! | [`guarded`] | changes made once, together, and only if what they were computed from still holds |
//! | [`seen`] | which items a user has seen: `BF.*` or our own bitmap |
//! | [`recent`] | a user's recent items and the `top_category` that follows from them |
//! | [`popularity`] | the `trending:*` sets |
//! | [`events`] | what visitors do, each event once, for whoever applies it |

#![warn(clippy::indexing_slicing)]

pub mod address;
pub mod connection;
pub mod error;
pub mod events;
pub mod feast;
pub mod guarded;
pub mod link;
pub mod pipeline;
pub mod popularity;
pub mod recent;
pub mod seen;
pub mod settings;

mod cluster;
mod stream;

pub use address::Address;
pub use connection::{CommandResult, Connection};
pub use error::StoreError;
pub use link::{Client, Link};
pub use pipeline::Pipeline;
pub use redis::Value as Reply;
pub use settings::{RedactedUrl, Settings};
