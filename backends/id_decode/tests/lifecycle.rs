//! Tests the backend against the fake C API.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use saker_workflow::write_batch;
use triton_id_decode::IdDecode;
use triton_testing::fake::{self, Config, Input, Request, Server};

fn server() -> Server {
    Server::start("id_decode", triton_backend::entry_points::<IdDecode>()).unwrap()
}

fn save_vocabulary(folder: &Path, column: &str, ids: &[i64]) {
    let array: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let batch = RecordBatch::try_from_iter([(column, array)]).unwrap();
    let file = format!("1/categories/unique.{column}.parquet");
    write_batch(&folder.join(file), &batch).unwrap();
}

fn config() -> Config {
    Config::new()
        .input("ordered_ids", "TYPE_INT32", &[-1])
        .input("ordered_scores", "TYPE_FP32", &[-1])
        .output("ordered_ids", "TYPE_INT32", &[-1])
        .output("ordered_scores", "TYPE_FP32", &[-1])
}

fn request(codes: &[i32], scores: &[f32]) -> Request {
    Request::new()
        .input(Input::new("ordered_ids", &[codes.len() as i64], codes))
        .input(Input::new("ordered_scores", &[scores.len() as i64], scores))
        .output("ordered_ids")
        .output("ordered_scores")
}

#[test]
fn codes_become_ids_and_scores_pass() {
    let folder = tempfile::tempdir().unwrap();
    save_vocabulary(folder.path(), "item_id", &[70, 50, 60]);
    let server = server();
    let model = server
        .load_from("item_id_decoder", 1, folder.path(), config())
        .unwrap();
    let report = model.execute([
        request(
            &[5, 3, 0, 1, 2, 6, i32::MIN, i32::MAX],
            &[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
        ),
        request(&[], &[]),
        request(&[3, 4], &[1.0]),
    ]);
    let first = report.success(0);
    assert_eq!(
        first.output::<i32>("ordered_ids").0,
        [60, 70, -1, -1, -1, -1, -1, -1]
    );
    assert_eq!(
        first.output::<f32>("ordered_scores").0,
        [0.9, 0.8, 0.0, 0.6, 0.5, 0.4, 0.3, 0.2]
    );
    assert_eq!(
        report.success(1).output::<i32>("ordered_ids"),
        (vec![], vec![0])
    );
    let message = &report.failure(2).message;
    assert!(
        message.contains("'ordered_scores' has shape [1]"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_decoded_does_not_load() {
    let server = server();
    let wide = tempfile::tempdir().unwrap();
    save_vocabulary(wide.path(), "item_id", &[1 << 40]);
    let two = tempfile::tempdir().unwrap();
    save_vocabulary(two.path(), "item_id", &[1]);
    save_vocabulary(two.path(), "user_id", &[1]);
    let none = tempfile::tempdir().unwrap();
    let two_folder = two.path();
    for (folder, config, says) in [
        (wide.path(), config(), "raw id 1099511627776 does not fit"),
        (
            two_folder,
            config(),
            "is absent; accepted: one of the vocabularies",
        ),
        (
            two_folder,
            config().parameter("VOCABULARY", "../x"),
            "'../x'; accepted",
        ),
        (
            two_folder,
            config().parameter("START_INDEX", "-1"),
            "START_INDEX",
        ),
        (none.path(), config(), "categories"),
    ] {
        let message = server
            .load_from("item_id_decoder", 1, folder, config)
            .unwrap_err()
            .message;
        assert!(message.contains(says), "{message}");
    }
    let named = config().parameter("VOCABULARY", "unique.user_id.parquet");
    server
        .load_from("item_id_decoder", 1, two_folder, named)
        .unwrap();
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    save_vocabulary(folder.path(), "item_id", &[7, 9]);
    fake::parameters_are_named(|key, value| {
        let config = config().parameter(key, value);
        server
            .load_from("item_id_decoder", 1, folder.path(), config)
            .map(drop)
    });
}
