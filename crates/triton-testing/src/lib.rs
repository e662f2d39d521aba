//! triton-testing
