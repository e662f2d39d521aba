//! Tests the backend against the fake C API.

use std::collections::BTreeSet;

use triton_softmax_sampling::SoftmaxSampling;
use triton_testing::fake::{self, Config, Input, Request, Server};

const SCORE: &str = "click/binary_classification_task";

fn server() -> Server {
    Server::start(
        "softmax_sampling",
        triton_backend::entry_points::<SoftmaxSampling>(),
    )
    .unwrap()
}

fn config(k: &str) -> Config {
    Config::new()
        .input("item_id", "TYPE_INT32", &[-1])
        .input(SCORE, "TYPE_FP32", &[-1, 1])
        .optional_input("user_id", "TYPE_INT32", &[-1])
        .output("ordered_ids", "TYPE_INT32", &[-1])
        .output("ordered_scores", "TYPE_FP32", &[-1])
        .parameter("RANKING_TOPK", k)
}

fn request(ids: &[i32], scores: &[f32]) -> Request {
    Request::new()
        .input(Input::new("item_id", &[ids.len() as i64], ids))
        .input(Input::new(SCORE, &[scores.len() as i64, 1], scores))
        .output("ordered_ids")
        .output("ordered_scores")
}

fn users(request: Request, count: i64) -> Request {
    request.input(Input::new("user_id", &[count], &vec![7i32; count as usize]))
}

#[test]
fn the_best_come_first_for_each_user() {
    let server = server();
    let model = server.load("softmax_sampling", config("2")).unwrap();
    let long: Vec<i32> = (1..=10_000).collect();
    let rising: Vec<f32> = long.iter().map(|id| *id as f32).collect();
    let report = model.execute([
        request(&[5, 6, 7], &[0.1, 0.9, 0.5]),
        request(&[5, 0, 7], &[0.1, 0.9, 0.5]),
        request(&[], &[]),
        request(&[5], &[0.25]),
        users(request(&[5, 6, 7, 8], &[0.1, 0.2, 0.4, 0.3]), 2),
        users(request(&[5, 0, 7, 8], &[0.1, 0.2, 0.4, 0.3]), 2),
        users(request(&[0, 0, 0, 8], &[0.1, 0.2, 0.4, 0.3]), 2),
        request(&[5, 6, 7], &[f32::NAN, f32::NEG_INFINITY, f32::INFINITY]),
        request(&[i32::MIN, i32::MAX], &[0.5, 0.5]),
        request(&long, &rising),
        users(request(&[], &[]), 3),
    ]);
    let answer = |index: usize| {
        let response = report.success(index);
        let ((ids, shape), (scores, _)) = (
            response.output::<i32>("ordered_ids"),
            response.output::<f32>("ordered_scores"),
        );
        assert_eq!(shape, [ids.len() as i64]);
        (ids, scores)
    };
    assert_eq!(answer(0), (vec![6, 7], vec![0.9, 0.5]));
    assert_eq!(
        answer(1),
        (vec![7, 5], vec![0.5, 0.1]),
        "padding is never returned"
    );
    assert_eq!(answer(2), (vec![], vec![]));
    assert_eq!(answer(3), (vec![5], vec![0.25]));
    assert_eq!(answer(4), (vec![6, 5, 7, 8], vec![0.2, 0.1, 0.4, 0.3]));
    assert_eq!(answer(5), (vec![5, 0, 7, 8], vec![0.1, 0.0, 0.4, 0.3]));
    assert_eq!(answer(6), (vec![0, 8], vec![0.0, 0.3]));
    assert_eq!(answer(7).0, [7, 6], "a NaN stays behind every number");
    assert_eq!(answer(8).0, [i32::MIN, i32::MAX]);
    assert_eq!(answer(9).0, [10_000, 9_999]);
    assert!(answer(10).0.is_empty());
}

#[test]
fn diversity_draws_without_replacement_and_repeats_with_a_seed() {
    let server = server();
    let draw = |seed: &str| {
        let config = config("5")
            .parameter("DIVERSITY_MODE", "true")
            .parameter("SEED", seed);
        let model = server.load("softmax_sampling", config).unwrap();
        let ids: Vec<i32> = (0..20).collect();
        let scores: Vec<f32> = ids.iter().map(|id| *id as f32 / 100.0).collect();
        let report = model.execute((0..50).map(|_| request(&ids, &scores)));
        let draws: Vec<Vec<i32>> = (0..50)
            .map(|index| report.success(index).output::<i32>("ordered_ids").0)
            .collect();
        draws
    };
    let draws = draw("3");
    assert_eq!(draws, draw("3"));
    assert_ne!(draws, draw("4"));
    for ids in &draws {
        let distinct: BTreeSet<i32> = ids.iter().copied().collect();
        assert_eq!(distinct.len(), 5);
        assert!(!distinct.contains(&0), "padding is never drawn");
    }
    let all: BTreeSet<Vec<i32>> = draws.into_iter().collect();
    assert!(all.len() > 10, "draws differ");
}

#[test]
fn what_does_not_fit_fails_that_request_alone() {
    let server = server();
    let model = server.load("softmax_sampling", config("2")).unwrap();
    let report = model.execute([
        request(&[5, 6, 7], &[0.1, 0.9]),
        users(request(&[5, 6, 7], &[0.1, 0.9, 0.4]), 2),
        request(&[5], &[0.5]),
    ]);
    assert!(
        report
            .failure(0)
            .message
            .contains("as many scores as items")
    );
    assert!(report.failure(1).message.contains("for 2 users"));
    report.success(2);
}

#[test]
fn a_config_that_cannot_work_does_not_load() {
    let server = server();
    for (config, says) in [
        (config("0"), "RANKING_TOPK = '0'"),
        (config("ten"), "RANKING_TOPK"),
        (
            config("10").parameter("DIVERSITY_MODE", "perhaps"),
            "DIVERSITY_MODE",
        ),
        (
            config("10").parameter("TOPK", "3"),
            "unknown parameter 'TOPK'",
        ),
        (
            config("10").output("more", "TYPE_FP32", &[-1]),
            "one FP32 output",
        ),
        (config("10").max_batch_size(8), "max_batch_size must be 0"),
    ] {
        let message = server.load("softmax_sampling", config).unwrap_err().message;
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let server = server();
    fake::parameters_are_named(|key, value| {
        let config = config("2").parameter(key, value);
        server.load("softmax_sampling", config).map(drop)
    });
}
