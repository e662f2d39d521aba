//! An operator as a node of the graph is written.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Column, Record};
use crate::error::Error;
use crate::operators::{Fitted, InFitted};
use crate::vocabulary::{GroupTable, Vocabulary};

/// The class, parameters and state of an operator.
pub(crate) struct Form {
    pub(super) class: &'static str,
    pub(super) params: Value,
    pub(super) state: Value,
}

impl Form {
    /// A class without parameters and state.
    pub(crate) fn new(class: &'static str) -> Self {
        Self {
            class,
            params: json!({}),
            state: json!({}),
        }
    }

    /// With these parameters, an object.
    pub(crate) fn params(self, params: Value) -> Self {
        Self { params, ..self }
    }

    /// With this state, an object.
    pub(crate) fn state(self, state: Value) -> Self {
        Self { state, ..self }
    }
}

/// What an operator is written with: its state and its columns.
pub(crate) struct Export<'a> {
    pub(super) operator: &'static str,
    pub(super) fitted: &'a Fitted,
    pub(super) columns: &'a [Column],
    /// Where its tables go.
    pub(super) folder: &'a Path,
}

impl<'a> Export<'a> {
    /// The columns that it gets.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The operator's state.
    ///
    /// # Errors
    /// It has none, or another operator's.
    pub(crate) fn state<S: InFitted>(&self) -> Result<&'a S, Error> {
        S::of(self.fitted).ok_or_else(|| self.no_form("this operator"))
    }

    /// NVTabular has nothing for this.
    pub(crate) fn no_form(&self, what: &str) -> Error {
        let names: Vec<&str> = self.names().collect();
        Error::definition(
            &names.join(", "),
            &format!("{}: graph.json has no form for {what}", self.operator),
        )
    }

    /// Writes a vocabulary.
    pub(crate) fn vocabulary(&self, vocabulary: &Vocabulary) -> Result<Record, Error> {
        let name = vocabulary.name().to_owned();
        let path = format!("categories/unique.{name}.parquet");
        vocabulary.write(&self.folder.join(&path))?;
        Ok(Record {
            key: vec![name],
            path: path.into(),
        })
    }

    /// Writes statistics by key.
    pub(crate) fn tables(
        &self,
        tables: impl IntoIterator<Item = &'a Arc<GroupTable>>,
    ) -> Result<Vec<Record>, Error> {
        tables.into_iter().map(|table| self.table(table)).collect()
    }

    fn table(&self, table: &GroupTable) -> Result<Record, Error> {
        let names: Vec<&str> = table.keys().iter().map(|(name, _)| name.as_str()).collect();
        let name = names.join("_");
        let path = format!("categories/cat_stats.{name}.parquet");
        table.write(&self.folder.join(&path))?;
        Ok(Record {
            key: vec![name],
            path: path.into(),
        })
    }
}
