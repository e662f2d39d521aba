//! The items that the release knows, for the steps that put in popular ones.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use saker_pipeline::Pipeline;
use saker_serving::files::write;
use saker_serving::layout::Layout;

use super::fused::RECOMMENDATION;
use crate::features::KnownItems;

/// The file in the version folder of each of them.
pub(super) const FILE: &str = "catalogue.txt";

/// Whether a model tops up with popular items.
pub(super) fn is_read_by(model: &str) -> bool {
    ["filter_seen_items", RECOMMENDATION].contains(&model)
}

/// Writes the raw ids, one a line, to `models/catalogue.txt`.
///
/// # Errors
/// The items cannot be read, or the disk does not take it.
pub(super) fn write_ids(pipeline: &Pipeline, layout: &Layout) -> Result<PathBuf> {
    let mut text = String::new();
    for id in KnownItems::read(pipeline, layout)?.ids {
        let _ = writeln!(text, "{id}");
    }
    let path = layout.catalogue();
    write(&path, text)?;
    Ok(path)
}
