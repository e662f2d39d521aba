//! Free TCP ports of the loopback interface, for servers that need a port number at their start.

use std::{
    net::TcpListener,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context, Result};

/// Below the ports that Linux lends to connections (`ip_local_port_range`, from 32768 on), so that no client takes a server's
/// before it starts, or while it is down. A Valkey of a cluster listens 10000 ports above its own as well: below them, too.
const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;

/// Apart from those of test programs that run at the same time, whose ids are near.
static NEXT: LazyLock<AtomicU16> =
    LazyLock::new(|| AtomicU16::new((std::process::id() % 97 * 103) as u16));

/// A port on which no server listens, and that this process has not received before.
///
/// ```
/// let port = triton_testing::ports::free_port().expect("a free port");
/// assert!(port >= 10_000);
/// ```
///
/// # Errors
/// Returns an error if no port is free.
pub fn free_port() -> Result<u16> {
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .with_context(|| format!("no port from {FIRST} to {} is free", FIRST + COUNT - 1))
}
