//! Small files, written whole or not at all.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file beside `path` and renames it, so that a reader, or whoever comes after a crash, sees the old content or
/// the new one.
///
/// # Errors
/// The disk does not take it.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let beside = path.with_added_extension("new");
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(&beside, content)?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
