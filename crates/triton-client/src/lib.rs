#![cfg_attr(feature = "grpc", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "grpc"),
    doc = "A blocking client of NVIDIA Triton Inference Server; the feature `grpc` adds an asynchronous one."
)]
#![warn(clippy::indexing_slicing)]

#[cfg(feature = "grpc")]
pub mod balance;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod http;
pub mod steps;
pub mod tensor;

mod error;

pub use error::{Error, Result};
pub use http::{ModelVersion, Triton};
pub use tensor::Tensor;
