//! Fuzz targets: one for each reader of bytes that come from outside.
//!
//! A target takes any bytes. It fails by a panic, and it panics on more than the reader's own panics: what is read must be
//! the same when it is written and read again, an error must name what is wrong, a secret must not be shown.
//!
//! `tests/corpus.rs` runs every target over its seeds, over `corpus/<target>/` and over random changes of both, without
//! instrumentation. `scripts/fuzz` runs them under libFuzzer, which looks for inputs that reach new code.

mod files;
mod gateway;
mod seeds;
mod store;
mod triton;
#[allow(
    unreachable_pub,
    missing_docs,
    reason = "the tests of saker-train have it, too"
)]
#[path = "../../crates/saker-train/tests/common/mod.rs"]
mod world;

use std::cell::RefCell;
use std::path::PathBuf;

use tempfile::TempDir;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also that of its folder of inputs.
    pub name: &'static str,
    /// Reads these bytes.
    pub run: fn(&[u8]),
    /// Inputs to start from, made by our own code.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: [Target; 17] = [
    target("tensors", triton::tensors, seeds::tensors),
    target("parameters", triton::parameters, seeds::parameters),
    target("model_config", triton::model_config, seeds::model_config),
    target("defaults", triton::defaults, seeds::defaults),
    target("release", triton::release, seeds::release),
    target("feast_key", store::feast_key, seeds::feast_key),
    target("feast_value", store::feast_value, seeds::feast_value),
    target("bitmap", store::bitmap, seeds::bitmap),
    target("event", store::event, seeds::event),
    target("store_url", store::store_url, seeds::store_url),
    target("gateway_query", gateway::query, seeds::gateway_query),
    target("gateway_events", gateway::events, seeds::gateway_events),
    target("pipeline", files::pipeline, seeds::pipeline),
    target("workflow", files::workflow, seeds::workflow),
    target("npy", files::npy, seeds::npy),
    target("safetensors", files::safetensors, seeds::safetensors),
    target("onnx", files::onnx, seeds::onnx),
];

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// The target of this name.
///
/// # Errors
/// Returns the accepted names for any other name.
pub fn find(name: &str) -> Result<Target, String> {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        format!(
            "fuzz target '{name}' is unknown; accepted: {}",
            names.join(", ")
        )
    })
}

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A file of this name in a folder of the thread's own.
fn scratch(name: &str) -> PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            let memory = std::path::Path::new("/dev/shm");
            match memory.is_dir() {
                true => tempfile::tempdir_in(memory),
                false => tempfile::tempdir(),
            }
            .unwrap_or_else(|error| panic!("a temporary folder: {error}"))
        });
        folder.path().join(name)
    })
}

/// Writes a file of this name, its folders too.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = scratch(name);
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&path, content));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}
