//! Feature transforms with the semantics of NVTabular 23.8: operators, fitting, applying, and the on-disk format.
//!
//! - [`Definition`]: what a workflow does, as data.
//! - [`Workflow`]: a fitted definition; applied in bulk to arrow batches, saved to and loaded from a folder.
//! - [`Fitter`]: fitting batch by batch.
//! - [`Plan`]: a workflow made ready to serve rows from and to plain slices.
//! - [`operators`]: each operator, and what it is fitted to.
//! - [`kernels`] and [`hash`]: the arithmetic, as pure functions.
//!
//! Training data and requests go through the same kernels.
//!
//! The feature `tables` (on by default) adds what reads or gives Arrow's tables: fitting, applying in bulk, saving, and NVTabular's own
//! format in [`nvtabular`]. A backend does without: [`Workflow::load`] and [`Plan`] need neither Arrow nor the fitting code.

#![warn(clippy::indexing_slicing)]

#[cfg(feature = "tables")]
mod apply;
#[cfg(feature = "tables")]
mod bulk;
mod column;
mod compile;
mod definition;
mod error;
#[cfg(feature = "tables")]
mod files;
#[cfg(feature = "tables")]
mod fit;
#[cfg(feature = "tables")]
mod folds;
pub mod hash;
#[cfg(feature = "tables")]
mod ingest;
pub mod kernels;
mod lookup;
#[cfg(feature = "tables")]
pub mod nvtabular;
pub mod operators;
mod parameters;
mod parts;
mod plan;
mod program;
mod saved;
mod similarity;
#[cfg(feature = "tables")]
mod table;
mod variable;
mod vocabulary;
mod workflow;

#[cfg(feature = "tables")]
pub use apply::OutOfFold;
pub use column::{DType, Slice, SliceMut};
pub use definition::{
    Aggregation, Chain, Comparison, Condition, Definition, FloatType, Function, Grouping, HashKey,
    IntType, Join, Operator, Properties, Scalar, Similarity, Statistic, TableOperator, TimeUnit,
};
pub use error::Error;
#[cfg(feature = "tables")]
pub use files::{read_parquet, write_batch};
#[cfg(feature = "tables")]
pub use fit::{Fitter, Pass};
pub use lookup::Keys;
pub use operators::{Fitted, OutputKind};
pub use parts::{FORMAT, InputColumn, WORKFLOW_FILE};
pub use plan::{Bound, Plan, PlanOutput};
pub use program::Scratch;
pub use similarity::Features;
pub use vocabulary::{GroupTable, NULL_CODE, OOV_CODE, PADDING_CODE, Vocabulary};
pub use workflow::{OutputColumn, Workflow};
