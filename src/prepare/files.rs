//! The files that a path of `[data]` names.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use saker_pipeline::Pipeline;

use super::source::MISSING;

/// The files of a path: itself, those of a folder that end in `.parquet`, or those whose names match a pattern such as
/// `day_*.parquet`; in the order of names.
pub(super) fn files(pipeline: &Pipeline, path: &str) -> Result<Vec<PathBuf>> {
    let path = pipeline.resolve(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (folder, pattern) = if path.is_dir() {
        (path.clone(), "*.parquet".to_owned())
    } else if name.contains(['*', '?', '[']) && !path.exists() {
        (path.parent().unwrap_or(&path).to_owned(), name.into_owned())
    } else {
        return Ok(vec![path]);
    };
    let matching = glob::Pattern::new(&pattern)
        .with_context(|| format!("{} is no pattern of file names", path.display()))?;
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("{} is missing; {MISSING}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry
            .with_context(|| format!("cannot list {}", folder.display()))?
            .path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if matching.matches(&name) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!(
            "{} holds no file called {pattern}; {MISSING}",
            folder.display()
        );
    }
    files.sort();
    Ok(files)
}
