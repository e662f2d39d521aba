//! Fits workflows on Parquet files of any size, and applies them: the offline side of `saker-workflow`, on DataFusion.
//!
//! - [`Engine`]: DataFusion with a memory limit, beyond which it spills to disk, on all cores or fewer.
//! - [`Engine::fit`]: fits a [`saker_workflow::Definition`] on the rows of a plan. DataFusion groups equal rows, and the kernels of
//!   `saker-workflow` receive each once with its count. The result equals that of a fit on all rows in memory.
//! - [`Engine::write`]: applies a function to rows and writes the result to a Parquet file, in order; [`Engine::apply`] applies a
//!   workflow.
//! - [`Engine::map_files`], [`Engine::batches`]: plans over rows that need cleaning first.
//!
//! The crate's README says what runs where, and how the same plans run on several machines.

mod engine;
mod error;
mod fit;
mod read;
mod source;
mod write;

/// Re-exports of DataFusion to write plans with.
pub mod plan {
    pub use datafusion::common::{JoinType, ScalarValue};
    pub use datafusion::prelude::{Expr, SessionConfig, SessionContext, cast, ident, lit, when};
}

pub use datafusion::dataframe::DataFrame;
pub use engine::{Engine, Progress, Settings};
pub use error::{BoxError, Error};
pub use write::Writer;
