//! What is promised to a client, on a real Triton and a real Valkey: each backend by itself, the 14-step
//! ensemble against the golden answers, broken stores, stock clients.
//!
//! `scripts/test` runs this after `scripts/build` has put the backends into place.

mod backends;
mod balance;
mod chaos;
mod clients;
mod credentials;
mod feast;
mod fleet;
mod fused;
mod gateway;
mod malformed;
mod perf_analyzer;
mod pipeline;
mod reference;
mod releases;
mod resilience;
mod shared_memory;
mod storefront;
mod supervisor;
mod support;
mod traces;
