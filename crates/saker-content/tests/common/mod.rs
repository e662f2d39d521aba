//! The golden file, and what `scripts/install` put in place.

use std::env;
use std::path::{Path, PathBuf};

/// tests/data/golden.json
pub(crate) fn golden() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A part of `${SAKER_CACHE}/runtime`.
pub(crate) fn installed(part: &str) -> PathBuf {
    let cache = env::var_os("SAKER_CACHE").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/saker"),
        PathBuf::from,
    );
    let path = cache.join("runtime").join(part);
    assert!(
        path.exists(),
        "{} is missing; `scripts/install --content` puts it there",
        path.display()
    );
    path
}
