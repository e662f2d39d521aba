//! From NVTabular's graph to chains.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::{Part, Read};
use super::{FORMAT_VERSION, GRAPH_FILE, Graph, Node};
use crate::column::DType;
use crate::definition::{Chain, Definition, Join, Operator, TableOperator};
use crate::error::Error;
use crate::files::read_parquet;
use crate::operators::{Fitted, Select};
use crate::parts::{InputColumn, Parts};
use crate::table;
use crate::workflow::Workflow;

/// Reads a workflow that NVTabular saved as `graph.json`, or that `scripts/export-nvtabular` made of one of 23.8.
///
/// # Errors
/// A file cannot be read, or an operator has no equal here: the message names its node, its columns and what there is.
pub fn import(folder: &Path) -> Result<Workflow, Error> {
    let path = folder.join(GRAPH_FILE);
    let json = std::fs::read_to_string(&path).map_err(|error| {
        let hint = if folder.join("workflow.pkl").exists() {
            "; the folder holds a Python pickle: run scripts/export-nvtabular on it, beside NVTabular"
        } else {
            ""
        };
        Error::file(&path, format!("{error}{hint}"))
    })?;
    let graph: Graph = serde_json::from_str(&json).map_err(|error| Error::file(&path, error))?;
    if graph.format_version != FORMAT_VERSION {
        return Err(Error::file(
            &path,
            format!(
                "format_version {} is not known; this version reads {FORMAT_VERSION}",
                graph.format_version
            ),
        ));
    }
    let mut import = Import {
        path: &path,
        folder,
        nodes: graph.nodes.iter().map(|node| (node.id, node)).collect(),
        stages: Vec::new(),
        table: Vec::new(),
        done: BTreeMap::new(),
    };
    let bundles = import.node(graph.output_node_id)?;
    for bundle in &bundles {
        import.passes_table(bundle, graph.output_node_id)?;
    }
    let output = import.get(graph.output_node_id)?;
    let order: Vec<&str> = (output.output_schema.iter().flatten())
        .map(|column| column.name.as_str())
        .collect();
    let place = |bundle: &Bundle| {
        order
            .iter()
            .position(|name| bundle.names.iter().any(|n| n == name))
    };
    let mut bundles: Vec<Bundle> = (bundles.into_iter())
        .flat_map(|bundle| bundle.in_order(&order))
        .collect();
    bundles.sort_by_key(|bundle| place(bundle).unwrap_or(usize::MAX));

    let Import { stages, table, .. } = import;
    let last = Stage {
        table,
        chains: bundles,
    };
    let types = column_types(&graph);
    let mut before: Vec<Workflow> = Vec::new();
    for stage in stages {
        let parts = stage.parts(&path, &types, before.last())?;
        before.push(Workflow::from_parts(parts)?);
    }
    let parts = last.parts(&path, &types, before.last())?;
    Workflow::after(before, parts)
}

/// A definition before it has types.
struct Stage {
    table: Vec<(TableOperator, Fitted)>,
    chains: Vec<Bundle>,
}

impl Stage {
    /// Reads the columns that the workflow before gives, or those of the input, whose `types` the graph in `path` tells.
    fn parts(
        self,
        path: &Path,
        types: &BTreeMap<String, InputColumn>,
        before: Option<&Workflow>,
    ) -> Result<Parts, Error> {
        let given = before.map(Workflow::outputs_as_inputs);
        let described = |name: &str| {
            let column = match &given {
                None => types.get(name),
                Some(given) => given.iter().find(|column| column.name == name),
            };
            column.cloned().ok_or_else(|| {
                Error::file(
                    path,
                    format!("the type of the input column '{name}' is not given"),
                )
            })
        };
        let (operators, table): (Vec<_>, Vec<_>) = self.table.into_iter().unzip();
        let mut definition = Definition {
            table: operators,
            ..Definition::default()
        };
        let mut fitted = Vec::new();
        for bundle in self.chains {
            definition.chains.push(Chain {
                columns: bundle.columns,
                operators: bundle.operators,
            });
            fitted.push(bundle.fitted);
        }
        let inputs = definition.own_input_names().into_iter().map(described);
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        Ok(Parts {
            sources: table::sources(&definition, &table, &inputs)?,
            inputs,
            table,
            fitted,
            definition,
        })
    }
}

/// Some of a node's columns: those that one chain gives.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    /// Input columns of the chain.
    pub(super) columns: Vec<String>,
    pub(super) operators: Vec<Operator>,
    pub(super) fitted: Vec<Fitted>,
    /// What the chain gives.
    pub(super) names: Vec<String>,
    /// How many definitions that come before, and operators over the table after these, it passes through.
    after: (usize, usize),
}

