//! Asking Triton Inference Server, by the KServe v2 protocol.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tensor`] | a tensor as it travels |
//! | [`http`] | a blocking client over HTTP: requests, repository, configurations, statistics |
//! | [`grpc`] | an asynchronous client over gRPC, for many requests at once on one connection |
//! | [`balance`] | several servers asked as one: by load, without those that fail |
//! | [`steps`] | an ensemble's steps asked one by one, to see the tensors between them |

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
