//! NVIDIA's load generator on the ensemble and on each model alone: it refuses a backend that reports
//! no statistics, or that fails a single request.

use std::process::Command;

use saker_testing::runtime;
use serde_json::{Map, Value, json};
use triton_testing::tensor::Tensor;

use crate::support::golden::{answers, golden};

/// perf_analyzer's form of a tensor.
fn content(tensor: &Tensor) -> Value {
    let content: Vec<Value> = match tensor.data_type.as_str() {
        "INT32" => tensor.to_i32().into_iter().map(Value::from).collect(),
        "FP32" => tensor.to_f32().into_iter().map(Value::from).collect(),
        other => panic!("tensor '{}' has type {other}", tensor.name),
    };
    json!({ "content": content, "shape": tensor.shape })
}

fn measure(model: &str, requests: &[Vec<Tensor>]) {
    let data: Vec<Map<String, Value>> = requests
        .iter()
        .map(|inputs| {
            let tensor = |tensor: &Tensor| (tensor.name.clone(), content(tensor));
            inputs.iter().map(tensor).collect()
        })
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("input.json");
    std::fs::write(&input, json!({ "data": data }).to_string()).expect("the input file");
    let address = format!("127.0.0.1:{}", golden().server.grpc_port);
    let output = Command::new(runtime::perf_analyzer().expect("perf_analyzer"))
        .args(["-m", model, "-i", "grpc", "-u", &address])
        .arg("--input-data")
        .arg(&input)
        .args([
            "--measurement-mode=count_windows",
            "--measurement-request-count=100",
            "--percentile=95",
            // A smoke test: any three windows are stable enough.
            "-s",
            "1000",
        ])
        .output()
        .expect("perf_analyzer runs");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{model}: {text}");
    assert!(text.contains("Throughput"), "{model}: {text}");
    assert!(!text.contains("Failed Request Count"), "{model}: {text}");
    for line in text.lines().filter(|line| line.contains("throughput:")) {
        println!("{model}: {}", line.trim());
    }
}

#[test]
fn the_ensemble() {
    let requests: Vec<Vec<Tensor>> = answers()
        .iter()
        .map(|answer| {
            vec![
                Tensor::i32("user_id", &[answer.user_id]),
                Tensor::i32("device_type", &[answer.device_type]),
                Tensor::i32("timestamp", &[answer.timestamp]),
            ]
        })
        .collect();
    measure("ensemble_model", &requests);
}

#[test]
fn each_model_alone() {
    let golden = golden();
    let answer = &answers()[0];
    let tensors = golden.trace(&[
        Tensor::i32("user_id", &[answer.user_id]),
        Tensor::i32("device_type", &[answer.device_type]),
        Tensor::i32("timestamp", &[answer.timestamp]),
    ]);
    for model in golden.models().filter(|model| *model != "ensemble_model") {
        measure(model, &[golden.step_inputs(model, &tensors)]);
        let statistics = golden.server.statistics(model).expect("statistics");
        let count = &statistics["inference_stats"]["compute_infer"]["count"];
        assert!(count.as_u64() >= Some(100), "{model}: {statistics}");
    }
}
