//! The codes of texts for the lookups, because a store that Feast fills holds the texts themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use saker_pipeline::{Entity, Group, Names, Pipeline, TextCodes, TextColumn};
use saker_serving::files::write_json;
use saker_serving::layout::Layout;

/// Writes `models/codes_user.json` and `models/codes_item.json`, each only if a column has `codes`.
///
/// # Errors
/// Returns an error if `saker prepare` has not assigned the codes, or if a file cannot be written.
pub(super) fn write(pipeline: &Pipeline, layout: &Layout) -> Result<BTreeMap<Group, PathBuf>> {
    let mut files = BTreeMap::new();
    for (group, entity) in [(Group::User, &pipeline.user), (Group::Item, &pipeline.item)] {
        if entity.stored().all(|column| column.codes.is_none()) {
            continue;
        }
        let path = layout.names();
        let text = fs::read(&path)
            .with_context(|| format!("cannot read {}; run `saker prepare`", path.display()))?;
        let names: Names = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; run `saker prepare`", path.display()))?;
        let path = layout.codes(group.as_str());
        write_json(&path, &of(entity, &names)?)?;
        files.insert(group, path);
    }
    Ok(files)
}

fn of(entity: &Entity, names: &Names) -> Result<TextCodes> {
    let mut columns = BTreeMap::new();
    for column in entity.stored() {
        let Some(codes) = column.codes else { continue };
        let texts = names.get(&column.name).with_context(|| {
            format!(
                "the texts of column {} have no codes; run `saker prepare`",
                column.name
            )
        })?;
        let column_codes = TextColumn {
            codes,
            texts: texts.clone(),
            empty: column.empty.clone(),
        };
        columns.insert(column.name.clone(), column_codes);
    }
    let format = TextCodes::FORMAT;
    Ok(TextCodes { format, columns })
}
