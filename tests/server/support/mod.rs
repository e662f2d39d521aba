//! What the tests share.

pub(crate) mod checks;
pub(crate) mod config;
pub(crate) mod golden;
pub(crate) mod parquet;
pub(crate) mod stage;
pub(crate) mod store;
pub(crate) mod until;
pub(crate) mod workflow;
