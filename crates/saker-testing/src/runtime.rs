//! Paths of the third-party parts that `scripts/install` provides, and of this repository.

use std::{env, path::PathBuf};

use anyhow::{Result, bail};
use triton_testing::server::{Builder, TritonServer};

/// A builder of the installed Triton, with the backends of [`backends`] and ONNX Runtime in its environment.
///
/// # Errors
/// Returns an error if Triton or the backends are missing; the message names the command that makes them.
pub fn triton() -> Result<Builder> {
    let mut builder = TritonServer::builder()
        .program(tritonserver()?)
        .backends(backends()?);
    if let Ok(library) = onnxruntime() {
        builder = builder.env("ORT_DYLIB_PATH", &library.to_string_lossy());
    }
    Ok(builder)
}

/// `tritonserver`: `SAKER_TRITON`, or the one that `scripts/install` unpacked.
///
/// # Errors
/// Returns an error if the file is missing; the message names the command that installs it.
pub fn tritonserver() -> Result<PathBuf> {
    part(
        "SAKER_TRITON",
        "triton/pytriton/tritonserver/bin/tritonserver",
    )
}

/// `valkey-server`: `SAKER_VALKEY`, or the one that `scripts/install` unpacked.
///
/// # Errors
/// Returns an error if the file is missing; the message names the command that installs it.
pub fn valkey_server() -> Result<PathBuf> {
    part("SAKER_VALKEY", "valkey/valkey-server")
}

/// ONNX Runtime's shared library: `ORT_DYLIB_PATH`, or the one that `scripts/install` unpacked.
///
/// # Errors
/// Returns an error if the file is missing; the message names the command that installs it.
pub fn onnxruntime() -> Result<PathBuf> {
    part("ORT_DYLIB_PATH", "onnxruntime/libonnxruntime.so")
}

/// The interpreter of the virtual environment that holds the stock Python clients.
///
/// # Errors
/// Returns an error if the file is missing; the message names the command that installs it.
pub fn python() -> Result<PathBuf> {
    part("SAKER_TEST_PYTHON", "venv/bin/python")
}

/// The interpreter of the virtual environment that holds Feast and the stand-in for S3.
///
/// # Errors
/// Returns an error if the file is missing; the message names the command that installs it.
pub fn peers_python() -> Result<PathBuf> {
    part("SAKER_PEERS_PYTHON", "peers/bin/python")
}

/// NVIDIA's load generator.
///
/// # Errors
/// Returns an error if the file is missing; the message names the command that installs it.
pub fn perf_analyzer() -> Result<PathBuf> {
    part("SAKER_PERF_ANALYZER", "perf_analyzer/perf_analyzer")
}

/// The folder given to Triton as `--backend-directory`: `SAKER_BACKENDS`, or `.saker/backends`
/// of this workspace, which `scripts/build` fills.
///
/// # Errors
/// Returns an error if the folder is missing; the message names the command that builds it.
pub fn backends() -> Result<PathBuf> {
    let folder = env::var_os("SAKER_BACKENDS").map_or_else(
        || workspace().join(".saker/backends"),
        |folder| workspace().join(folder),
    );
    if !folder.is_dir() {
        bail!(
            "the backends are missing at '{}': run scripts/build, or set SAKER_BACKENDS",
            folder.display()
        );
    }
    Ok(folder)
}

/// The root of this repository.
#[must_use]
pub fn workspace() -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::path::Path::new(root)
        .canonicalize()
        .unwrap_or_else(|_| root.into())
}

fn part(variable: &str, place: &str) -> Result<PathBuf> {
    let path = match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => cache().join("runtime").join(place),
    };
    if !path.is_file() {
        bail!(
            "'{}' is missing: run scripts/install --tests, or set {variable}",
            path.display()
        );
    }
    Ok(path)
}

fn cache() -> PathBuf {
    env::var_os("SAKER_CACHE").map_or_else(
        || {
            let home = env::var_os("HOME").unwrap_or_else(|| "/".into());
            PathBuf::from(home).join(".cache/saker")
        },
        PathBuf::from,
    )
}
