//! The tables beside `workflow.json`, gathered and written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::SavedTable;
use crate::error::Error;
use crate::files::write_batch;
use crate::similarity::Features;
use crate::vocabulary::{GroupTable, Vocabulary};

enum Content {
    Vocabulary(Arc<Vocabulary>),
    Table(Arc<GroupTable>),
    Features(Arc<Features>),
    External(Arc<RecordBatch>),
}

/// The tables that states need beside `workflow.json`, by file.
#[derive(Default)]
pub(crate) struct Files {
    content: BTreeMap<String, Content>,
}

impl Files {
    /// Writes all of them below the workflow's folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        for (file, content) in &self.content {
            let path = folder.join(file);
            match content {
                Content::Vocabulary(vocabulary) => vocabulary.write(&path)?,
                Content::Table(table) => table.write(&path)?,
                Content::Features(features) => features.write(&path)?,
                Content::External(table) => write_batch(&path, table)?,
            }
        }
        Ok(())
    }

    /// A vocabulary.
    pub(crate) fn vocabulary(&mut self, vocabulary: &Arc<Vocabulary>) -> Result<SavedTable, Error> {
        let name = vocabulary.name().to_owned();
        let file = format!("categories/unique.{name}.parquet");
        let content = Content::Vocabulary(Arc::clone(vocabulary));
        self.insert(&name, &file, content)?;
        Ok(SavedTable {
            name,
            keys: Vec::new(),
            start: (vocabulary.in_single_table()).then(|| vocabulary.start()),
            file: file.into(),
        })
    }

    /// A matrix of features.
    pub(crate) fn features(&mut self, features: &Arc<Features>) -> PathBuf {
        self.number("similarity", Content::Features(Arc::clone(features)))
    }

    /// A table that rows are joined with.
    pub(crate) fn external(&mut self, table: &Arc<RecordBatch>) -> PathBuf {
        self.number("external", Content::External(Arc::clone(table)))
    }

    fn insert(&mut self, column: &str, file: &str, content: Content) -> Result<(), Error> {
        let same = match (self.content.get(file), &content) {
            (None, _) => true,
            (Some(Content::Vocabulary(a)), Content::Vocabulary(b)) => {
                a.columns() == b.columns() && a.codes() == b.codes()
            }
            (Some(Content::Table(a)), Content::Table(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if !same {
            return Err(Error::definition(
                column,
                &format!(
                    "two chains would save different tables as {file}; rename the column in one of them first"
                ),
            ));
        }
        self.content.insert(file.to_owned(), content);
        Ok(())
    }

    /// Statistics by key, in files whose names begin with `prefix`.
    pub(crate) fn groups(
        &mut self,
        prefix: &str,
        tables: &[Arc<GroupTable>],
    ) -> Result<Vec<SavedTable>, Error> {
        tables
            .iter()
            .map(|table| {
                let keys: Vec<String> = table.keys().iter().map(|(n, _)| n.clone()).collect();
                let name = keys.join("_");
                let file = format!("categories/{prefix}.{name}.parquet");
                self.insert(&name, &file, Content::Table(Arc::clone(table)))?;
                Ok(SavedTable {
                    name,
                    keys,
                    start: None,
                    file: file.into(),
                })
            })
            .collect()
    }

    /// A file of a name that is given to no other.
    fn number(&mut self, prefix: &str, content: Content) -> PathBuf {
        let names = (0..).map(|number| format!("tables/{prefix}.{number}.parquet"));
        let file = names
            .into_iter()
            .find(|name| !self.content.contains_key(name));
        let file = file.unwrap_or_default();
        self.content.insert(file.clone(), content);
        file.into()
    }
}
