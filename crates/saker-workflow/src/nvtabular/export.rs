//! From chains to NVTabular's graph.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::form::{Export, Form};
use super::{Column, FORMAT_VERSION, GRAPH_FILE, Graph, Node, Selector};
use crate::column::DType;
use crate::compile;
use crate::definition::Chain;
use crate::error::Error;
use crate::operators::Fitted;
use crate::variable::Variable;
use crate::workflow::Workflow;

/// Writes a workflow as NVTabular does after 23.8: `graph.json`, `metadata.json`, and each operator's tables under `artifacts/`.
///
/// # Errors
/// An operator, or one of its parameters, has no form there; a file cannot be written.
pub fn export(workflow: &Workflow, folder: &Path) -> Result<(), Error> {
    let definition = workflow.definition();
    if let Some(before) = definition.before.first() {
        return Err(Error::definition(
            &before.input_names().join(", "),
            "graph.json is written for workflows without definitions in `before`",
        ));
    }
    if let Some(operator) = definition.table.first() {
        return Err(Error::definition(
            "(table)",
            &format!(
                "{}: graph.json is written for workflows without operators over the table",
                operator.name()
            ),
        ));
    }
    let mut nodes = Nodes {
        folder,
        nodes: Vec::new(),
    };
    let mut outputs = Vec::new();
    let mut ends = Vec::new();
    for (chain, fitted) in definition.chains.iter().zip(workflow.fitted()) {
        let (end, columns) = nodes.chain(workflow, chain, fitted)?;
        ends.push(end);
        outputs.extend(columns);
    }
    let end = nodes.push(
        "merlin.dag.ops.concat_columns.ConcatColumns",
        json!({}),
        json!({}),
        &outputs,
        &outputs,
    );
    let first = ends.iter().copied().take(1).collect();
    if let Some(node) = nodes.nodes.get_mut(end) {
        node.parent_ids = first;
        node.dependency_ids = ends.iter().copied().skip(1).collect();
    }
    let graph = Graph {
        format_version: FORMAT_VERSION,
        output_node_id: end,
        nodes: nodes.nodes,
    };
    // What NVTabular compares with its own version, to warn of a difference.
    let metadata = json!({
        "versions": { "nvtabular": "23.08.00", "python": "3", "pandas": "1.5" },
        "written_by": format!("saker {}", env!("CARGO_PKG_VERSION")),
    });
    for (name, content) in [(GRAPH_FILE, json!(graph)), ("metadata.json", metadata)] {
        let path = folder.join(name);
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let text =
            serde_json::to_string_pretty(&content).map_err(|error| Error::file(&path, error))?;
        std::fs::write(&path, text + "\n").map_err(|error| Error::file(&path, error))?;
    }
    Ok(())
}

struct Nodes<'a> {
    folder: &'a Path,
    nodes: Vec<Node>,
}

impl Nodes<'_> {
    fn push(
        &mut self,
        class: &str,
        params: Value,
        state: Value,
        inputs: &[Column],
        outputs: &[Column],
    ) -> usize {
        let id = self.nodes.len();
        let object = |value| match value {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        self.nodes.push(Node {
            id,
            op_class: Some(class.to_owned()),
            op_params: object(params),
            op_state: object(state),
            parent_ids: Vec::new(),
            dependency_ids: Vec::new(),
            selector: Some(Selector {
                names: inputs.iter().map(|column| column.name.clone()).collect(),
                tags: Vec::new(),
            }),
            input_schema: Some(inputs.to_vec()),
            output_schema: Some(outputs.to_vec()),
        });
        id
    }

    /// The nodes of a chain: the last of them and its columns.
    fn chain(
        &mut self,
        workflow: &Workflow,
        chain: &Chain,
        fitted: &[Fitted],
    ) -> Result<(usize, Vec<Column>), Error> {
        let input = |name: &str| {
            let column = workflow.inputs().iter().find(|input| input.name == name);
            column
                .map(|column| Variable::input(column, 0))
                .ok_or_else(|| Error::MissingColumn {
                    column: name.to_owned(),
                    given: workflow
                        .inputs()
                        .iter()
                        .map(|i| i.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                })
        };
        let columns_before = |operators: usize| -> Result<Vec<Column>, Error> {
            let variables = compile::chain(chain, fitted, operators, &input)?;
            Ok(variables.iter().map(column).collect())
        };
        let mut columns = columns_before(0)?;
        let names: Vec<&str> = chain.columns.iter().map(String::as_str).collect();
        let selector = json!({ "selector": { "names": names, "tags": [] } });
        let mut last = self.push(
            "merlin.dag.ops.selection.SelectionOp",
            selector,
            json!({}),
            &columns,
            &columns,
        );
        for (position, (operator, state)) in chain.operators.iter().zip(fitted).enumerate() {
            let outputs = columns_before(position + 1)?;
            let folder = self
                .folder
                .join("artifacts")
                .join(format!("node_{}", self.nodes.len()));
            let export = Export {
                operator: operator.name(),
                fitted: state,
                columns: &columns,
                folder: &folder,
            };
            let Form {
                class,
                params,
                state,
            } = operator.transform().export(&export)?;
            let node = self.push(class, params, state, &columns, &outputs);
            if let Some(node) = self.nodes.get_mut(node) {
                node.parent_ids = vec![last];
            }
            last = node;
            columns = outputs;
        }
        Ok((last, columns))
    }
}

fn column(variable: &Variable) -> Column {
    let (name, kind, size, signed) = match variable.dtype {
        _ if variable.datetime.is_some() => ("datetime64[ns]", "datetime", Some(64), None),
        DType::Int32 => ("int32", "int", Some(32), Some(true)),
        DType::Int64 => ("int64", "int", Some(64), Some(true)),
        DType::Float32 => ("float32", "float", Some(32), Some(true)),
        DType::Float64 => ("float64", "float", Some(64), Some(true)),
        DType::Bool => ("bool", "bool", None, None),
        DType::String => ("object", "object", None, None),
    };
    let rows = json!({ "min": 0, "max": null });
    let shape = if variable.list {
        json!([rows, rows])
    } else {
        json!([rows])
    };
    let mut dtype = Map::from_iter([
        ("name".to_owned(), json!(name)),
        ("element_type".to_owned(), json!(kind)),
        ("shape".to_owned(), shape),
    ]);
    if let (Some(size), Some(signed)) = (size, signed) {
        dtype.insert("element_size".to_owned(), json!(size));
        dtype.insert("signed".to_owned(), json!(signed));
    }
    Column {
        name: variable.name.clone(),
        tags: variable.tags.clone(),
        properties: variable.properties.clone().into_iter().collect(),
        dtype: Some(Value::Object(dtype)),
        is_list: Some(variable.list),
        is_ragged: Some(variable.list),
    }
}
