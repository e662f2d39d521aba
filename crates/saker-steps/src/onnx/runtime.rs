//! Finds ONNX Runtime's shared library and loads it once for the process.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use triton_backend::{Error, log};

const LIBRARY: &str = "libonnxruntime.so";

/// ONNX Runtime allows one environment per process. It lives until the process ends.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The environment, created at the first call.
///
/// # Errors
///
/// Returns an error if the library is missing or has another version. The next call tries again.
pub fn environment() -> Result<Environment, Error> {
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
        return Ok(PathBuf::from(path)); // an explicit path excludes all others
    }
    let places = places();
    let found = places.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Error::unavailable(format!(
            "ONNX Runtime's library is in none of: {}; run scripts/install, or set ORT_DYLIB_PATH to a {LIBRARY} of version 1.{} or later",
            places.join(", "),
            ort::MINOR_VERSION
        ))
    })
}

/// The paths to search: beside this backend's own library, beside the onnxruntime backend's, and the folder of `scripts/install`.
fn places() -> Vec<PathBuf> {
    let own = own_folder();
    let beside = own.as_deref().map(|folder| folder.join(LIBRARY));
    let backend = own.as_deref().and_then(Path::parent);
    let backend = backend.map(|folder| folder.join("onnxruntime").join(LIBRARY));
    let cache = env::var_os("SAKER_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache/saker")));
    let installed = cache.map(|cache| cache.join("runtime/onnxruntime").join(LIBRARY));
    beside.into_iter().chain(backend).chain(installed).collect()
}

/// The folder from which this library was loaded. The process's memory map names the file that contains this function.
fn own_folder() -> Option<PathBuf> {
    let here = own_folder as fn() -> Option<PathBuf> as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let holds = |line: &&str| {
        let range = line.split_once(' ')?.0.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some((address(range.0)?..address(range.1)?).contains(&here))
    };
    let line = maps.lines().find(|line| holds(line).unwrap_or(false))?;
    let path = &line[line.find('/')?..];
    Path::new(path).parent().map(Path::to_owned)
}
