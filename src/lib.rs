//! The `saker` command line: prepare data, train, assemble a model repository and serve it on Triton.
//!
//! | module | content |
//! |---|---|
//! | [`commands`] | the arguments and the control flow of each command |
//! | [`code`] | the hash over the sources, for fingerprints |
//! | [`report`] | the reports of evaluations and simulations |
//! | [`explain`] | the output of each step of Triton |
//!
//! The code shared with the serving programs is in [`saker_serving`].

pub mod code;
pub mod commands;
pub mod explain;
pub mod report;