impl Bundle {
    fn input(name: &str, after: (usize, usize)) -> Self {
        Self {
            columns: vec![name.to_owned()],
            operators: Vec::new(),
            fitted: Vec::new(),
            names: vec![name.to_owned()],
            after,
        }
    }

    /// The chain with these of its columns alone, in its own order.
    fn only(mut self, names: &[String]) -> Self {
        let columns: Vec<String> = (self.names.iter())
            .filter(|name| names.contains(name))
            .cloned()
            .collect();
        if columns.len() < self.names.len() {
            self.push(Select { columns }.into(), Fitted::Nothing);
        }
        self
    }

    /// The chain, or one for each of its columns where they do not follow each other in `order`.
    fn in_order(self, order: &[&str]) -> Vec<Self> {
        let places: Option<Vec<usize>> = (self.names.iter())
            .map(|name| order.iter().position(|other| other == name))
            .collect();
        let follows = |places: Vec<usize>| {
            let mut pairs = places.iter().zip(places.iter().skip(1));
            pairs.all(|(place, next)| place + 1 == *next)
        };
        if places.is_none_or(follows) {
            return vec![self];
        }
        (self.names.iter())
            .map(|name| self.clone().only(std::slice::from_ref(name)))
            .collect()
    }

    /// The chain with one more operator.
    pub(super) fn push(&mut self, operator: Operator, fitted: Fitted) {
        self.names = operator.fitted_output_names(&fitted, &self.names);
        self.operators.push(operator);
        self.fitted.push(fitted);
    }
}

struct Import<'a> {
    path: &'a Path,
    folder: &'a Path,
    nodes: BTreeMap<usize, &'a Node>,
    /// The definitions that come before.
    stages: Vec<Stage>,
    /// The operators over the table after these.
    table: Vec<(TableOperator, Fitted)>,
    done: BTreeMap<usize, Vec<Bundle>>,
}

