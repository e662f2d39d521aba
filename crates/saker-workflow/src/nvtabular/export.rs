//! From chains to NVTabular's graph.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Column, FORMAT_VERSION, GRAPH_FILE, Graph, Node, Selector};
use crate::column::DType;
use crate::compile;
use crate::definition::{Chain, FloatType, Grouping, HashKey, IntType, Operator};
use crate::error::Error;
use crate::fitted::Fitted;
use crate::variable::Variable;
use crate::vocabulary::{GroupTable, Vocabulary};
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
            let (class, params, state) = form(operator, state, &columns, &folder)?;
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

/// The class, parameters and state of an operator; its tables are written below `folder`.
fn form(
    operator: &Operator,
    fitted: &Fitted,
    columns: &[Column],
    folder: &Path,
) -> Result<(&'static str, Value, Value), Error> {
    let fail = |message: &str| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        Err(Error::definition(
            &names.join(", "),
            &format!("{}: graph.json has no form for {message}", operator.name()),
        ))
    };
    let none = json!({});
    Ok(match (operator, fitted) {
        (
            Operator::Categorify {
                freq_threshold,
                max_size,
                num_buckets,
                encode_type,
                padding,
                dtype,
                hash,
            },
            Fitted::Vocabularies(vocabularies),
        ) => {
            if padding.is_some() {
                return fail("padding");
            }
            if *num_buckets > 1 && *hash == HashKey::Value {
                return fail(
                    "hash = \"value\": NVTabular takes in the row number, which is hash = \"value_and_row\"",
                );
            }
            if vocabularies.iter().any(|v| v.in_single_table()) {
                return fail("codes in a table that columns share (single_table)");
            }
            if *encode_type == Grouping::Combo {
                return fail("combinations of columns");
            }
            let records = vocabularies.iter().map(|v| write_vocabulary(v, folder));
            let storage: Map<String, Value> = match encode_type {
                Grouping::Joint => (columns.iter())
                    .flat_map(|column| {
                        Some((column.name.clone(), json!(vocabularies.first()?.name())))
                    })
                    .collect(),
                _ => Map::new(),
            };
            let params = json!({
                "freq_threshold": freq_threshold, "max_size": max_size, "encode_type": "joint",
                "num_buckets": if *num_buckets > 1 { json!(num_buckets) } else { Value::Null },
                "dtype": { "name": match dtype { IntType::Int32 => "<i4", IntType::Int64 => "<i8" } },
                "cat_cache": "host", "on_host": false, "name_sep": "_", "search_sorted": false, "single_table": false,
                "cardinality_memory_limit": null, "split_out": 1, "split_every": 8,
            });
            let records = records.collect::<Result<Vec<_>, _>>()?;
            let state = json!({ "categories": records, "storage_name": storage });
            ("nvtabular.ops.categorify.Categorify", params, state)
        }
        (Operator::HashBucket { num_buckets, hash }, _) => {
            if *hash == HashKey::Value {
                return fail(
                    "hash = \"value\": NVTabular takes in the row number, which is hash = \"value_and_row\"",
                );
            }
            (
                "nvtabular.ops.hash_bucket.HashBucket",
                json!({ "num_buckets": num_buckets }),
                none,
            )
        }
        (Operator::Bucketize { boundaries }, _) => (
            "nvtabular.ops.bucketize.Bucketize",
            json!({ "boundaries": boundaries }),
            none,
        ),
        (Operator::LogOp, _) => ("nvtabular.ops.logop.LogOp", none, json!({})),
        (Operator::Normalize { dtype }, Fitted::Moments { means, stds }) => (
            "nvtabular.ops.normalize.Normalize",
            json!({ "out_dtype": { "name": float(*dtype) } }),
            json!({ "means": means, "stds": stds }),
        ),
        (Operator::NormalizeMinMax { dtype }, Fitted::Extremes { mins, maxs }) => (
            "nvtabular.ops.normalize.NormalizeMinMax",
            json!({ "out_dtype": { "name": float(*dtype) } }),
            json!({ "mins": mins, "maxs": maxs }),
        ),
        (Operator::Clip { min, max }, _) => (
            "nvtabular.ops.clip.Clip",
            json!({ "min_value": min, "max_value": max }),
            none,
        ),
        (
            Operator::FillMissing {
                value,
                add_binary_cols,
            },
            _,
        ) => (
            "nvtabular.ops.fill.FillMissing",
            json!({ "fill_val": value, "add_binary_cols": add_binary_cols }),
            none,
        ),
        (Operator::FillMedian { add_binary_cols }, Fitted::Medians { medians }) => (
            "nvtabular.ops.fill.FillMedian",
            json!({ "add_binary_cols": add_binary_cols }),
            json!({ "medians": medians }),
        ),
        (
            Operator::ListSlice {
                start,
                end,
                pad,
                pad_value,
            },
            _,
        ) => (
            "nvtabular.ops.list_slice.ListSlice",
            json!({ "start": start, "end": end, "pad": pad, "pad_value": pad_value }),
            none,
        ),
        (
            Operator::JoinGroupby {
                columns,
                stats,
                group,
            },
            Fitted::Groups(tables),
        ) => {
            if *group != Grouping::Separate {
                return fail("combinations of columns");
            }
            let records = tables.iter().map(|table| write_table(table, folder));
            let params = json!({
                "cont_cols": columns, "stats": stats, "split_out": null, "split_every": null, "on_host": false,
                "cat_cache": "host", "name_sep": "_",
            });
            let records = records.collect::<Result<Vec<_>, _>>()?;
            let state = json!({ "categories": records, "storage_name": {} });
            ("nvtabular.ops.join_groupby.JoinGroupby", params, state)
        }
        (
            Operator::TargetEncoding {
                target,
                p_smooth,
                group,
                kfold,
                fold_seed,
            },
            Fitted::Target {
                tables,
                mean,
                folds,
            },
        ) => {
            if *group != Grouping::Separate {
                return fail("combinations of columns");
            }
            let records = tables
                .iter()
                .chain(folds)
                .map(|table| write_table(table, folder));
            let params = json!({
                "target_cols": [target], "target_mean": null, "kfold": kfold, "fold_seed": fold_seed, "p_smooth": p_smooth,
                "out_col": null, "out_dtype": null, "split_out": null, "split_every": null, "on_host": true, "cat_cache": "host",
                "name_sep": "_", "drop_folds": true,
            });
            let records = records.collect::<Result<Vec<_>, _>>()?;
            let means = Map::from_iter([(target.clone(), json!(mean))]);
            (
                "nvtabular.ops.target_encoding.TargetEncoding",
                params,
                json!({ "stats": records, "means": means }),
            )
        }
        (Operator::Rename { name, postfix }, _) => (
            "nvtabular.ops.rename.Rename",
            json!({ "f": null, "name": name, "postfix": postfix }),
            none,
        ),
        (operator, _) if operator.is_metadata() => {
            let (tags, properties) = operator.metadata();
            let params = json!({ "tags": tags, "properties": properties });
            ("nvtabular.ops.add_metadata.AddMetadata", params, none)
        }
        _ => return fail("this operator"),
    })
}

fn write_vocabulary(vocabulary: &Arc<Vocabulary>, folder: &Path) -> Result<Value, Error> {
    let path = format!("categories/unique.{}.parquet", vocabulary.name());
    vocabulary.write(&folder.join(&path))?;
    Ok(json!({ "key": [vocabulary.name()], "path": path }))
}

fn write_table(table: &GroupTable, folder: &Path) -> Result<Value, Error> {
    let names: Vec<&str> = table.keys().iter().map(|(name, _)| name.as_str()).collect();
    let path = format!("categories/cat_stats.{}.parquet", names.join("_"));
    table.write(&folder.join(&path))?;
    Ok(json!({ "key": [names.join("_")], "path": path }))
}

fn float(dtype: FloatType) -> &'static str {
    match dtype {
        FloatType::Float32 => "float32",
        FloatType::Float64 => "float64",
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
