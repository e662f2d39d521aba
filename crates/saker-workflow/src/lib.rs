//! Feature transforms with the semantics of NVTabular 23.8: operators, fitting, applying, and the on-disk format.
//!
//! - [`Definition`]: what a workflow does, as data.
//! - [`Workflow`]: a fitted definition; applied in bulk to arrow batches, saved to and loaded from a folder.
//! - [`Fitter`]: fitting batch by batch.
//! - [`Plan`]: a workflow made ready to serve rows from and to plain slices.
//! - [`kernels`] and [`hash`]: the arithmetic, as pure functions.
//!
//! Training data and requests go through the same kernels.

#![warn(clippy::indexing_slicing)]

mod bulk;
mod column;
mod compile;
mod definition;
mod error;
mod fit;
mod fitted;
mod folds;
pub mod hash;
pub mod kernels;
mod lookup;
pub mod nvtabular;
mod plan;
mod program;
mod saved;
mod similarity;
mod table;
mod vocabulary;
mod workflow;

pub use column::{DType, Slice, SliceMut};
pub use definition::{
    Aggregation, Chain, Comparison, Condition, Definition, FloatType, Function, Grouping, HashKey,
    IntType, Join, Operator, Properties, Scalar, Similarity, Statistic, TableOperator, TimeUnit,
};
pub use error::Error;
pub use fit::{Fitter, Pass};
pub use fitted::{ColumnStatistics, Fitted};
pub use lookup::Keys;
pub use plan::{Bound, Plan, PlanOutput};
pub use program::Scratch;
pub use similarity::Features;
pub use vocabulary::{
    GroupTable, NULL_CODE, OOV_CODE, PADDING_CODE, Vocabulary, read_parquet, write_batch,
};
pub use workflow::{FORMAT, InputColumn, OutOfFold, OutputColumn, WORKFLOW_FILE, Workflow};
