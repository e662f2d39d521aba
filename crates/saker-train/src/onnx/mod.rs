//! Export to ONNX: the graphs that ONNX Runtime and TensorRT serve.
//!
//! Inputs are the encoded features by name: categorical ones INT32 `[N]`, continuous ones FLOAT `[N]`, pretrained vectors
//! FLOAT `[N, dim]`. A code must be in `0..cardinality`. The transforms guarantee this, since they encode unknown values as
//! out-of-vocabulary. ONNX Runtime checks the codes again and fails a request with a code beyond the table.

mod external_data;
mod graph;
mod hoist;
mod proto;
mod read;

use graph::{Attribute, FLOAT, GraphBuilder, INT32, Value};
use prost::Message;
use saker_contract::Step;

use crate::layers::{Dense, Embedding};
use crate::ranker::{Ranker, pairs, scale};
use crate::towers::Tower;

pub use external_data::tables_apart;
pub use hoist::{CODES_INPUT, Hoisted, Inputs, Items, NUMBERS_INPUT, ROWS_INPUT, hoist};

/// Name of the towers' output, FLOAT `[N, dim]`.
pub const TOWER_OUTPUT: &str = saker_contract::tensor::QUERY_VECTOR;
/// Name of the ranker's output, FLOAT `[N, 1]`, a probability.
pub const RANKER_OUTPUT: &str = saker_contract::tensor::SCORE;
/// Key of the release id in a model's metadata.
pub const RELEASE_KEY: &str = saker_contract::release::ONNX_KEY;

/// One tower as an ONNX model; `name` is the graph's.
pub fn tower(tower: &Tower, name: &str) -> Vec<u8> {
    let mut graph = GraphBuilder::new(name);
    let mut parts: Vec<Value> = embeddings(&mut graph, &tower.embeddings);
    if let Some(projection) = &tower.projection {
        let inputs = continuous(&mut graph, &tower.continuous);
        parts.push(dense(
            &mut graph,
            "continuous_projection",
            projection,
            &inputs,
        ));
    }
    for (name, projection) in &tower.pretrained {
        let vectors = graph.input(name, FLOAT, Some(projection.weight.rows));
        parts.push(dense(
            &mut graph,
            &format!("{name}_projection"),
            projection,
            &vectors,
        ));
    }
    let input = concat(&mut graph, &parts);
    let mut output = layers(&mut graph, "layer", &tower.layers, input, false);
    if tower.normalize {
        let axes = [
            ("axes", Attribute::Ints(vec![1])),
            ("keepdims", Attribute::Int(1)),
        ];
        let norm = graph.node("ReduceL2", &[&output], &axes);
        let least = graph.floats("least_norm", &[1], &[1e-12]);
        let norm = graph.node("Max", &[&norm, &least], &[]);
        output = graph.node("Div", &[&output, &norm], &[]);
    }
    graph.output(output, TOWER_OUTPUT, tower.dim());
    graph.model().encode_to_vec()
}

