//! triton-backend
