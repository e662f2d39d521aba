//! Finds ONNX Runtime's shared library and loads it once for the process.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use triton_backend::{Error, log};

const LIBRARY: &str = "libonnxruntime.so";
const OWN_LIBRARY: &str = "libtriton_onnxruntime.so";

/// ONNX Runtime allows one environment a process; it lives until the process ends.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The environment, made at the first call.
///
/// # Errors
///
/// When the library is missing or of another version. The next call tries again.
pub(crate) fn environment() -> Result<Environment, Error> {
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let path = library()?;
    let unusable = |error: &dyn std::fmt::Display| {
        Error::unavailable(format!(
            "ONNX Runtime at {} cannot be used: {error}",
            path.display()
        ))
    };
    let made = ort::init_from(&path)
        .map_err(|error| unusable(&error))?
        .with_name("triton")
        .build()
        .map_err(|error| unusable(&error))?;
    log::info!("onnxruntime: {}", path.display());
    Ok(environment.insert(made).clone())
}

fn library() -> Result<PathBuf, Error> {
    let set = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    if let Some(path) = set {
        return Ok(PathBuf::from(path)); // whoever sets it wants no other
    }
    let places = places();
    let found = places.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Error::unavailable(format!(
            "ONNX Runtime's library is at none of: {}; run scripts/install, or set ORT_DYLIB_PATH to a {LIBRARY} of version 1.{} or later",
            places.join(", "),
            ort::MINOR_VERSION
        ))
    })
}

/// Beside this backend's own library, then where `scripts/install` puts it.
fn places() -> Vec<PathBuf> {
    let beside = own_folder().map(|folder| folder.join(LIBRARY));
    let cache = env::var_os("SAKER_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache/saker")));
    let installed = cache.map(|cache| cache.join("runtime/onnxruntime").join(LIBRARY));
    beside.into_iter().chain(installed).collect()
}

/// The folder this library was loaded from, by the process's memory map.
fn own_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(OWN_LIBRARY))?;
    let path = &line[line.find('/')?..];
    Path::new(path).parent().map(Path::to_owned)
}
