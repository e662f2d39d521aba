#![doc = include_str!("../README.md")]
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
