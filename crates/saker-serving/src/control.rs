//! The key to the control API of the Triton that `saker serve` starts.
//!
//! A client that may load a model may run any code in the server: a load request can contain a shared library, and a web page can send
//! such a request to a developer's machine. So the server refuses these requests without a key, which only this user can read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use triton_client::Triton;

use crate::files;
use crate::layout::Layout;

/// Triton's services that change the server, or read and write memory for it.
const RESTRICTED: &str = "model-repository,shared-memory,logging,trace";
/// The header that carries the key.
const CONTROL_HEADER: &str = "saker-control-key";
/// The variable with the key of a server that `saker serve` did not start.
const VARIABLE: &str = "SAKER_CONTROL_KEY";

fn file(layout: &Layout) -> PathBuf {
    layout.run().join("control.key")
}

/// Creates a key for a server before its start, and writes it to `run/control.key` (mode 0600).
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn new_key(layout: &Layout) -> Result<String> {
    let key: [u8; 16] = rand::random();
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = file(layout);
    fs::create_dir_all(layout.run())
        .with_context(|| format!("cannot create {}", layout.run().display()))?;
    // Create the file anew, so that it does not keep the permissions of an old one.
    files::remove(&path)?;
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(&path);
    written
        .and_then(|mut file| file.write_all(key.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

/// The arguments of `tritonserver` that require the key, over HTTP and gRPC.
pub fn restrictions(key: &str) -> [String; 2] {
    ["http-restricted-api", "grpc-restricted-protocol"]
        .map(|option| format!("--{option}={RESTRICTED}:{CONTROL_HEADER}={key}"))
}

/// The server's key: `SAKER_CONTROL_KEY`, or else the key that `saker serve` wrote.
pub fn key(layout: &Layout) -> Option<String> {
    key_from_environment().or_else(|| fs::read_to_string(file(layout)).ok())
}

/// `SAKER_CONTROL_KEY`, if it is not empty.
pub fn key_from_environment() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|key| !key.is_empty())
}

/// A client with the key of the server at `host:port`.
pub fn client(layout: &Layout, address: &str, timeout: Duration) -> Triton {
    with_key(Triton::with_timeout(address, timeout), key(layout))
}

/// Like [`client`], with the default timeout.
pub fn patient_client(layout: &Layout, address: &str) -> Triton {
    with_key(Triton::new(address), key(layout))
}

/// The client, which sends the key with each request to the control API.
pub fn with_key(triton: Triton, key: Option<String>) -> Triton {
    match key {
        Some(key) => triton.with_control_header(CONTROL_HEADER, &key),
        None => triton,
    }
}
