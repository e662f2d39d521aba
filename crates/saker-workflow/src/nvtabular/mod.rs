//! NVTabular's own form of a saved workflow, as versions after 23.8 write it: `graph.json`, the operators as nodes of a graph, and
//! `artifacts/node_<id>/` with the tables that each operator was fitted to.
//!
//! A workflow of 23.8 itself, which is a Python pickle, becomes this form by `scripts/export-nvtabular`.

mod export;
mod form;
mod import;
mod read;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::export::export;
pub(crate) use self::form::{Export, Form};
pub use self::import::import;
pub(crate) use self::read::{Part, Read};

/// Name of the file in a workflow's folder.
pub const GRAPH_FILE: &str = "graph.json";

/// The format that NVTabular writes, and we read and write.
const FORMAT_VERSION: u32 = 1;

/// `graph.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Graph {
    format_version: u32,
    output_node_id: usize,
    nodes: Vec<Node>,
}

/// One operator, with the columns that it takes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Node {
    id: usize,
    op_class: Option<String>,
    #[serde(default)]
    op_params: Map<String, Value>,
    #[serde(default)]
    op_state: Map<String, Value>,
    #[serde(default)]
    parent_ids: Vec<usize>,
    /// Nodes whose columns it takes besides: those that are joined to the parents', or the target of an encoding.
    #[serde(default)]
    dependency_ids: Vec<usize>,
    selector: Option<Selector>,
    #[serde(default)]
    input_schema: Option<Vec<Column>>,
    #[serde(default)]
    output_schema: Option<Vec<Column>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Selector {
    names: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
}

/// A column of a schema.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    properties: Map<String, Value>,
    dtype: Option<Value>,
    #[serde(default)]
    is_list: Option<bool>,
    #[serde(default)]
    is_ragged: Option<bool>,
}

/// A table of a fitted state: the column, or columns joined by `_`, and its file below the node's folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: Vec<String>,
    pub(crate) path: PathBuf,
}

impl Record {
    /// The key's columns, joined.
    pub(crate) fn name(&self) -> String {
        self.key.join("_")
    }
}

impl Node {
    /// The operator's name without its module.
    fn operator(&self) -> &str {
        let path = self.op_class.as_deref().unwrap_or("SelectionOp");
        path.rsplit('.').next().unwrap_or(path)
    }

    /// The folder of its tables, below the workflow's.
    fn folder(&self) -> PathBuf {
        PathBuf::from("artifacts").join(format!("node_{}", self.id))
    }
}
