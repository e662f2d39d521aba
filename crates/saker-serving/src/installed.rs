//! Finds the programs and libraries that `scripts/install` and `scripts/build` provide, or that the environment names.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// `tritonserver`: `SAKER_TRITON`, the installed one, or the one of NVIDIA's container.
///
/// # Errors
/// Returns an error if none exists; the message says how to install it.
pub fn tritonserver() -> Result<PathBuf> {
    find(
        "SAKER_TRITON",
        "triton/pytriton/tritonserver/bin/tritonserver",
        &["/opt/tritonserver/bin/tritonserver"],
        "Triton Inference Server",
    )
}

/// `valkey-server`: `SAKER_VALKEY`, the installed one, or the system's.
///
/// # Errors
/// Returns an error if none exists; the message says how to install it.
pub fn valkey_server() -> Result<PathBuf> {
    find(
        "SAKER_VALKEY",
        "valkey/valkey-server",
        &[
            "/usr/bin/valkey-server",
            "/usr/local/bin/valkey-server",
            "/usr/bin/redis-server",
        ],
        "Valkey",
    )
}

/// The shared library of ONNX Runtime, for our backend `onnxruntime`; `None` if NVIDIA's backend is used.
pub fn onnxruntime() -> Option<PathBuf> {
    find(
        "ORT_DYLIB_PATH",
        "onnxruntime/libonnxruntime.so",
        &[],
        "ONNX Runtime",
    )
    .ok()
}

/// The folder of Triton's backends: `SAKER_BACKENDS`, or `.saker/backends`.
///
/// # Errors
/// Returns an error if the folder is missing; the message says how to build the backends.
pub fn backends() -> Result<PathBuf> {
    let folder = env::var_os("SAKER_BACKENDS")
        .map_or_else(|| PathBuf::from(".saker/backends"), PathBuf::from);
    if !folder.is_dir() {
        bail!(
            "the backends are not built: {} is missing; run `scripts/build`, or set SAKER_BACKENDS",
            folder.display()
        );
    }
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}

fn find(variable: &str, installed: &str, others: &[&str], what: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
    {
        if path.is_file() {
            return Ok(path);
        }
        bail!("{variable} names {}, which is not a file", path.display());
    }
    let cache = env::var_os("SAKER_CACHE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| {
            let home = env::var_os("HOME")?;
            Some(PathBuf::from(home).join(".cache/saker"))
        });
    let installed = cache.map(|cache| cache.join("runtime").join(installed));
    let places = installed
        .into_iter()
        .chain(others.iter().map(PathBuf::from));
    match places.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => {
            bail!("{what} is not installed; run `scripts/install`, or set {variable} to its path")
        }
    }
}
