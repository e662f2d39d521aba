//! Parquet files as plans.

use std::path::{Path, PathBuf};

use datafusion::dataframe::DataFrame;
use datafusion::prelude::{Expr, ParquetReadOptions, SessionContext, ident};

use crate::engine::Engine;
use crate::error::Error;

impl Engine {
    /// Parquet files as one table, in the order of their paths where a plan runs [in order](Engine::ordered). Only the columns that a plan uses are read.
    ///
    /// # Errors
    /// No file, or one that is missing, no Parquet, or of other columns than the rest.
    pub fn read(&self, files: &[PathBuf]) -> Result<DataFrame, Error> {
        self.runtime.block_on(read(&self.context, files))
    }

    /// These columns, in this order.
    ///
    /// # Errors
    /// A column that is not there, with those that are.
    pub fn select(&self, rows: &DataFrame, columns: &[&str]) -> Result<DataFrame, Error> {
        for column in columns {
            let schema = rows.schema();
            if !schema.fields().iter().any(|field| field.name() == column) {
                return Err(Error::Workflow(saker_workflow::Error::MissingColumn {
                    column: (*column).to_owned(),
                    given: names(rows).join(", "),
                }));
            }
        }
        let columns: Vec<Expr> = columns.iter().map(|column| ident(*column)).collect();
        rows.clone()
            .select(columns)
            .map_err(|error| self.error(error))
    }
}

/// The columns of a plan.
pub(crate) fn names(rows: &DataFrame) -> Vec<&str> {
    let fields = rows.schema().fields().iter();
    fields.map(|field| field.name().as_str()).collect()
}

pub(crate) async fn read(context: &SessionContext, files: &[PathBuf]) -> Result<DataFrame, Error> {
    let paths = files
        .iter()
        .map(|file| url(file))
        .collect::<Result<Vec<String>, Error>>()?;
    let first = files
        .first()
        .map_or(Path::new("(no file)"), PathBuf::as_path);
    // The extension is the caller's choice.
    let options = ParquetReadOptions::default().file_extension("");
    context
        .read_parquet(paths, options)
        .await
        .map_err(|error| Error::file(first, error.strip_backtrace()))
}

/// A file's path as DataFusion takes it: absolute, and never a pattern.
fn url(file: &Path) -> Result<String, Error> {
    if !file.is_file() {
        return Err(Error::file(file, "there is no such file"));
    }
    let absolute = std::path::absolute(file).map_err(|error| Error::file(file, error))?;
    match url::Url::from_file_path(&absolute) {
        Ok(url) => Ok(url.into()),
        Err(()) => Err(Error::file(file, "the path is no URL")),
    }
}
