//! What Saker's tests need beside a Triton: a real Valkey, stand-ins for other servers, and small ONNX models.
//!
//! | module | what it holds |
//! |---|---|
//! | [`runtime`] | paths of the installed parts and of this repository; a builder of Triton that knows them |
//! | [`valkey`], [`cluster`] | a Valkey, or three that share the slots, for one test |
//! | [`tls`] | TLS in front of a plain server |
//! | [`bloom_server`], [`s3_server`] | stand-ins for servers that cannot be installed |
//! | [`onnx`] | ONNX models, written by a test |
//!
//! The crate is for this repository. `triton-testing` is what an author of a backend needs.

#![allow(
    clippy::expect_used,
    reason = "a test double that is used wrongly ends its test"
)]

pub mod bloom_server;
pub mod cluster;
pub mod onnx;
pub mod runtime;
pub mod s3_server;
mod stand_in;
pub mod tls;
pub mod valkey;
