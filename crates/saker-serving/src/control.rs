//! The key to the control API of the Triton that `saker serve` starts.
//!
//! Whoever may load a model may run any code in the server: a load request can carry a shared library, and a web page can send
//! one to a developer's machine. So the server refuses these requests without a key, which only this user can read.

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

/// Makes a key for a server that is about to start, and keeps it in `run/control.key` (mode 0600).
///
/// # Errors
/// Returns an error if the disk does not take the file.
pub fn new_key(layout: &Layout) -> Result<String> {
    let key: [u8; 16] = rand::random();
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = file(layout);
    fs::create_dir_all(layout.run())
        .with_context(|| format!("cannot create {}", layout.run().display()))?;
    // Anew, so that it has these permissions whatever the old file had.
    files::remove(&path)?;
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(&path);
    written
        .and_then(|mut file| file.write_all(key.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

/// The arguments of `tritonserver` that ask for the key, over HTTP and gRPC.
pub fn restrictions(key: &str) -> [String; 2] {
    ["http-restricted-api", "grpc-restricted-protocol"]
        .map(|option| format!("--{option}={RESTRICTED}:{CONTROL_HEADER}={key}"))
}

/// The key of the server at hand: `SAKER_CONTROL_KEY`, else what `saker serve` wrote.
pub fn key(layout: &Layout) -> Option<String> {
    key_from_environment().or_else(|| fs::read_to_string(file(layout)).ok())
}

/// `SAKER_CONTROL_KEY`, where it says something.
pub fn key_from_environment() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|key| !key.is_empty())
}

/// A client of the server at `host:port` that has the key.
pub fn client(layout: &Layout, address: &str, timeout: Duration) -> Triton {
    with_key(Triton::with_timeout(address, timeout), key(layout))
}

/// As [`client`], with the usual timeout.
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
