//! `onnxruntime`: our stand-in for the backend of NVIDIA's container.

use std::path::PathBuf;

use saker_testing::{
    onnx::{FLOAT, Graph, INT64},
    runtime,
};
use triton_testing::{repository::Repository, tensor::Tensor};

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, is_clients_fault, wrong_tensors_are_refused},
    config::Config,
    golden::answers,
    stage::{Stage, data},
};

const MODEL: &str = "query_tower";

pub(super) fn config() -> Config {
    let mut config = Config::new("onnxruntime").input("age_norm", "FP32", &[-1]);
    for name in ["user_id", "age_binned", "gender", "top_category"] {
        config = config.input(name, "INT32", &[-1]);
    }
    config
        .output("output_1", "FP32", &[-1, 64])
        .parameter("intra_op_thread_count", "1")
}

pub(super) fn tower() -> PathBuf {
    data("reference/query_tower.onnx")
}

fn stage(config: &Config) -> Stage {
    Stage::with(MODEL, config, &[("model.onnx", &tower())])
}

/// The features of the golden users, over and over.
pub(super) fn request(rows: usize) -> Vec<Tensor> {
    let column = |name: &str| -> Vec<f64> {
        (0..rows)
            .map(|row| answers()[row % answers().len()].user_features[name])
            .collect()
    };
    let ages: Vec<f32> = column("age_norm").iter().map(|&age| age as f32).collect();
    let mut inputs = vec![Tensor::f32("age_norm", &ages)];
    for name in ["user_id", "age_binned", "gender", "top_category"] {
        let codes: Vec<i32> = column(name).iter().map(|&code| code as i32).collect();
        inputs.push(Tensor::i32(name, &codes));
    }
    inputs
}

#[test]
fn any_number_of_rows() {
    let stage = stage(&config());
    for rows in SIZES {
        let outputs = stage.answer(MODEL, &request(rows));
        assert_eq!(outputs.shape("output_1"), [rows as i64, 64]);
        for (row, vector) in outputs.f32("output_1").chunks(64).enumerate() {
            let expected = &answers()[row % answers().len()].query_embedding_head;
            for (got, expected) in vector.iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-5, "row {row}");
            }
        }
    }
}

