//! The files that a path of `[data]` names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use saker_pipeline::{Format, Pipeline};

/// A file of a table.
#[derive(Clone, Debug)]
pub struct TableFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Column values from the names of the folders above it: Hive's partitions, the outermost first.
    pub partition: Partition,
}

/// Columns and their values; `None` for Hive's missing value.
pub type Partition = Vec<(String, Option<String>)>;

/// Hive's name of a missing value.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// The files of a path, the value of `key` in the definition. A path names one file; a folder, for its files `*.parquet`, also within
/// Hive's partitions (`day=2026-05-01`); or a pattern such as `day_*.parquet`. Files come in the order of their names.
///
/// # Errors
/// Returns an error if there is no such file or folder, and for a folder in format atomic.
pub fn files(pipeline: &Pipeline, format: Format, key: &str, path: &str) -> Result<Vec<TableFile>> {
    let given = path;
    let path = pipeline.resolve(path)?;
    let hint = || hint(pipeline, key);
    if format == Format::Atomic {
        if !path.is_file() {
            bail!(
                "{} is not a file; format atomic reads one file a table; {}",
                path.display(),
                hint()
            );
        }
        return Ok(vec![TableFile {
            path,
            partition: Vec::new(),
        }]);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut files = Vec::new();
    if path.is_dir() {
        let mut partition = Vec::new();
        partition.extend(partition_of(&name));
        of_folder(&path, &partition, &mut files)?;
        if files.is_empty() {
            bail!(
                "{} holds no file called *.parquet, nor folders of Hive partitions such as day=2026-05-01 with such files; {}",
                path.display(),
                hint()
            );
        }
    } else if name.contains(['*', '?', '[']) && !path.exists() {
        let matching = glob::Pattern::new(&name)
            .with_context(|| format!("{key} = {given:?} is not a pattern of file names"))?;
        let folder = path.parent().unwrap_or(&path);
        if !folder.is_dir() {
            bail!("the folder {} is missing; {}", folder.display(), hint());
        }
        for (name, entry) in entries(folder)? {
            if !matching.matches(&name) {
                continue;
            }
            let partition: Partition = partition_of(&name).into_iter().collect();
            if entry.is_dir() {
                of_folder(&entry, &partition, &mut files)?;
            } else {
                let path = entry;
                let partition = Vec::new();
                files.push(TableFile { path, partition });
            }
        }
        if files.is_empty() {
            bail!(
                "{} holds no file called {name}; {}",
                folder.display(),
                hint()
            );
        }
    } else if path.exists() {
        let partition = Vec::new();
        files.push(TableFile { path, partition });
    } else {
        bail!("{} is missing; {}", path.display(), hint());
    }
    Ok(files)
}

/// How to get a missing table, for an error message.
fn hint(pipeline: &Pipeline, key: &str) -> String {
    match pipeline.pipeline.name.as_str() {
        "movielens" => "`scripts/install` brings the data of movielens".to_owned(),
        "retail" => "`saker generate retail` makes the data of retail".to_owned(),
        _ => format!(
            "{key} of the pipeline definition names it; a relative path starts at the definition's folder"
        ),
    }
}

/// The entries of a folder, in the order of their names, without hidden ones and without markers of writers (`_SUCCESS`).
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = || format!("cannot list {}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(['.', '_']) {
            entries.push((name.into_owned(), path));
        }
    }
    entries.sort();
    Ok(entries)
}

fn of_folder(folder: &Path, partition: &Partition, files: &mut Vec<TableFile>) -> Result<()> {
    for (name, path) in entries(folder)? {
        let is_folder = path.is_dir();
        match partition_of(&name) {
            Some(value) if is_folder => {
                let mut within = partition.clone();
                within.retain(|(column, _)| *column != value.0);
                within.push(value);
                of_folder(&path, &within, files)?;
            }
            _ if is_folder => tracing::warn!(
                "the folder {} is not read: its name is not that of a Hive partition, such as day=2026-05-01",
                path.display()
            ),
            _ if name.ends_with(".parquet") => {
                let partition = partition.clone();
                files.push(TableFile { path, partition });
            }
            _ => tracing::warn!(
                "the file {} is not read: its name does not end in .parquet",
                path.display()
            ),
        }
    }
    Ok(())
}

/// The column and value in a folder's name.
fn partition_of(name: &str) -> Option<(String, Option<String>)> {
    let (column, value) = name.split_once('=')?;
    let value = (value != NO_VALUE).then(|| unescaped(value));
    (!column.is_empty()).then(|| (unescaped(column), value))
}

/// Decodes a text in which Hive has escaped characters as `%` and two hexadecimal digits.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                at += 3;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(plain).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_columns_and_values() {
        let of = |name| partition_of(name);
        let value = |column: &str, value: &str| Some((column.to_owned(), Some(value.to_owned())));
        assert_eq!(of("day=2026-05-01"), value("day", "2026-05-01"));
        assert_eq!(of("shop=a%2Fb%3Dc"), value("shop", "a/b=c"));
        assert_eq!(of("city=K%C3%B6ln"), value("city", "Köln"));
        assert_eq!(of("share=10%"), value("share", "10%"));
        assert_eq!(of("city="), value("city", ""));
        let none = of("city=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(none, Some(("city".to_owned(), None)));
        assert_eq!(of("archive"), None);
        assert_eq!(of("=x"), None);
    }
}
