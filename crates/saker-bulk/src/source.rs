//! Plans over rows to which a function is applied first, for example to clean them.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{Expr, ident};
use futures::{StreamExt, TryStreamExt, stream};

use crate::engine::Engine;
use crate::error::{BoxError, Error};
use crate::read;

impl Engine {
    /// Applies `function` to Parquet files, with the given columns of each. The files are distributed over the threads. The function receives
    /// each batch with its file's place in `files` and the number of its first row in that file, from 0. Its result must have `schema`.
    ///
    /// The plan contains the function, so it runs only once, and on this machine.
    ///
    /// # Errors
    /// Returns an error without files.
    pub fn map_files<F>(
        &self,
        files: &[(PathBuf, Vec<String>)],
        schema: SchemaRef,
        function: F,
    ) -> Result<DataFrame, Error>
    where
        F: Fn(&RecordBatch, usize, u64) -> Result<RecordBatch, BoxError> + Send + Sync + 'static,
    {
        let threads = self.settings.threads.clamp(1, files.len().max(1));
        let function: Arc<FileFunction> = Arc::new(function);
        let parts = (0..threads).map(|part| -> Arc<dyn PartitionStream> {
            let files = files.iter().cloned().enumerate();
            Arc::new(MappedFiles {
                context: self.in_order.clone(),
                files: files.skip(part).step_by(threads).collect(),
                schema: Arc::clone(&schema),
                function: Arc::clone(&function),
            })
        });
        self.table(Arc::clone(&schema), parts.collect())
    }

    /// The batches of an iterator, which runs in its own thread. The plan runs only once, and on this machine.
    ///
    /// # Errors
    /// Returns an error only if DataFusion fails.
    pub fn batches<I>(&self, schema: SchemaRef, batches: I) -> Result<DataFrame, Error>
    where
        I: Iterator<Item = Result<RecordBatch, BoxError>> + Send + 'static,
    {
        let part = Batches {
            schema: Arc::clone(&schema),
            batches: Mutex::new(Some(Box::new(batches))),
        };
        self.table(schema, vec![Arc::new(part)])
    }

    fn table(
        &self,
        schema: SchemaRef,
        parts: Vec<Arc<dyn PartitionStream>>,
    ) -> Result<DataFrame, Error> {
        let table = StreamingTable::try_new(schema, parts).map_err(|error| self.error(error))?;
        self.context
            .read_table(Arc::new(table))
            .map_err(|error| self.error(error))
    }
}

type FileFunction = dyn Fn(&RecordBatch, usize, u64) -> Result<RecordBatch, BoxError> + Send + Sync;

struct MappedFiles {
    context: SessionContext,
    /// The place, the path and the columns of each file.
    files: Vec<(usize, (PathBuf, Vec<String>))>,
    schema: SchemaRef,
    function: Arc<FileFunction>,
}

impl fmt::Debug for MappedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFiles")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for MappedFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let context = self.context.clone();
        let function = Arc::clone(&self.function);
        let opened = stream::iter(self.files.clone()).then(move |(place, (file, columns))| {
            let context = context.clone();
            async move {
                let rows = read::read(&context, std::slice::from_ref(&file)).await?;
                let columns: Vec<Expr> = columns.into_iter().map(ident).collect();
                let batches = rows.select(columns)?.execute_stream().await?;
                let mut first = 0;
                Ok::<_, DataFusionError>(batches.map_ok(move |batch| {
                    let of_batch = first;
                    first += batch.num_rows() as u64;
                    (place, of_batch, batch)
                }))
            }
        });
        let mapped = opened.try_flatten().map(move |batch| {
            let (place, first, batch) = batch?;
            function(&batch, place, first).map_err(DataFusionError::External)
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            mapped,
        ))
    }
}

type BatchIterator = Box<dyn Iterator<Item = Result<RecordBatch, BoxError>> + Send>;

struct Batches {
    schema: SchemaRef,
    batches: Mutex<Option<BatchIterator>>,
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

impl PartitionStream for Batches {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let batches = batches.take();
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            let batches = batches.ok_or_else(|| {
                DataFusionError::Execution("an iterator's rows can be read only once".to_owned())
            })?;
            for batch in batches {
                // The plan has ended, so no more batches are needed.
                if sender
                    .blocking_send(batch.map_err(DataFusionError::External))
                    .is_err()
                {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}
