//! Small files, written whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file beside `path`, has the disk take it, and renames it: a reader, or whoever comes after a crash of the
/// program or the machine, sees the old content or the new one.
///
/// # Errors
/// The disk does not take it.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let beside = path.with_added_extension("new");
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = File::create(&beside)?;
        file.write_all(content.as_ref())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a file, if there is one.
///
/// # Errors
/// The disk does not let it.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
