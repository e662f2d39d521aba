//! triton-rs-sys
