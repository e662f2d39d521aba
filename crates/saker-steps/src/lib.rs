//! Code shared by steps of the ensembles.
//!
//! Each backend is one step of the ensemble of 14 steps; the backend of the fused ensemble does several of them. Work that both need is
//! here, so that both give the same answer. See the README beside this crate.

#![warn(clippy::indexing_slicing)]

pub mod defaults;
pub mod lookup;
pub mod onnx;
pub mod retrieval;
pub mod seen;
pub mod select;
pub mod transform;
pub mod users;
