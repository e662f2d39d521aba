//! The items that the release knows, for the steps that add popular ones.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use saker_dataset::features::KnownItems;
use saker_pipeline::Pipeline;
use saker_serving::files::write;
use saker_serving::layout::Layout;

/// Writes the raw ids, one per line, to `models/catalogue.txt`.
///
/// # Errors
/// Returns an error if the items cannot be read, or if the file cannot be written.
pub(super) fn write_ids(pipeline: &Pipeline, layout: &Layout) -> Result<PathBuf> {
    let mut text = String::new();
    for id in KnownItems::read(pipeline, layout)?.ids {
        let _ = writeln!(text, "{id}");
    }
    let path = layout.catalogue();
    write(&path, text)?;
    Ok(path)
}