#[test]
fn settings_of_the_real_backend_are_taken() {
    let reference = stage(&config()).answer(MODEL, &request(3));
    for (key, value) in [
        ("intra_op_thread_count", "2"),
        ("inter_op_thread_count", "2"),
        ("execution_mode", "1"),
    ] {
        let stage = stage(&config().parameter(key, value));
        let outputs = stage.answer(MODEL, &request(3));
        for (left, right) in outputs
            .f32("output_1")
            .iter()
            .zip(reference.f32("output_1"))
        {
            assert!((left - right).abs() < 1e-6);
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    let stage = stage(&config());
    let mut inputs = request(3);
    let good = stage.answer(MODEL, &inputs).f32("output_1");
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        inputs[0].data[4..8].copy_from_slice(&value.to_le_bytes());
        let got = stage.answer(MODEL, &inputs).f32("output_1");
        for row in [0, 2] {
            for place in 64 * row..64 * (row + 1) {
                assert!((got[place] - good[place]).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn wrong_requests() {
    let stage = stage(&config());
    wrong_tensors_are_refused(&stage, MODEL, &request(2), &[]);
    // Codes that no embedding has: the graph refuses or clamps, and the server goes on.
    for code in [i32::MIN, i32::MAX] {
        let mut inputs = request(2);
        inputs[1] = Tensor::i32("user_id", &[code, 3]);
        if let Err(error) = stage.infer(MODEL, &inputs) {
            assert!(error.message.contains(MODEL), "{error}");
        }
        stage.answer(MODEL, &request(2));
    }
    let mut inputs = request(2);
    inputs[1] = Tensor::i32("user_id", &[3]);
    let error = stage.infer(MODEL, &inputs).unwrap_err();
    is_clients_fault(&error);
    assert!(error.message.contains("user_id"), "{error}");
    stage.answer(MODEL, &request(2));
}

#[test]
fn wrong_configurations() {
    let tower = tower();
    let files: &[(&str, &std::path::Path)] = &[("model.onnx", &tower)];
    bad_parameters_are_refused(
        MODEL,
        &config(),
        files,
        "intra_op_thread_count",
        &[
            ("intra_op_thread_count", "several"),
            ("execution_mode", "fast"),
        ],
    );
    let stage = Stage::new();
    let reason = stage.refusal("no_graph", &config(), &[]);
    assert!(reason.contains("model.onnx"), "{reason}");
    let reason = stage.refusal(
        "broken",
        &config(),
        &[("model.onnx", &data("reference/answers.json"))],
    );
    assert!(reason.contains("model.onnx"), "{reason}");
    let other = config().input("shoe_size", "FP32", &[-1]);
    let reason = stage.refusal("other_input", &other, files);
    assert!(reason.contains("shoe_size"), "{reason}");
    let other = config().output("output_2", "FP32", &[-1]);
    let reason = stage.refusal("other_output", &other, files);
    assert!(reason.contains("output_2"), "{reason}");
}

/// `y` is `x` twice.
fn double(rows: &str) -> Graph {
    Graph::new()
        .input("x", FLOAT, &[rows, "2"])
        .output("y", FLOAT, &[rows, "2"])
        .node("Add", &["x", "x"], &["y"], &[])
}

#[test]
fn a_model_without_a_config_is_completed() {
    let repository = Repository::new().unwrap();
    for (model, rows) in [("open", "N"), ("fixed", "3")] {
        let place = format!("{model}/1/model.onnx");
        repository.write(&place, &double(rows).model()).unwrap();
    }
    let server = runtime::triton()
        .expect("an installed Triton and backends")
        .repository(repository.path());
    let server = server.auto_complete().start().unwrap();
    for (model, max_batch_size) in [("open", 4), ("fixed", 0)] {
        let loaded = server.load(model);
        loaded.unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
        let config = server.config(model).unwrap();
        assert_eq!(config["max_batch_size"], max_batch_size, "{config}");
        let x = Tensor::f32("x", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).shaped(&[3, 2]);
        let outputs = server.infer(model, &[x], &[]).unwrap();
        assert_eq!(outputs.f32("y"), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!(outputs.shape("y"), [3, 2]);
    }
    let dims = |model: &str| server.config(model).unwrap()["input"][0]["dims"].clone();
    assert_eq!(dims("open"), serde_json::json!([2]));
    assert_eq!(dims("fixed"), serde_json::json!([3, 2]));
    // What a config says stays, and what contradicts the graph is refused as in any other config.
    let config = "backend: \"onnxruntime\"\nmax_batch_size: 9\n";
    repository
        .write("open/config.pbtxt", config.as_bytes())
        .unwrap();
    server.load("open").unwrap();
    assert_eq!(server.config("open").unwrap()["max_batch_size"], 9);
    repository
        .write("fixed/config.pbtxt", config.as_bytes())
        .unwrap();
    let error = server.load("fixed").unwrap_err();
    assert!(error.message.contains("max_batch_size is 9"), "{error}");
}

#[test]
fn a_fixed_first_dimension_takes_no_batches() {
    let stage = Stage::new();
    let config = "backend: \"onnxruntime\"\nmax_batch_size: 8\n\
                  input { name: \"x\" data_type: TYPE_FP32 dims: [ 2 ] }\n\
                  output { name: \"y\" data_type: TYPE_FP32 dims: [ 2 ] }\n";
    let write = |graph: &Graph| {
        stage.repository.model("double", config).unwrap();
        let model = graph.model();
        stage
            .repository
            .write("double/1/model.onnx", &model)
            .unwrap();
    };
    write(&double("1"));
    let error = stage.server.load("double").unwrap_err();
    assert!(
        error.message.contains("'x'") && error.message.contains("max_batch_size is 8"),
        "{error}"
    );
    write(&double("N"));
    stage.server.load("double").unwrap();
}

#[test]
fn an_empty_history_has_the_graphs_answer_and_a_wrong_item_is_not_a_bad_request() {
    let graph = Graph::new()
        .input("history", INT64, &["M"])
        .output("vector", FLOAT, &["1", "2"])
        .floats("items", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .integers("rows", &[1], &[0])
        .node("Gather", &["items", "history"], &["bought"], &[])
        .node(
            "ReduceSum",
            &["bought", "rows"],
            &["vector"],
            &[("keepdims", 1)],
        );
    let stage = Stage::new();
    let config = Config::new("onnxruntime")
        .input("history", "INT64", &[-1])
        .output("vector", "FP32", &[1, 2]);
    stage.place("history", &config, &[]);
    let model = graph.model();
    stage
        .repository
        .write("history/1/model.onnx", &model)
        .unwrap();
    stage.server.load("history").unwrap();
    let answer = |items: &[i64]| stage.answer("history", &[Tensor::i64("history", items)]);
    assert_eq!(answer(&[]).f32("vector"), [0.0, 0.0]);
    assert_eq!(answer(&[0, 2]).f32("vector"), [6.0, 8.0]);
    let error = stage
        .infer("history", &[Tensor::i64("history", &[3])])
        .unwrap_err();
    assert_eq!(error.status, 500, "{error}");
    assert_eq!(answer(&[1]).f32("vector"), [3.0, 4.0]);
}
