//! What a workflow is made of: a definition and what fitting found, as they are read, fitted and saved.

use serde::{Deserialize, Serialize};

use crate::column::DType;
use crate::definition::Definition;
use crate::operators::Fitted;

/// Name of the file in a workflow's folder.
pub const WORKFLOW_FILE: &str = "workflow.json";

/// The format this library writes, and the newest it reads. Format 2 added operators over the table, folds and tags to format 1; format 3
/// added datetimes, units of time, tables of codes that columns share, and definitions that come before. What an earlier format holds
/// means the same in it.
pub const FORMAT: u32 = 3;

/// A column that a workflow reads, as it was when fitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputColumn {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Whether a row holds a list of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub list: bool,
    /// Whether the column holds datetimes, as int64: nanoseconds since 1970 in UTC, as pandas has them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub datetime: bool,
}

/// A definition and what fitting found, without the definitions in its `before`: these are parts of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    pub(crate) definition: Definition,
    /// The columns read of the input, or of what the workflows before give.
    pub(crate) inputs: Vec<InputColumn>,
    /// The columns that the chains read: of the input, or of what the table's operators make of it.
    pub(crate) sources: Vec<InputColumn>,
    /// State of each of the table's operators.
    pub(crate) table: Vec<Fitted>,
    /// State of each chain's operators.
    pub(crate) fitted: Vec<Vec<Fitted>>,
}