/// The ranker as an ONNX model.
pub fn ranker(ranker: &Ranker) -> Vec<u8> {
    let mut graph = GraphBuilder::new(Step::Ranking.model());
    let mut parts = embeddings(&mut graph, &ranker.embeddings);
    let inputs =
        (!ranker.continuous.is_empty()).then(|| continuous(&mut graph, &ranker.continuous));
    for (name, projection) in &ranker.pretrained {
        let vectors = graph.input(name, FLOAT, Some(projection.weight.rows));
        parts.push(dense(
            &mut graph,
            &format!("{name}_projection"),
            projection,
            &vectors,
        ));
    }
    let bottom = inputs.map(|inputs| layers(&mut graph, "bottom", &ranker.bottom, inputs, true));
    parts.extend(bottom.clone());
    let vectors = ranker.vectors();

    let stacked = concat(&mut graph, &parts);
    let shape = graph.integers("stacked_shape", &[-1, vectors as i64, ranker.dim as i64]);
    let stacked = graph.node("Reshape", &[&stacked, &shape], &[]);
    let transposed = graph.node(
        "Transpose",
        &[&stacked],
        &[("perm", Attribute::Ints(vec![0, 2, 1]))],
    );
    let products = graph.node("MatMul", &[&stacked, &transposed], &[]);
    let flat = graph.integers("products_shape", &[-1, (vectors * vectors) as i64]);
    let products = graph.node("Reshape", &[&products, &flat], &[]);
    let pairs = graph.integers("pairs", &pairs(vectors));
    let products = graph.node(
        "Gather",
        &[&products, &pairs],
        &[("axis", Attribute::Int(1))],
    );
    let factor = graph.floats("products_scale", &[1], &[scale(ranker.dim)]);
    let products = graph.node("Mul", &[&products, &factor], &[]);
    let top: Vec<Value> = std::iter::once(products).chain(bottom).collect();
    let input = concat(&mut graph, &top);
    let logit = layers(&mut graph, "top", &ranker.top, input, false);
    let probability = graph.node("Sigmoid", &[&logit], &[]);
    graph.output(probability, RANKER_OUTPUT, 1);
    graph.model().encode_to_vec()
}

/// Writes the release id into the metadata of any ONNX model.
///
/// The entry is appended to the file, and all other bytes stay. Protobuf reads the concatenation of two messages as one: it joins repeated
/// fields, and the last entry of a key counts.
pub fn set_release(model: &mut Vec<u8>, release: &str) {
    let entry = proto::Model {
        metadata_props: vec![property(RELEASE_KEY, release)],
        ..proto::Model::default()
    };
    model.extend(entry.encode_to_vec());
}

fn property(key: &str, value: &str) -> proto::Property {
    proto::Property {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}

/// One `Gather` per embedding: `[N, width]` each.
fn embeddings(graph: &mut GraphBuilder, embeddings: &[Embedding]) -> Vec<Value> {
    embeddings
        .iter()
        .map(|embedding| {
            let codes = graph.input(&embedding.name, INT32, None);
            let table = &embedding.table;
            let weight = graph.floats(
                &format!("{}_embedding", embedding.name),
                &[table.rows, table.columns],
                &table.values,
            );
            graph.node("Gather", &[&weight, &codes], &[("axis", Attribute::Int(0))])
        })
        .collect()
}

/// The concatenated continuous inputs: `[N, columns]`.
fn continuous(graph: &mut GraphBuilder, names: &[String]) -> Value {
    let axis = graph.integers("column_axis", &[1]);
    let columns: Vec<Value> = names
        .iter()
        .map(|name| {
            let input = graph.input(name, FLOAT, None);
            graph.node("Unsqueeze", &[&input, &axis], &[])
        })
        .collect();
    concat(graph, &columns)
}

fn concat(graph: &mut GraphBuilder, parts: &[Value]) -> Value {
    if let [only] = parts {
        return only.clone();
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    graph.node("Concat", &parts, &[("axis", Attribute::Int(1))])
}

fn dense(graph: &mut GraphBuilder, name: &str, layer: &Dense, input: &str) -> Value {
    let (weight, bias) = (&layer.weight, &layer.bias);
    let weight = graph.floats(
        &format!("{name}_weight"),
        &[weight.rows, weight.columns],
        &weight.values,
    );
    let bias = graph.floats(&format!("{name}_bias"), &[bias.columns], &bias.values);
    graph.node("Gemm", &[input, &weight, &bias], &[])
}

fn layers(
    graph: &mut GraphBuilder,
    name: &str,
    layers: &[Dense],
    input: Value,
    relu_last: bool,
) -> Value {
    let mut value = input;
    for (place, layer) in layers.iter().enumerate() {
        value = dense(graph, &format!("{name}_{place}"), layer, &value);
        if relu_last || place + 1 < layers.len() {
            value = graph.node("Relu", &[&value], &[]);
        }
    }
    value
}
