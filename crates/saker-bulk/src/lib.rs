//! Workflows fitted on, and applied to, Parquet files of any size: the offline side of `saker-workflow`, on DataFusion.
//!
//! - [`Engine`]: DataFusion with a bound on its memory (it spills to disk beyond it), on all cores or fewer.
//! - [`Engine::fit`]: fits a [`saker_workflow::Definition`] on the rows of a plan. Equal rows are grouped by DataFusion, the kernels of
//!   `saker-workflow` see each once with its count, and the result is that of fitting all rows in memory.
//! - [`Engine::write`]: rows through a function, in order, into a Parquet file; [`Engine::apply`] does so with a workflow.
//! - [`Engine::map_files`], [`Engine::batches`]: plans over rows that need cleaning first.
//!
//! See the crate's README for what runs where, and how the same plans run on several machines.

mod engine;
mod error;
mod fit;
mod read;
mod source;
mod write;

/// What plans are written with.
pub mod plan {
    pub use datafusion::common::{JoinType, ScalarValue};
    pub use datafusion::prelude::{Expr, SessionConfig, SessionContext, cast, ident, lit, when};
}

pub use datafusion::dataframe::DataFrame;
pub use engine::{Engine, Progress, Settings};
pub use error::{BoxError, Error};
pub use write::Writer;
