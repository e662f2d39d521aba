//! `id_decode`: encoded ids back to raw ones.

use std::path::PathBuf;

use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, wrong_tensors_are_refused},
    config::Config,
    parquet::i32_or_i64_column,
    stage::{Stage, data},
};

const MODEL: &str = "item_id_decoder";
pub(super) const PLACE: &str = "categories/unique.item_id.parquet";

pub(super) fn config() -> Config {
    Config::new("id_decode")
        .input("ordered_ids", "INT32", &[-1])
        .input("ordered_scores", "FP32", &[-1])
        .output("ordered_ids", "INT32", &[-1])
        .output("ordered_scores", "FP32", &[-1])
}

pub(super) fn vocabulary() -> PathBuf {
    data("reference/categories/item/unique.item_id.parquet")
}

fn stage() -> Stage {
    Stage::with(MODEL, &config(), &[(PLACE, &vocabulary())])
}

pub(super) fn request(ids: &[i32]) -> Vec<Tensor> {
    let scores: Vec<f32> = (0..ids.len()).map(|row| 1.0 / (row as f32)).collect();
    vec![
        Tensor::i32("ordered_ids", ids),
        Tensor::f32("ordered_scores", &scores),
    ]
}

#[test]
fn any_number_of_rows() {
    let stage = stage();
    let vocabulary = i32_or_i64_column(&vocabulary(), "item_id");
    for rows in SIZES {
        let codes: Vec<i32> = (0..rows)
            .map(|row| 3 + (row % vocabulary.len()) as i32)
            .collect();
        let inputs = request(&codes);
        let outputs = stage.answer(MODEL, &inputs);
        let expected: Vec<i32> = codes
            .iter()
            .map(|&code| vocabulary[code as usize - 3] as i32)
            .collect();
        assert_eq!(outputs.i32("ordered_ids"), expected);
        // Infinite and NaN scores pass as they are.
        assert_eq!(outputs.get("ordered_scores"), Some(&inputs[1]));
    }
}

#[test]
fn what_is_no_item_is_minus_one() {
    let ids = [i32::MIN, -1, 0, 1, 2, 703, i32::MAX];
    let outputs = stage().answer(MODEL, &request(&ids));
    assert_eq!(outputs.i32("ordered_ids"), [-1; 7]);
}

#[test]
fn wrong_requests() {
    wrong_tensors_are_refused(&stage(), MODEL, &request(&[3, 4, 5]), &[]);
}

#[test]
fn wrong_configurations() {
    let vocabulary = vocabulary();
    let files: &[(&str, &std::path::Path)] = &[(PLACE, &vocabulary)];
    bad_parameters_are_refused(
        MODEL,
        &config(),
        files,
        "VOCABULARY",
        &[("START_INDEX", "three")],
    );
    let stage = Stage::new();
    let reason = stage.refusal("no_vocabulary", &config(), &[]);
    assert!(reason.contains("categories"), "{reason}");
    let other = config().parameter("VOCABULARY", "unique.nobody.parquet");
    let reason = stage.refusal("other_vocabulary", &other, files);
    assert!(
        reason.contains("'VOCABULARY' is 'unique.nobody.parquet'")
            && reason.contains("unique.item_id.parquet"),
        "{reason}"
    );
    let broken = data("reference/answers.json");
    let reason = stage.refusal("broken", &config(), &[(PLACE, &broken)]);
    assert!(reason.contains("unique.item_id.parquet"), "{reason}");
}
