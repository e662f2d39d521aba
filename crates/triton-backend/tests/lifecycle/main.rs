//! Tests the SDK against the fake of Triton's C API. Whatever a backend does, every request is answered and released exactly once, and
//! nothing unwinds into the server.
//!
//! `scripts/sanitize` runs these under AddressSanitizer.

mod inputs;
mod load;
mod outputs;
mod requests;
mod scripted;
mod services;
mod shared;
