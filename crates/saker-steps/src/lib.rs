//! What steps of the ensembles have in common.
//!
//! Each backend is a step of the 14; a backend of the fused ensemble does several of them in one. The work of a step that both
//! need is here, so that both give the same answer. See the README beside this crate.

#![warn(clippy::indexing_slicing)]

pub mod defaults;
pub mod degraded;
pub mod lookup;
pub mod onnx;
pub mod retrieval;
pub mod seen;
pub mod select;
pub mod transform;
pub mod users;
