//! Parquet files as plans.

use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{Expr, ParquetReadOptions, SessionContext, ident};

use crate::engine::Engine;
use crate::error::Error;

impl Engine {
    /// Parquet files as one table. If a plan runs [in order](Engine::ordered), rows come in the order of the paths. Only the columns that a
    /// plan uses are read.
    ///
    /// # Errors
    /// Returns an error without files, or if a file is missing, is not a Parquet file or has other columns than the rest.
    pub fn read(&self, files: &[PathBuf]) -> Result<DataFrame, Error> {
        self.runtime.block_on(read(&self.context, files))
    }

    /// Like [`Engine::read`], but the engine's cluster reads, if it has one. The files must have the same paths on every executor.
    ///
    /// # Errors
    /// Returns an error as [`Engine::read`] does.
    pub fn read_shared(&self, files: &[PathBuf]) -> Result<DataFrame, Error> {
        let session = self.cluster.as_ref().unwrap_or(&self.context);
        self.runtime.block_on(read(session, files))
    }

    /// Like [`Engine::read_shared`], with only the columns of `schema`, in its order. If a file has a column in another type, DataFusion casts
    /// the values, or the plan fails when it runs.
    ///
    /// # Errors
    /// Returns an error as [`Engine::read`] does.
    pub fn read_shared_columns(
        &self,
        files: &[PathBuf],
        schema: &Schema,
    ) -> Result<DataFrame, Error> {
        let session = self.cluster.as_ref().unwrap_or(&self.context);
        let options = ParquetReadOptions::default().schema(schema);
        self.runtime.block_on(read_with(session, files, options))
    }

    /// Selects columns in this order.
    ///
    /// # Errors
    /// Returns an error if a column is missing; it lists the existing ones.
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
    // Accept any file extension.
    let options = options.file_extension("");
    context
        .read_parquet(paths, options)
        .await
        .map_err(|error| Error::file(first, error.strip_backtrace()))
}

/// A file's path for DataFusion: absolute, and escaped so that it is never a pattern.
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
