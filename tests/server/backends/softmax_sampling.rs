//! `softmax_sampling`: the best candidates, or a weighted draw of them.

use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, is_clients_fault, wrong_tensors_are_refused},
    config::Config,
    stage::Stage,
};

const MODEL: &str = "softmax_sampling";
const SCORE: &str = "click/binary_classification_task";

fn config(topk: &str) -> Config {
    Config::new("softmax_sampling")
        .input("item_id", "INT32", &[-1])
        .input(SCORE, "FP32", &[-1, 1])
        .optional("user_id", "INT32", &[-1])
        .output("ordered_ids", "INT32", &[-1])
        .output("ordered_scores", "FP32", &[-1])
        .parameter("RANKING_TOPK", topk)
        .parameter("DIVERSITY_MODE", "false")
}

fn request(ids: &[i32], scores: &[f32]) -> Vec<Tensor> {
    vec![
        Tensor::i32("item_id", ids),
        Tensor::f32(SCORE, scores).shaped(&[scores.len() as i64, 1]),
    ]
}

#[test]
fn the_best_come_first() {
    let stage = Stage::with(MODEL, &config("10"), &[]);
    for rows in SIZES {
        let ids: Vec<i32> = (3..3 + rows as i32).collect();
        let scores: Vec<f32> = (0..rows).map(|row| (row as f32 * 7.7).sin()).collect();
        let outputs = stage.answer(MODEL, &request(&ids, &scores));
        let mut expected: Vec<(i32, f32)> = ids.into_iter().zip(scores).collect();
        expected.sort_by(|left, right| right.1.total_cmp(&left.1));
        expected.truncate(10);
        let (ids, scores): (Vec<i32>, Vec<f32>) = expected.into_iter().unzip();
        assert_eq!(outputs.i32("ordered_ids"), ids);
        assert_eq!(outputs.f32("ordered_scores"), scores);
    }
}

#[test]
fn ties_nan_and_infinity() {
    let stage = Stage::with(MODEL, &config("10"), &[]);
    let scores = [
        0.5,
        f32::NAN,
        f32::NEG_INFINITY,
        0.5,
        f32::INFINITY,
        -0.0,
        0.0,
    ];
    let outputs = stage.answer(MODEL, &request(&[10, 11, 12, 13, 14, 15, 16], &scores));
    assert_eq!(
        outputs.i32("ordered_ids"),
        [14, 10, 13, 15, 16, 12, 11],
        "ties in candidate order, NaN last"
    );
    assert!(outputs.f32("ordered_scores")[6].is_nan());
}

#[test]
fn padding_is_never_returned() {
    let stage = Stage::with(MODEL, &config("3"), &[]);
    let outputs = stage.answer(MODEL, &request(&[0, 5, 0, 6], &[0.9, 0.2, 0.8, 0.3]));
    assert_eq!(outputs.i32("ordered_ids"), [6, 5]);
    // Two users: rows of equal length, short ones padded with code 0 and score 0.
    let mut inputs = request(
        &[0, 5, 0, 6, 7, 8, 9, i32::MAX],
        &[0.9, 0.2, 0.8, 0.3, 0.1, 0.2, 0.3, 0.4],
    );
    inputs.push(Tensor::i32("user_id", &[1, 2]));
    let outputs = stage.answer(MODEL, &inputs);
    assert_eq!(outputs.i32("ordered_ids"), [6, 5, 0, i32::MAX, 9, 8]);
    assert_eq!(
        outputs.f32("ordered_scores"),
        [0.3, 0.2, 0.0, 0.4, 0.3, 0.2]
    );
}

#[test]
fn diversity_draws_with_the_scores_weights() {
    let config = config("2").parameter("DIVERSITY_MODE", "true");
    let stage = Stage::with(MODEL, &config, &[]);
    let mut firsts = [0; 3];
    for _ in 0..600 {
        let outputs = stage.answer(MODEL, &request(&[3, 4, 5], &[0.50, 0.45, f32::NAN]));
        let ids = outputs.i32("ordered_ids");
        assert_eq!(ids.len(), 2);
        assert_ne!(ids[0], ids[1]);
        firsts[ids[0] as usize - 3] += 1;
    }
    // exp(20 · 0.05) = e: the first comes first with probability e / (1 + e) = 0.73.
    assert!((390..=490).contains(&firsts[0]), "{firsts:?}");
    assert_eq!(
        firsts[2], 0,
        "NaN is never drawn ahead of a number: {firsts:?}"
    );
    // Scores that overflow an exponential.
    let outputs = stage.answer(MODEL, &request(&[3, 4, 5], &[1e30, f32::INFINITY, -1e30]));
    assert_eq!(outputs.i32("ordered_ids"), [4, 3]);
}

#[test]
fn wrong_requests() {
    let stage = Stage::with(MODEL, &config("10"), &[]);
    wrong_tensors_are_refused(&stage, MODEL, &request(&[3, 4], &[0.1, 0.2]), &[]);
    let mut three = request(&[3, 4, 5], &[0.1, 0.2, 0.3]);
    three.push(Tensor::i32("user_id", &[1, 2]));
    for inputs in [request(&[3, 4, 5], &[0.1, 0.2]), three] {
        let error = stage.infer(MODEL, &inputs).expect_err("lengths disagree");
        is_clients_fault(&error);
        assert!(
            error.message.contains(MODEL) && error.message.contains("item_id"),
            "{error}"
        );
    }
}

#[test]
fn wrong_configurations() {
    bad_parameters_are_refused(
        MODEL,
        &config("10"),
        &[],
        "RANKING_TOPK",
        &[
            ("RANKING_TOPK", "ten"),
            ("RANKING_TOPK", "0"),
            ("DIVERSITY_MODE", "maybe"),
            ("SEED", "x"),
        ],
    );
}
