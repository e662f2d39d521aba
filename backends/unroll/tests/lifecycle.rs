//! Tests the backend against the fake C API.

use triton_testing::fake::{self, Config, Input, Request, Server};
use triton_unroll::Unroll;

fn server() -> Server {
    Server::start("unroll", triton_backend::entry_points::<Unroll>()).unwrap()
}

fn config() -> Config {
    let mut config = Config::new();
    for (name, data_type, dims) in [
        ("user_id", "TYPE_INT32", &[-1][..]),
        ("age", "TYPE_FP32", &[-1]),
        ("hour", "TYPE_FP64", &[-1]),
        ("item_id", "TYPE_INT32", &[-1]),
        ("image", "TYPE_FP32", &[-1, 2]),
    ] {
        config = config
            .input(name, data_type, dims)
            .output(name, data_type, dims);
    }
    config
}

fn request(users: &[i32], hours: &[f64], items: &[i32]) -> Request {
    let ages: Vec<f32> = users.iter().map(|user| *user as f32 / 2.0).collect();
    let images: Vec<f32> = items.iter().flat_map(|item| [*item as f32, 0.5]).collect();
    Request::new()
        .input(Input::new("user_id", &[users.len() as i64], users))
        .input(Input::new("age", &[users.len() as i64], &ages))
        .input(Input::new("hour", &[hours.len() as i64], hours))
        .input(Input::new("item_id", &[items.len() as i64], items))
        .input(Input::new("image", &[items.len() as i64, 2], &images))
        .output("user_id")
        .output("age")
        .output("hour")
        .output("item_id")
        .output("image")
}

#[test]
fn users_and_context_are_repeated_over_their_candidates() {
    let server = server();
    let model = server.load("unroll_features", config()).unwrap();
    let report = model.execute([
        request(&[8], &[0.5], &[3, 4, 5]),
        request(&[8, 10], &[0.5], &[3, 4, 5, 6]),
        request(&[8, 10], &[0.5, 0.25], &[3, 4, 5, 6]),
        request(&[8], &[0.5], &[]),
        request(&[8], &[0.5], &[3]),
        request(&[8], &[0.5], &vec![3; 10_000]),
    ]);
    let success = |index: usize| report.success(index);
    assert_eq!(success(0).output::<i32>("user_id"), (vec![8; 3], vec![3]));
    assert_eq!(success(0).output::<f64>("hour"), (vec![0.5; 3], vec![3]));
    assert_eq!(
        success(0).output::<i32>("item_id"),
        (vec![3, 4, 5], vec![3])
    );
    assert_eq!(
        success(0).output::<f32>("image"),
        (vec![3.0, 0.5, 4.0, 0.5, 5.0, 0.5], vec![3, 2])
    );
    assert_eq!(success(1).output::<f32>("age").0, [4.0, 4.0, 5.0, 5.0]);
    assert_eq!(success(1).output::<f64>("hour").0, [0.5; 4]);
    assert_eq!(success(2).output::<f64>("hour").0, [0.5, 0.5, 0.25, 0.25]);
    assert_eq!(success(3).output::<i32>("user_id"), (vec![], vec![0]));
    assert_eq!(success(3).output::<f32>("image"), (vec![], vec![0, 2]));
    assert_eq!(success(4).output::<i32>("user_id"), (vec![8], vec![1]));
    assert_eq!(
        success(5).output::<f32>("age"),
        (vec![4.0; 10_000], vec![10_000])
    );
}

#[test]
fn lengths_that_do_not_fit_fail_that_request_alone() {
    let server = server();
    let model = server.load("unroll_features", config()).unwrap();
    let report = model.execute([
        request(&[8, 10], &[0.5], &[3, 4, 5]),
        request(&[8], &[0.5, 0.5], &[3, 4, 5]),
        request(&[], &[0.5], &[3]),
        request(&[8], &[0.5], &[3]),
    ]);
    assert!(
        report
            .failure(0)
            .message
            .contains("'item_id' has 3 rows for the 2 users")
    );
    assert!(
        report
            .failure(1)
            .message
            .contains("'hour' has 2 rows; accepted: 3")
    );
    assert!(report.failure(2).message.contains("0 users"));
    report.success(3);
}

#[test]
fn a_config_that_cannot_work_does_not_load() {
    let server = server();
    for (config, says) in [
        (
            config().parameter("ITEM_INPUT", "film"),
            "ITEM_INPUT = 'film'",
        ),
        (config().output("x", "TYPE_INT32", &[-1]), "no input 'x'"),
        (config().max_batch_size(4), "max_batch_size must be 0"),
        (
            config().parameter("GROUPS", "3"),
            "unknown parameter 'GROUPS'",
        ),
    ] {
        let message = server.load("unroll_features", config).unwrap_err().message;
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let server = server();
    fake::parameters_are_named(|key, value| {
        let config = config().parameter(key, value);
        server.load("unroll_features", config).map(drop)
    });
}
