//! Test doubles and harnesses for Triton backends: a fake of the C API for lifecycle tests, and
//! the real Triton and Valkey, started for one test.

#![allow(
    clippy::expect_used,
    reason = "a test double that is used wrongly ends its test"
)]

pub mod bloom_server;
pub mod cluster;
pub mod fake;
pub mod onnx;
pub mod ports;
mod process;
pub mod repository;
pub mod runtime;
pub mod s3_server;
pub mod server;
mod stand_in;
pub mod tensor;
pub mod tls;
pub mod valkey;
