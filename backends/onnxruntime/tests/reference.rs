//! Runs the reference's two models against the fake C API, with the real ONNX Runtime.

use std::path::{Path, PathBuf};

use saker_index::Index;
use serde_json::Value;
use triton_onnxruntime::OnnxRuntime;
use triton_testing::fake::{Config, Input, LoadedModel, Request, Server};

fn server() -> Server {
    Server::start("onnxruntime", triton_backend::entry_points::<OnnxRuntime>()).unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/reference")
        .join(name)
}

fn folder(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1")).unwrap();
    std::fs::copy(golden(model), folder.path().join("1/model.onnx")).unwrap();
    folder
}

fn answers() -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(golden("answers.json")).unwrap()).unwrap()
}

const USER_INTEGERS: [&str; 4] = ["user_id", "age_binned", "gender", "top_category"];

fn query_tower() -> Config {
    let config = Config::new().input("age_norm", "TYPE_FP32", &[-1]).output(
        "output_1",
        "TYPE_FP32",
        &[-1, 64],
    );
    USER_INTEGERS.iter().fold(config, |config, name| {
        config.input(name, "TYPE_INT32", &[-1])
    })
}

/// The user features of several answers as one request.
fn users(answers: &[Value]) -> Request {
    let column = |name: &str| -> Vec<f64> {
        let value = |answer: &Value| answer["user_features"][name].as_f64().unwrap();
        answers.iter().map(value).collect()
    };
    let shape = [answers.len() as i64];
    let ages: Vec<f32> = column("age_norm").iter().map(|age| *age as f32).collect();
    let request = Request::new()
        .input(Input::new("age_norm", &shape, &ages))
        .output("output_1");
    USER_INTEGERS.iter().fold(request, |request, name| {
        let codes: Vec<i32> = column(name).iter().map(|code| *code as i32).collect();
        request.input(Input::new(name, &shape, &codes))
    })
}

fn queries(model: &LoadedModel<'_>, answers: &[Value]) -> (Vec<f32>, Vec<i64>) {
    model
        .execute([users(answers)])
        .success(0)
        .output::<f32>("output_1")
}

