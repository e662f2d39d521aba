//! Tests against real servers: a Valkey, and for `BF.*` a stub that implements the protocol.

mod cluster;
mod failures;
mod feast;
mod login;
mod real_feast;
mod recent;
mod seen;
mod support;
