//! Applies functions to rows and writes the results to Parquet files, in order.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use datafusion::dataframe::DataFrame;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use saker_workflow::Workflow;

use crate::engine::{Engine, Progress};
use crate::error::{BoxError, Error};
use crate::fit;

/// Rows of a row group. A writer holds one row group in memory.
const GROUP_ROWS: usize = 1 << 18;

/// A Parquet file that becomes visible when it is complete.
pub struct Writer {
    path: std::path::PathBuf,
    beside: std::path::PathBuf,
    writer: Option<ArrowWriter<File>>,
    rows: u64,
}

impl Writer {
    /// A writer of the file at `path`. It writes to a temporary file beside it, which [`Writer::finish`] renames.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            beside: path.with_extension("parquet.new"),
            writer: None,
            rows: 0,
        }
    }

    /// Appends rows. The first batch defines the columns.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or if a batch has other columns.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let failed = |error| Error::file(&self.path, error);
        if self.writer.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
            }
            let file =
                File::create(&self.beside).map_err(|error| Error::file(&self.path, error))?;
            let properties = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_max_row_group_row_count(Some(GROUP_ROWS))
                .build();
            let writer =
                ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(failed)?;
            self.writer = Some(writer);
        }
        self.rows += batch.num_rows() as u64;
        match &mut self.writer {
            Some(writer) => writer.write(batch).map_err(failed),
            None => Ok(()),
        }
    }

    /// Completes and renames the file. Returns its number of rows.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or if there was no batch.
    pub fn finish(mut self) -> Result<u64, Error> {
        let Some(writer) = self.writer.take() else {
            return Err(Error::file(&self.path, "there was no batch to write"));
        };
        writer
            .close()
            .map_err(|error| Error::file(&self.path, error))?;
        fs::rename(&self.beside, &self.path).map_err(|error| Error::file(&self.path, error))?;
        Ok(self.rows)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            // A failed job leaves no partial file. An error of the removal is ignored.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

impl Engine {
    /// Applies `function` to a plan's batches, on all threads, and writes the results to a Parquet file (Snappy) in the plan's order. A plan
    /// that only reads, selects and filters has the order of the files. Returns the number of rows written.
    ///
    /// # Errors
    /// Returns the errors of reading, of `function` and of writing.
    pub fn write<F>(
        &self,
        rows: &DataFrame,
        path: &Path,
        mut progress: impl FnMut(Progress),
        function: F,
    ) -> Result<u64, Error>
    where
        F: Fn(&RecordBatch) -> Result<RecordBatch, BoxError> + Send + Sync + 'static,
    {
        let rows = self.ordered(rows);
        // An empty batch gives a table without rows its columns.
        let none = RecordBatch::new_empty(rows.schema().inner().clone());
        let mut writer = Writer::new(path);
        writer.write(&function(&none).map_err(Error::Rows)?)?;
        let function = Arc::new(function);
        let threads = self.settings.threads.max(1);
        self.runtime.block_on(async {
            let batches = rows.execute_stream().await;
            let batches = batches.map_err(|error| self.error(error))?;
            let mut mapped = batches
                .map_err(|error| self.error(error))
                .map(|batch| {
                    let function = Arc::clone(&function);
                    async move {
                        let batch = batch?;
                        let done = tokio::task::spawn_blocking(move || function(&batch)).await;
                        match done {
                            Ok(rows) => rows.map_err(Error::Rows),
                            Err(error) => Err(Error::Engine(error.to_string())),
                        }
                    }
                })
                .buffered(threads);
            let mut told = Instant::now();
            while let Some(batch) = mapped.try_next().await? {
                writer.write(&batch)?;
                if told.elapsed() > Duration::from_millis(200) {
                    told = Instant::now();
                    progress(Progress {
                        rows: writer.rows,
                        scan: 1,
                        scans: 1,
                    });
                }
            }
            Ok::<_, Error>(())
        })?;
        writer.finish()
    }

    /// Applies a workflow to rows and writes its output columns to a Parquet file, in order; see [`Engine::write`]. A workflow with operators
    /// that depend on other rows (Groupby, DifferenceLag, hashes of [`HashKey::ValueAndRow`](saker_workflow::HashKey::ValueAndRow)) receives all
    /// rows at once, within the memory limit.
    ///
    /// # Errors
    /// Returns an error as [`Engine::write`] does.
    pub fn apply(
        &self,
        workflow: &Workflow,
        rows: &DataFrame,
        path: &Path,
        mut progress: impl FnMut(Progress),
    ) -> Result<u64, Error> {
        let rows = self.select(rows, &workflow.definition().input_names())?;
        if !fit::row_by_row(workflow.definition()) {
            let all = self.whole(&rows, |rows| {
                progress(Progress {
                    rows,
                    scan: 1,
                    scans: 1,
                });
            })?;
            let mut writer = Writer::new(path);
            writer.write(&workflow.apply(&all)?)?;
            return writer.finish();
        }
        let workflow = workflow.clone();
        self.write(&rows, path, progress, move |batch| {
            Ok(workflow.apply(batch)?)
        })
    }
}