#[test]
fn query_tower_and_index_give_the_references_candidates() {
    let (folder, server) = (folder("query_tower.onnx"), server());
    let model = server
        .load_from("query_tower", 1, folder.path(), query_tower())
        .unwrap();
    let index = Index::read(&golden("index.faiss")).unwrap();
    let answers = answers();
    let (together, shape) = queries(&model, &answers);
    assert_eq!(shape, [answers.len() as i64, 64]);
    for (row, answer) in answers.iter().enumerate() {
        let (query, _) = queries(&model, std::slice::from_ref(answer));
        for (at, expected) in answer["query_embedding_head"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
        {
            assert!((f64::from(query[at]) - expected.as_f64().unwrap()).abs() < 1e-5);
        }
        for (one, all) in query.iter().zip(&together[row * 64..]) {
            assert!((one - all).abs() < 1e-5);
        }
        let expected: Vec<i64> = answer["candidate_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_i64().unwrap())
            .collect();
        let (mut scores, mut ids) = (vec![0.0; 300], vec![0; 300]);
        index.search(&query, 300, &mut scores, &mut ids).unwrap();
        ids.retain(|id| *id != saker_index::NO_NEIGHBOUR);
        let expected_found: Vec<i64> = expected.iter().copied().filter(|id| *id != -1).collect();
        assert_eq!(ids.len(), expected_found.len());
        // neighbours whose scores differ in the last bit may be swapped
        for (at, (found, expected)) in ids.iter().zip(&expected_found).enumerate() {
            if found != expected {
                let other = ids.iter().position(|id| id == expected).unwrap();
                assert!(
                    (scores[at] - scores[other]).abs() < 1e-5,
                    "row {row}, place {at}"
                );
            }
        }
    }
}

#[test]
fn no_rows_one_row_and_many() {
    let (folder, server) = (folder("query_tower.onnx"), server());
    let model = server
        .load_from("query_tower", 1, folder.path(), query_tower())
        .unwrap();
    assert_eq!(queries(&model, &[]), (vec![], vec![0, 64]));
    let answer = &answers()[..1];
    let (one, _) = queries(&model, answer);
    let many: Vec<Value> = answer.iter().cycle().take(10_000).cloned().collect();
    let (rows, shape) = queries(&model, &many);
    assert_eq!(shape, [10_000, 64]);
    for (value, again) in one.iter().zip(&rows[9_999 * 64..]) {
        assert!((value - again).abs() < 1e-5);
    }
}

#[test]
fn a_code_outside_the_graphs_tables_fails_that_request_alone() {
    let (folder, server) = (folder("query_tower.onnx"), server());
    let model = server
        .load_from("query_tower", 1, folder.path(), query_tower())
        .unwrap();
    let mut outside = answers()[0].clone();
    outside["user_features"]["user_id"] = 2_000_000_000.into();
    let report = model.execute([users(&[outside]), users(&answers()[..1])]);
    assert!(report.failure(0).message.contains("ONNX Runtime"));
    report.success(1);
}

#[test]
fn settings_of_the_real_backend_load() {
    let (folder, server) = (folder("query_tower.onnx"), server());
    let config = query_tower()
        .parameter("intra_op_thread_count", "2")
        .parameter("execution_mode", "1")
        .parameter("enable_mem_arena", "0")
        .parameter("session.set_denormal_as_zero", "1")
        .parameter("memory.enable_memory_arena_shrinkage", "cpu:0");
    let model = server.load_from("query_tower", 1, folder.path(), config);
    // ONNX Runtime refuses to shrink a disabled arena at the run
    drop(model);
    let config = query_tower()
        .parameter("inter_op_thread_count", "1")
        .parameter("memory.enable_memory_arena_shrinkage", "cpu:0");
    let model = server
        .load_from("query_tower", 1, folder.path(), config)
        .unwrap();
    assert_eq!(queries(&model, &answers()[..2]).1, [2, 64]);
}

#[test]
fn a_config_that_does_not_match_the_graph_does_not_load() {
    let (folder, server) = (folder("query_tower.onnx"), server());
    for (config, says) in [
        (
            query_tower().input("height", "TYPE_FP32", &[-1]),
            "'height' of config.pbtxt is not in the model",
        ),
        (
            query_tower().output("output_2", "TYPE_FP32", &[-1]),
            "'output_2' of config.pbtxt is not in the model",
        ),
        (
            Config::new().output("output_1", "TYPE_FP32", &[-1, 64]),
            "config.pbtxt does not declare",
        ),
        (
            query_tower().max_batch_size(8),
            "the batch dimension included",
        ),
        (
            query_tower().parameter("intra_op_threads", "1"),
            "unknown parameter 'intra_op_threads'",
        ),
        (
            Config::new().input("age_norm", "TYPE_FP64", &[-1]).output(
                "output_1",
                "TYPE_FP32",
                &[-1, 64],
            ),
            "'age_norm' is FP64 in config.pbtxt",
        ),
        (
            Config::new().input("age_norm", "TYPE_FP32", &[-1]).output(
                "output_1",
                "TYPE_FP32",
                &[-1, 32],
            ),
            "has the shape [-1, 32]",
        ),
    ] {
        let failure = server
            .load_from("query_tower", 1, folder.path(), config)
            .unwrap_err();
        assert!(failure.message.contains(says), "{}", failure.message);
    }
    let nowhere = server.load("query_tower", query_tower()).unwrap_err();
    assert!(
        nowhere.message.contains("model.onnx is missing"),
        "{}",
        nowhere.message
    );
    std::fs::write(folder.path().join("1/model.onnx"), "no model").unwrap();
    let broken = server
        .load_from("query_tower", 1, folder.path(), query_tower())
        .unwrap_err();
    assert!(broken.message.contains("cannot load"), "{}", broken.message);
}

/// A model as `saker assemble` writes it: `metadata_props` (field 14) of the protobuf message, appended.
fn stamp(model: &Path, release: &str) {
    let field = |tag: u8, bytes: &[u8]| {
        let mut field = vec![tag << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend(bytes);
        field
    };
    let entry = [field(1, b"saker.release"), field(2, release.as_bytes())].concat();
    let mut content = std::fs::read(model).unwrap();
    content.extend(field(14, &entry));
    std::fs::write(model, content).unwrap();
}

#[test]
fn a_model_of_another_release_is_refused() {
    let (folder, server) = (folder("query_tower.onnx"), server());
    let version = folder.path().join("1");
    std::fs::write(
        version.join("release.json"),
        r#"{"format": 1, "release": "monday"}"#,
    )
    .unwrap();
    stamp(&version.join("model.onnx"), "monday");
    drop(
        server
            .load_from("query_tower", 1, folder.path(), query_tower())
            .unwrap(),
    );
    stamp(&version.join("model.onnx"), "tuesday");
    let error = server
        .load_from("query_tower", 1, folder.path(), query_tower())
        .unwrap_err()
        .message;
    assert!(
        error.contains("release tuesday") && error.contains("release monday"),
        "{error}"
    );
}
