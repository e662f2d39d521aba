//! Parquet files as plans.

use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
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

    /// As [`Engine::read`], by the cluster where the engine has one. The files must lie under the same paths on every executor.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn read_shared(&self, files: &[PathBuf]) -> Result<DataFrame, Error> {
        let session = self.cluster.as_ref().unwrap_or(&self.context);
        self.runtime.block_on(read(session, files))
    }

    /// As [`Engine::read_shared`], the columns of `schema` alone, in its order. A file that holds one of them in another type is
    /// refused when the plan runs, or its values are cast.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn read_shared_columns(
        &self,
        files: &[PathBuf],
        schema: &Schema,
    ) -> Result<DataFrame, Error> {
        let session = self.cluster.as_ref().unwrap_or(&self.context);
        let options = ParquetReadOptions::default().schema(schema);
        self.runtime.block_on(read_with(session, files, options))
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
    read_with(context, files, ParquetReadOptions::default()).await
}

async fn read_with(
    context: &SessionContext,
    files: &[PathBuf],
    options: ParquetReadOptions<'_>,
) -> Result<DataFrame, Error> {
    let paths = files
        .iter()
        .map(|file| url(file))
        .collect::<Result<Vec<String>, Error>>()?;
    let first = files
        .first()
        .map_or(Path::new("(no file)"), PathBuf::as_path);
    // The extension is the caller's choice.
    let options = options.file_extension("");
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