impl<'a> Import<'a> {
    fn get(&self, id: usize) -> Result<&'a Node, Error> {
        self.nodes
            .get(&id)
            .copied()
            .ok_or_else(|| Error::file(self.path, format!("there is no node {id}")))
    }

    /// The columns after a node.
    fn node(&mut self, id: usize) -> Result<Vec<Bundle>, Error> {
        if let Some(done) = self.done.get(&id) {
            return Ok(done.clone());
        }
        let node = self.get(id)?;
        let joins = node.operator() == "ConcatColumns";
        let others = if joins {
            node.dependency_ids.as_slice()
        } else {
            &[]
        };
        let mut bundles: Vec<Bundle> = Vec::new();
        for &parent in node.parent_ids.iter().chain(others) {
            // Also what keeps this from running in a circle.
            if parent >= id {
                return Err(self.fail(
                    node,
                    &format!("its parent {parent} does not come before it"),
                ));
            }
            bundles.extend(self.node(parent)?);
        }
        let selected = node.selector.as_ref().map_or(&[][..], |s| &s.names);
        if node.parent_ids.is_empty() && bundles.is_empty() {
            bundles = selected
                .iter()
                .map(|name| Bundle::input(name, (0, 0)))
                .collect();
        } else if !joins && !selected.is_empty() {
            bundles = self.select(node, bundles, selected)?;
        }
        if node.operator() == "Groupby" || Operator::imports_input(node.operator()) {
            bundles = self.with_input_columns(node, bundles)?;
        }
        let bundles = self.apply(node, bundles)?;
        self.done.insert(id, bundles.clone());
        Ok(bundles)
    }

    /// Refuses an operator that takes columns from the input itself where its own columns have other rows: keys, a partition, a target. The keys of
    /// a Groupby are those of the input, in place of what nodes before it give by the same name.
    fn with_input_columns(
        &mut self,
        node: &'a Node,
        mut bundles: Vec<Bundle>,
    ) -> Result<Vec<Bundle>, Error> {
        for &dependency in &node.dependency_ids {
            if dependency >= node.id {
                let message = format!("its dependency {dependency} does not come before it");
                return Err(self.fail(node, &message));
            }
            for input in self.node(dependency)? {
                let changed = bundles.iter().any(|bundle| bundle.after > input.after);
                if changed && let Some(operator) = self.not_passed(&input) {
                    return Err(self.fail(
                        node,
                        &format!(
                            "NVTabular takes its column '{}' from the rows before {}, which are not the rows after it: it gives \
                             other rows than it was given",
                            input.names.join(", "),
                            operator.name()
                        ),
                    ));
                }
                if node.operator() != "Groupby" {
                    continue;
                }
                let left = bundles.into_iter().filter_map(|bundle| {
                    let others = |name: &&String| !input.names.contains(name);
                    let others: Vec<String> = bundle.names.iter().filter(others).cloned().collect();
                    (!others.is_empty()).then(|| bundle.only(&others))
                });
                bundles = left.collect();
                bundles.push(input);
            }
        }
        Ok(bundles)
    }

    /// The chains that give the selected columns.
    fn select(
        &self,
        node: &Node,
        bundles: Vec<Bundle>,
        names: &[String],
    ) -> Result<Vec<Bundle>, Error> {
        let mut kept: Vec<Bundle> = Vec::new();
        for bundle in bundles {
            let taken = bundle
                .names
                .iter()
                .filter(|name| names.contains(name))
                .count();
            if taken > 0 {
                kept.push(bundle.only(names));
            }
        }
        let given = |name: &String| kept.iter().any(|bundle| bundle.names.contains(name));
        match names.iter().find(|name| !given(name)) {
            Some(name) => Err(self.fail(
                node,
                &format!("no node before it gives the column '{name}'"),
            )),
            None => Ok(kept),
        }
    }

    fn apply(&mut self, node: &'a Node, bundles: Vec<Bundle>) -> Result<Vec<Bundle>, Error> {
        let read = Read {
            node,
            // In the order of the selector, which is the schema's too.
            names: match node.selector.as_ref().map(|selector| &selector.names) {
                Some(names) if !names.is_empty() => names.clone(),
                _ => bundles
                    .iter()
                    .flat_map(|bundle| bundle.names.clone())
                    .collect(),
            },
            folder: &self.folder.join(node.folder()),
        };
        let failed = |error: Error| self.fail(node, &error.to_string());
        let mut given = Vec::new();
        match step(&read).map_err(failed)? {
            Step::Pass => return Ok(bundles),
            Step::Table(operator, state) => {
                for bundle in &bundles {
                    self.passes_table(bundle, node.id)?;
                }
                if bundles.iter().any(|bundle| !bundle.operators.is_empty()) {
                    self.end_stage(&operator, &bundles);
                }
                let before = bundles.iter().flat_map(|bundle| bundle.names.clone());
                let mut names = match operator.leaves() {
                    Some(left) => left,
                    None => before.chain(operator.makes()).collect::<Vec<_>>(),
                };
                // NVTabular gives no key that its selector does not name.
                if let Some(outputs) = &node.output_schema {
                    names.retain(|name| outputs.iter().any(|output| output.name == *name));
                }
                self.table.push((*operator, state));
                let after = (self.stages.len(), self.table.len());
                given.extend(names.iter().map(|name| Bundle::input(name, after)));
            }
            Step::Each(steps) => {
                let mut left = bundles;
                for Part { names, operators } in steps {
                    let (mut taken, rest): (Vec<_>, Vec<_>) = (left.into_iter())
                        .partition(|bundle| bundle.names.iter().any(|name| names.contains(name)));
                    left = rest;
                    // The same column may enter several keys: it stays for the next.
                    let again: Vec<Bundle> = taken.clone();
                    taken.sort_by_key(|b| names.iter().position(|n| b.names.contains(n)));
                    // What was given together, such as a column and its flag, may be transformed apart.
                    let taken = taken
                        .into_iter()
                        .map(|bundle| bundle.only(&names))
                        .collect();
                    let mut bundle = self.join(node, taken)?;
                    for (operator, fitted) in operators {
                        bundle.push(operator, fitted);
                    }
                    given.push(bundle);
                    left.extend(again);
                }
            }
        }
        Ok(given)
    }

    /// Makes a definition of its own of the columns that an operator over the table takes: these chains and, as they are, the other
    /// columns that it reads.
    fn end_stage(&mut self, operator: &TableOperator, bundles: &[Bundle]) {
        let mut chains = bundles.to_vec();
        for name in operator.reads() {
            let given = |bundle: &Bundle| bundle.names.iter().any(|given| given == name);
            if !chains.iter().any(given) {
                chains.push(Bundle::input(name, (self.stages.len(), self.table.len())));
            }
        }
        let table = std::mem::take(&mut self.table);
        self.stages.push(Stage { table, chains });
    }

    /// One chain of several, which must be input columns as they are.
    fn join(&self, node: &Node, bundles: Vec<Bundle>) -> Result<Bundle, Error> {
        let mut bundles = bundles.into_iter();
        let Some(mut joined) = bundles.next() else {
            return Err(self.fail(node, "none of its columns is given"));
        };
        for bundle in bundles {
            if let Some(operator) = joined.operators.first().or(bundle.operators.first()) {
                return Err(self.fail(
                    node,
                    &format!(
                        "it combines '{}' and '{}', of which one is made by {}: only input columns can be combined here",
                        joined.names.join(", "),
                        bundle.names.join(", "),
                        operator.name()
                    ),
                ));
            }
            joined.columns.extend(bundle.columns);
            joined.names.extend(bundle.names);
        }
        Ok(joined)
    }

    /// The first operator over the table that other columns pass through and a bundle does not.
    fn not_passed(&self, bundle: &Bundle) -> Option<&TableOperator> {
        let (stage, table) = bundle.after;
        let next = match self.stages.get(stage) {
            // The operator that a definition ended for is the first of the next one.
            Some(ended) => {
                let next = self.stages.get(stage + 1).map(|stage| &stage.table);
                let after = next.unwrap_or(&self.table).first();
                ended.table.get(table).or(after)
            }
            None => self.table.get(table),
        };
        next.map(|(operator, _)| operator)
    }

    fn passes_table(&self, bundle: &Bundle, id: usize) -> Result<(), Error> {
        match self.not_passed(bundle) {
            Some(operator) => Err(self.fail(
                self.get(id)?,
                &format!(
                    "'{}' does not pass through {}, which other columns do: their rows differ",
                    bundle.names.join(", "),
                    operator.name()
                ),
            )),
            None => Ok(()),
        }
    }

    fn fail(&self, node: &Node, message: &str) -> Error {
        Error::file(
            self.path,
            format!("node {}, {}: {message}", node.id, node.operator()),
        )
    }
}

