//! The golden workflows: the retail definition with the numbers and vocabularies that NVTabular fitted.

use std::path::Path;

use saker_pipeline::{ColumnType, Group};
use saker_workflow::{Operator, WORKFLOW_FILE, Workflow};
use serde_json::{Value, json};
use triton_testing::repository;

use super::{golden::retail, stage::data};

/// Writes the workflow of one group of features: `workflow.json` and NVTabular's own vocabulary files.
pub(crate) fn golden_workflow(group: Group, folder: &Path) {
    let reference = std::fs::read(data("reference/pipeline.json")).expect("the fitted numbers");
    let reference: Value = serde_json::from_slice(&reference).expect("JSON");
    let numbers = &reference["workflows"][group.as_str()];
    let definition = retail().workflow(group);
    let chains: Vec<Value> = definition
        .chains
        .iter()
        .map(|chain| {
            let output = chain.output_names().expect("a feature").remove(0);
            let operators: Vec<Value> = chain
                .operators
                .iter()
                .map(|operator| saved(operator, &output, &numbers[&output]))
                .collect();
            json!({ "columns": chain.columns, "operators": operators })
        })
        .collect();
    let mut inputs: Vec<&String> = Vec::new();
    for column in definition.chains.iter().flat_map(|chain| &chain.columns) {
        if !inputs.contains(&column) {
            inputs.push(column);
        }
    }
    let inputs: Vec<Value> = inputs
        .into_iter()
        .map(|name| json!({ "name": name, "dtype": dtype(name) }))
        .collect();
    let workflow = json!({ "format": 1, "inputs": inputs, "chains": chains });
    repository::copy(
        &data(&format!("reference/categories/{}", group.as_str())),
        &folder.join("categories"),
    )
    .expect("the vocabularies");
    std::fs::write(folder.join(WORKFLOW_FILE), workflow.to_string()).expect("the workflow");
    // What is wrong here would look like the backend's fault.
    let workflow = Workflow::load(folder).expect("the golden workflow");
    for (name, cardinality) in reference["cardinalities"].as_object().expect("an object") {
        if let Some(output) = workflow.output(name) {
            assert_eq!(output.cardinality.map(|n| n as u64), cardinality.as_u64());
        }
    }
}

fn saved(operator: &Operator, output: &str, numbers: &Value) -> Value {
    let fitted = match operator {
        Operator::Categorify(_) => json!({
            "kind": "vocabularies",
            "vocabularies": [{
                "name": output,
                "file": format!("categories/unique.{output}.parquet"),
            }],
        }),
        Operator::Normalize(_) => {
            let numbers = numbers
                .as_array()
                .into_iter()
                .flatten()
                .find_map(|step| step.get("Normalize"))
                .expect("fitted numbers");
            json!({
                "kind": "moments",
                "means": { output: numbers["mean"] },
                "stds": { output: numbers["std"] },
            })
        }
        _ => return json!({ "operator": operator }),
    };
    json!({ "operator": operator, "fitted": fitted })
}

/// The type of a raw column.
fn dtype(column: &str) -> &'static str {
    let pipeline = retail();
    let columns = [
        &pipeline.user.columns,
        &pipeline.item.columns,
        &pipeline.context.columns,
    ];
    let found = columns
        .into_iter()
        .flatten()
        .find(|known| known.name == column);
    match found.map(|column| column.kind) {
        Some(ColumnType::Float32) => "float32",
        _ => "int32",
    }
}
