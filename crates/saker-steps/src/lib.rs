//! Code shared by steps of the ensembles.
//!
//! Each backend is one step of the ensemble of 14 steps; the backend of the fused ensemble does several of them. Work that both need is
//! here, so that both give the same answer. Each subject is a feature, because a backend compiles only what it uses. See the README beside
//! this crate.

#![warn(clippy::indexing_slicing)]

#[cfg(feature = "defaults")]
pub mod defaults;
#[cfg(feature = "lookup")]
pub mod lookup;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "retrieval")]
pub mod retrieval;
#[cfg(feature = "seen")]
pub mod seen;
#[cfg(feature = "select")]
pub mod select;
#[cfg(any(feature = "lookup", feature = "seen"))]
pub mod store;
#[cfg(feature = "transform")]
pub mod transform;
#[cfg(feature = "defaults")]
pub mod users;