/// What a node does to its columns.
enum Step {
    /// Hands them on.
    Pass,
    /// Changes the table's rows or columns.
    Table(Box<TableOperator>, Fitted),
    /// Passes columns through operators.
    Each(Vec<Part>),
}

fn step(node: &Read<'_>) -> Result<Step, Error> {
    match node.operator() {
        "SelectionOp" | "ConcatColumns" | "SubsetColumns" | "SubtractionOp" => Ok(Step::Pass),
        "Dropna" | "Groupby" | "JoinExternal" | "Filter" => table_step(node),
        other => match Operator::import(node) {
            Some(parts) => Ok(Step::Each(parts?)),
            None => Err(node.fail(&format!("there is no operator '{other}' here"))),
        },
    }
}

fn table_step(node: &Read<'_>) -> Result<Step, Error> {
    match node.operator() {
        "Dropna" => {
            let columns = node.names.clone();
            let operator = TableOperator::Dropna { columns };
            Ok(Step::Table(Box::new(operator), Fitted::Nothing))
        }
        "Groupby" => {
            let operator = TableOperator::Groupby {
                groupby_cols: node.param("groupby_cols")?,
                sort_cols: node.param("sort_cols")?,
                ascending: node.param("ascending")?,
                aggs: node.param("aggs")?,
                name_sep: node.param("name_sep")?,
            };
            Ok(Step::Table(Box::new(operator), Fitted::Nothing))
        }
        "JoinExternal" => {
            let path = node.file(&node.param::<PathBuf>("path")?)?;
            let operator = TableOperator::JoinExternal {
                on: node.param("on")?,
                on_ext: node.param("on_ext")?,
                how: node.param::<Join>("how")?,
                columns_ext: node.param("columns_ext")?,
                // The table was saved without them.
                drop_duplicates_ext: false,
                path: path.clone(),
            };
            let state = Fitted::External(Arc::new(read_parquet(&path)?));
            Ok(Step::Table(Box::new(operator), state))
        }
        "Filter" => Err(node.fail(&format!(
            "{} is a Python function, which cannot be read. Filter the table before the workflow, or write the condition into the \
             definition: {{ op = \"Filter\", condition = {{ column = \"price\", is = \">=\", value = 0 }} }}",
            node.callable()
        ))),
        other => Err(node.fail(&format!("there is no operator '{other}' here"))),
    }
}

/// The columns of all schemas by name; the first that is seen, which is the input's.
fn column_types(graph: &Graph) -> BTreeMap<String, InputColumn> {
    let mut types = BTreeMap::new();
    let schemas =
        (graph.nodes.iter()).flat_map(|node| node.input_schema.iter().chain(&node.output_schema));
    for column in schemas.flatten() {
        let name = column.dtype.as_ref().map(|dtype| match dtype {
            serde_json::Value::String(name) => name.as_str(),
            other => other["name"].as_str().unwrap_or_default(),
        });
        let name = name.unwrap_or_default();
        let datetime = name.starts_with("datetime64");
        let dtype = match name {
            _ if datetime => DType::Int64,
            "int8" | "int16" | "int32" | "uint8" | "uint16" => DType::Int32,
            "int64" | "uint32" | "uint64" => DType::Int64,
            "float16" | "float32" => DType::Float32,
            "float64" => DType::Float64,
            "bool" => DType::Bool,
            "object" | "str" | "string" => DType::String,
            _ => continue,
        };
        types.entry(column.name.clone()).or_insert(InputColumn {
            name: column.name.clone(),
            dtype,
            list: column.is_list == Some(true),
            datetime,
        });
    }
    types
}
