//! Several requests that Triton's dynamic batcher hands over together are answered as one by one.

use std::path::Path;
use std::sync::Barrier;
use std::thread;

use saker_pipeline::Group;
use saker_store::feast::{self, EntityKeyVersion};
use saker_testing::valkey::Valkey;
use serde_json::Value;
use triton_testing::tensor::Tensor;

use super::{
    embedding_lookup, faiss_retrieval, feature_lookup, feature_transform, id_decode, onnxruntime,
};
use crate::support::{
    config::Config, stage::Stage, store::View, until::until, workflow::golden_workflow,
};

/// As many as Triton is asked to put into one batch.
const REQUESTS: usize = 8;

/// Asks `alone` and `batched`, two configurations of one model, for the same answers: the first one by one, the second
/// all at once.
fn answers_agree(
    alone: &Config,
    batched: &Config,
    files: &[(&str, &Path)],
    request: impl Fn(usize) -> Vec<Tensor> + Sync,
) {
    let stage = Stage::new();
    let batched = batched.clone().batched(REQUESTS);
    for (name, config) in [("alone", alone), ("batched", &batched)] {
        stage.place(name, config, files);
        stage
            .server
            .load(name)
            .unwrap_or_else(|error| panic!("{error}\n{}", stage.server.log()));
    }
    let expected: Vec<_> = (0..REQUESTS)
        .map(|index| stage.answer("alone", &request(index)))
        .collect();
    let together = Barrier::new(REQUESTS);
    let got: Vec<_> = thread::scope(|scope| {
        let ask = |index| {
            let mut inputs = request(index);
            for input in &mut inputs {
                // A column has a dimension of 1 beside the batch's.
                if input.shape.len() == 1 {
                    input.shape.push(1);
                }
            }
            together.wait();
            stage.answer("batched", &inputs)
        };
        let threads: Vec<_> = (0..REQUESTS)
            .map(|index| scope.spawn(move || ask(index)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("an answer"))
            .collect()
    });
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        for tensor in &expected.0 {
            let of_batch = got.get(&tensor.name).expect("every output");
            assert_eq!(
                of_batch.data, tensor.data,
                "request {index}, output {}",
                tensor.name
            );
        }
    }
    // A backend reports its executions after the answers are sent.
    let statistics = until(
        || stage.server.statistics("batched").expect("statistics"),
        |statistics| in_batches(statistics) == REQUESTS as u64,
    );
    let count = |name: &str| statistics[name].as_u64().expect("a number");
    assert_eq!(count("inference_count"), REQUESTS as u64);
    assert!(
        count("execution_count") < REQUESTS as u64,
        "Triton made no batch: {statistics}"
    );
}

/// How many requests of one row the executions reported so far had.
fn in_batches(statistics: &Value) -> u64 {
    let batches = statistics["batch_stats"].as_array().into_iter().flatten();
    let number = |value: &Value| value.as_u64().expect("a number");
    batches
        .map(|batch| number(&batch["batch_size"]) * number(&batch["compute_infer"]["count"]))
        .sum()
}

#[test]
fn embedding_lookup() {
    let [image, text] = embedding_lookup::tables();
    let files: &[(&str, &Path)] = &[
        ("item_image_embeddings.npy", &image.1),
        ("item_description_embeddings.npy", &text.1),
    ];
    let config = embedding_lookup::config();
    answers_agree(&config, &config, files, |index| {
        vec![Tensor::i32("item_id", &[index as i32 * 90])]
    });
}

#[test]
fn faiss_retrieval() {
    let index = faiss_retrieval::index();
    let files: &[(&str, &Path)] = &[("index.faiss", &index)];
    let batched = Config::new("faiss_retrieval")
        .input("output_1", "FP32", &[-1, 64])
        .output("candidate_ids", "INT32", &[-1, 300])
        .parameter("RETRIEVAL_TOPK", "300");
    answers_agree(&faiss_retrieval::config(300), &batched, files, |index| {
        let mut query = faiss_retrieval::queries(REQUESTS);
        query.data = query.data[index * 256..(index + 1) * 256].to_vec();
        query.shape = vec![1, 64];
        vec![query]
    });
}

#[test]
fn feature_lookup() {
    let valkey = Valkey::start().expect("a Valkey");
    let ids: Vec<i32> = (0..REQUESTS as i32 - 1).collect();
    let column =
        |of: &dyn Fn(i32) -> i64| ids.iter().map(|&id| feast::Value::Int64(of(id))).collect();
    View {
        name: "user_features",
        join_key: "user_id",
        version: EntityKeyVersion::V3,
        ids: ids.clone(),
        features: vec![
            ("age", column(&|id| 20 + i64::from(id))),
            ("gender", column(&|id| i64::from(id) % 2)),
            ("top_category", column(&|id| i64::from(id) * 3)),
        ],
    }
    .write(&valkey);
    let config = feature_lookup::users(&valkey.url(0));
    // The last user is in no store.
    answers_agree(&config, &config, &[], |index| {
        vec![Tensor::i32("user_id", &[index as i32])]
    });
}

#[test]
fn feature_transform() {
    let folder = tempfile::tempdir().expect("a folder");
    golden_workflow(Group::User, folder.path());
    let config = feature_transform::user();
    let (workflow, categories) = (
        folder.path().join("workflow.json"),
        folder.path().join("categories"),
    );
    let files: &[(&str, &Path)] = &[("workflow.json", &workflow), ("categories", &categories)];
    answers_agree(&config, &config, files, |index| {
        let mut columns = feature_transform::users(REQUESTS);
        for column in &mut columns {
            column.data = column.data[index * 4..(index + 1) * 4].to_vec();
            column.shape = vec![1];
        }
        columns
    });
}

#[test]
fn id_decode() {
    let vocabulary = id_decode::vocabulary();
    let config = id_decode::config();
    answers_agree(
        &config,
        &config,
        &[(id_decode::PLACE, &vocabulary)],
        |index| id_decode::request(&[index as i32]),
    );
}

#[test]
fn onnxruntime() {
    let tower = onnxruntime::tower();
    let config = onnxruntime::config();
    answers_agree(&config, &config, &[("model.onnx", &tower)], |index| {
        let mut columns = onnxruntime::request(REQUESTS);
        for column in &mut columns {
            column.data = column.data[index * 4..(index + 1) * 4].to_vec();
            column.shape = vec![1];
        }
        columns
    });
}
