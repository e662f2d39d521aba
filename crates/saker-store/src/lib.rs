//! Access to Valkey and Redis for Saker. This crate does not depend on Triton.
//!
//! | module | content |
//! |---|---|
//! | [`address`] | a store's URL, from a text or the environment |
//! | [`settings`] | store URLs (TLS, ACL users, databases, clusters), never printed with their credentials |
//! | [`pipeline`] | commands sent in one round trip |
//! | [`connection`] | one blocking connection whose calls end at a deadline, whatever the server does |
//! | [`link`] | connections made in the background; the request path never connects |
//! | [`feast`] | Feast's online store layout, read and written byte for byte |
//! | [`guarded`] | changes made once and together, only if the data they were computed from are unchanged |
//! | [`seen`] | the items that a user has seen: `BF.*` or our own bitmap |
//! | [`recent`] | a user's recent items and the `top_category` derived from them |
//! | [`popularity`] | the `trending:*` sets |
//! | [`events`] | events of visitors, each stored once, for the program that applies them |

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
mod node;
mod stream;

pub use address::Address;
pub use connection::Connection;
pub use error::StoreError;
pub use link::{Client, Link};
pub use node::CommandResult;
pub use pipeline::Pipeline;
pub use redis::Value as Reply;
pub use settings::{RedactedUrl, Settings};
