//! Tests the backend against the fake C API.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array, StringArray};
use arrow::record_batch::RecordBatch;
use saker_workflow::{Chain, Definition, Operator, Workflow};
use triton_feature_transform::FeatureTransform;
use triton_testing::fake::{self, Config, Input, Request, Server};

fn server() -> Server {
    Server::start(
        "feature_transform",
        triton_backend::entry_points::<FeatureTransform>(),
    )
    .unwrap()
}

fn operators(json: &str) -> Vec<Operator> {
    serde_json::from_str(json).unwrap()
}

/// A workflow fitted on three items, saved as version 1 of a model in `folder`.
fn save_workflow(folder: &Path) {
    let definition = Definition::new(vec![
        Chain::new(
            ["item_id"],
            operators(r#"[{ "op": "Categorify", "padding": -1 }]"#),
        ),
        Chain::new(["brand"], operators(r#"[{ "op": "Categorify" }]"#)),
        Chain::feature(
            "price_log_norm",
            "price",
            operators(r#"[{ "op": "LogOp" }, { "op": "Normalize" }]"#),
        ),
    ]);
    let columns: [(&str, ArrayRef); 3] = [
        ("item_id", Arc::new(Int32Array::from(vec![70, 50, 70]))),
        ("brand", Arc::new(StringArray::from(vec!["a", "b", "b"]))),
        ("price", Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    Workflow::fit(definition, &[batch])
        .unwrap()
        .save(&folder.join("1"))
        .unwrap();
}

fn config() -> Config {
    Config::new()
        .input("item_id", "TYPE_INT32", &[-1])
        .input("brand", "TYPE_STRING", &[-1])
        .input("price", "TYPE_FP32", &[-1])
        .output("item_id", "TYPE_INT32", &[-1])
        .output("brand", "TYPE_INT32", &[-1])
        .output("price_log_norm", "TYPE_FP32", &[-1])
}

fn request(items: &[i32], brands: &[&str], prices: &[f32]) -> Request {
    let shape = |len: usize| [len as i64];
    Request::new()
        .input(Input::new("item_id", &shape(items.len()), items))
        .input(Input::strings("brand", &shape(brands.len()), brands))
        .input(Input::new("price", &shape(prices.len()), prices))
        .output("item_id")
        .output("brand")
        .output("price_log_norm")
}

#[test]
fn several_requests_of_any_size_are_transformed() {
    let folder = tempfile::tempdir().unwrap();
    save_workflow(folder.path());
    let server = server();
    let model = server
        .load_from("nvt_item_transform", 1, folder.path(), config())
        .unwrap();
    let many = 10_000;
    let report = model.execute([
        request(
            &[70, 50, -1, 7, i32::MIN, i32::MAX],
            &["b", "a", "z", "", "b", "b"],
            &[2.0, f32::NAN, f32::INFINITY, -1.0, -2.0, 2.0],
        ),
        request(&[], &[], &[]),
        request(&vec![50; many], &vec!["a"; many], &vec![1.0; many]),
        request(&[70, 70], &["a"], &[1.0, 1.0]),
    ]);
    let first = report.success(0);
    assert_eq!(first.output::<i32>("item_id").0, [3, 4, 0, 2, 2, 2]);
    assert_eq!(first.output::<i32>("brand").0, [3, 4, 2, 2, 3, 3]);
    let (prices, _) = first.output::<f32>("price_log_norm");
    assert!(prices[0].is_finite() && prices[1].is_nan());
    assert_eq!(prices[2], f32::INFINITY);
    assert_eq!(prices[3], f32::NEG_INFINITY);
    assert!(prices[4].is_nan());
    assert_eq!(
        report.success(1).output::<i32>("item_id"),
        (vec![], vec![0])
    );
    assert_eq!(
        report.success(2).output::<i32>("item_id"),
        (vec![4; many], vec![many as i64])
    );
    let message = &report.failure(3).message;
    assert!(
        message.contains("'brand'") && message.contains("'item_id'"),
        "{message}"
    );
}

#[test]
fn a_config_that_does_not_suit_the_workflow_does_not_load() {
    let folder = tempfile::tempdir().unwrap();
    save_workflow(folder.path());
    let folder = folder.path();
    let server = server();
    let missing =
        Config::new()
            .input("item_id", "TYPE_INT32", &[-1])
            .output("item_id", "TYPE_INT32", &[-1]);
    for (config, says) in [
        (missing, "column 'brand' is missing"),
        (
            config().input("x", "TYPE_INT32", &[-1]),
            "input 'x' is not an input of the workflow",
        ),
        (
            config().output("x", "TYPE_INT32", &[-1]),
            "output 'x' is not an output of the workflow",
        ),
        (config().parameter("X", "1"), "unknown parameter 'X'"),
    ] {
        let message = server
            .load_from("nvt_item_transform", 1, folder, config)
            .unwrap_err()
            .message;
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    save_workflow(&folder.path().join("1"));
    fake::parameters_are_named(|key, value| {
        let config = config().parameter(key, value);
        server
            .load_from("nvt_item_transform", 1, folder.path(), config)
            .map(drop)
    });
}
