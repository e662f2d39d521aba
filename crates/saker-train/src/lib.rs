//! Trains two towers for retrieval and a DLRM for ranking, on [Burn](https://burn.dev). Exports them to ONNX. Computes metrics and
//! baselines.
//!
//! The input is encoded columns ([`data::Dataset`]); the output is ONNX files that ONNX Runtime and TensorRT serve. The tables `[towers]`,
//! `[ranker]` and `[training]` of the pipeline definition set sizes and schedules.

#![allow(
    clippy::expect_used,
    reason = "no request waits for it; each message says what was checked before"
)]

pub mod baselines;
pub mod candidates;
pub mod checkpoint;
mod column;
pub mod data;
pub mod device;
pub mod encoded;
mod error;
pub mod evaluate;
pub mod factorization;
pub mod finetune;
mod layers;
pub mod learning;
pub mod metrics;
pub mod onnx;
mod parameter;
pub mod pretrained;
pub mod progress;
pub mod ranker;
mod sampling;
pub mod towers;

pub use error::Error;
