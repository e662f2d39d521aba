//! DataFusion with bounded memory; runs plans and reports their progress.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, ident};
use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// Resources of a job.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Memory limit of all sorts, groups and joins together; they spill to disk beyond it. Batches between operators and the caller's
    /// data are not included. Default 1 GiB.
    pub memory_bytes: usize,
    /// Number of threads, and of the parts of a plan. Default: all cores.
    pub threads: usize,
    /// Folder for spilled rows. Default: the system's folder for temporary files.
    pub spill: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            spill: None,
        }
    }
}

/// Progress of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows read so far.
    pub rows: u64,
    /// Number of the current scan of the data, from 1.
    pub scan: usize,
    /// Number of scans that are known so far.
    pub scans: usize,
}

/// DataFusion with bounded memory.
///
/// Methods block: do not call them from a task of an asynchronous runtime.
pub struct Engine {
    pub(crate) context: SessionContext,
    /// The session for plans of one part, whose rows come in the order of the files.
    pub(crate) in_order: SessionContext,
    /// The session of the cluster, if there is one.
    pub(crate) cluster: Option<SessionContext>,
    pub(crate) runtime: Runtime,
    pub(crate) settings: Settings,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Rows of the batches between operators.
pub(crate) const BATCH_ROWS: usize = 8192;
/// Interval between two reports of progress.
const TICK: Duration = Duration::from_millis(200);

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// Returns an error if the threads cannot be started or the folder for spilled rows cannot be created.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(settings.threads.max(1))
            .thread_name("saker-bulk")
            .enable_all()
            .build()
            .map_err(|error| Error::Engine(format!("no threads: {error}")))?;
        let mut environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(settings.memory_bytes)));
        if let Some(folder) = &settings.spill {
            std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
            environment = environment.with_temp_file_path(folder);
        }
        let environment = environment
            .build_arc()
            .map_err(|error| Error::of(error, settings.memory_bytes))?;
        let context = |parts: usize| {
            let mut config = Self::configuration().with_target_partitions(parts.max(1));
            // Memory that the sort of each part reserves to merge its runs: a quarter of its share. Without it, the merge could fail because the
            // rows of another part have taken the memory. The keys of a merge grow with the rows that it merges.
            config.options_mut().execution.sort_spill_reservation_bytes =
                settings.memory_bytes / (4 * settings.threads.max(1));
            let state = SessionStateBuilder::new()
                .with_config(config)
                .with_runtime_env(Arc::clone(&environment))
                .with_default_features()
                .build();
            SessionContext::new_with_state(state)
        };
        Ok(Self {
            context: context(settings.threads),
            in_order: context(1),
            cluster: None,
            runtime,
            settings,
        })
    }

    /// Has a cluster read, group and sort: plans over [`Engine::read_shared`] run in this session, such as one of Ballista.
    #[must_use]
    pub fn on_cluster(mut self, session: SessionContext) -> Self {
        self.cluster = Some(session);
        self
    }

    /// Whether a cluster runs the plans over [`Engine::read_shared`].
    pub fn has_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// The configuration that this engine's plans need, for a session of a cluster.
    ///
    /// It disables the files' statistics. DataFusion treats a column with equal minimum and maximum as a constant, and Parquet excludes NaN
    /// from both, so a column of one number and NaN would lose its NaN. Strings keep the type Utf8 of the files.
    pub fn configuration() -> SessionConfig {
        let mut config = SessionConfig::new()
            .with_batch_size(BATCH_ROWS)
            .with_collect_statistics(false);
        config
            .options_mut()
            .execution
            .parquet
            .schema_force_view_types = false;
        config
    }

    /// The resources.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn error(&self, error: impl Into<datafusion::error::DataFusionError>) -> Error {
        Error::of(error.into(), self.settings.memory_bytes)
    }

    /// Sorts rows by these columns, smallest first, on all threads. Spills rows beyond the memory limit.
    ///
    /// # Errors
    /// Returns an error if a column is missing.
    pub fn sorted(&self, rows: DataFrame, columns: &[&str]) -> Result<DataFrame, Error> {
        let columns = columns.iter().map(|column| ident(*column)).collect();
        rows.sort_by(columns).map_err(|error| self.error(error))
    }

    /// The rows with the largest values of a column, at most `count`.
    ///
    /// # Errors
    /// Returns an error if a column is missing.
    pub fn last(&self, rows: DataFrame, column: &str, count: usize) -> Result<DataFrame, Error> {
        let sorted = rows.sort(vec![ident(column).sort(false, false)]);
        let last = sorted.and_then(|rows| rows.limit(0, Some(count)));
        last.map_err(|error| self.error(error))
    }

    /// The plan in one part. If it only reads, selects and filters, its rows come in the order of the files.
    pub fn ordered(&self, rows: &DataFrame) -> DataFrame {
        DataFrame::new(self.in_order.state(), rows.logical_plan().clone())
    }

    /// Runs a plan and calls `each` with its batches, in the plan's order if it sorts.
    ///
    /// # Errors
    /// Returns the errors of reading and of `each`.
    pub fn run<E: From<Error>>(
        &self,
        rows: DataFrame,
        mut progress: impl FnMut(u64),
        mut each: impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        self.runtime.block_on(async {
            let context = Arc::new(rows.task_ctx());
            let plan = rows
                .create_physical_plan()
                .await
                .map_err(|error| self.error(error))?;
            let mut stream =
                execute_stream(Arc::clone(&plan), context).map_err(|error| self.error(error))?;
            let mut told = Instant::now();
            loop {
                let next = tokio::time::timeout(TICK, stream.next()).await;
                if told.elapsed() >= TICK {
                    progress(scanned(&plan));
                    told = Instant::now();
                }
                match next {
                    Err(_) => {}
                    Ok(Some(batch)) => each(batch.map_err(|error| self.error(error))?)?,
                    Ok(None) => break,
                }
            }
            progress(scanned(&plan));
            Ok::<(), E>(())
        })
    }
}

/// Number of rows that a plan's leaves have returned so far.
fn scanned(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let children = plan.children();
    if children.is_empty() {
        let rows = plan.metrics().and_then(|metrics| metrics.output_rows());
        return rows.unwrap_or_default() as u64;
    }
    children.into_iter().map(scanned).sum()
}
