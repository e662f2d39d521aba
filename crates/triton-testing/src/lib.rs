//! Test doubles and harnesses for Triton backends: a fake of the C API for lifecycle tests, and
//! the real Triton, started for one test.

#![allow(
    clippy::expect_used,
    reason = "a test double that is used wrongly ends its test"
)]

pub mod fake;
pub mod ports;
pub mod process;
pub mod repository;
pub mod server;
pub mod tensor;
