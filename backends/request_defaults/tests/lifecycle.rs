//! Tests the backend against the fake C API.

use std::time::{SystemTime, UNIX_EPOCH};

use triton_request_defaults::RequestDefaults;
use triton_testing::fake::{self, Config, Input, Request, Server};

fn server() -> Server {
    Server::start(
        "request_defaults",
        triton_backend::entry_points::<RequestDefaults>(),
    )
    .unwrap()
}

fn config() -> Config {
    Config::new()
        .optional_input("device_type", "TYPE_INT32", &[-1])
        .optional_input("timestamp", "TYPE_INT32", &[-1])
        .output("device_type", "TYPE_INT32", &[-1])
        .output("timestamp", "TYPE_INT32", &[-1])
        .parameter("DEFAULTS", r#"{"device_type": -1, "timestamp": "now"}"#)
}

fn request() -> Request {
    Request::new().output("device_type").output("timestamp")
}

fn now() -> i32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i32::try_from(now.as_secs()).unwrap()
}

#[test]
fn what_is_left_out_is_filled_in() {
    let server = server();
    let model = server.load("context_preprocessor", config()).unwrap();
    let before = now();
    let report = model.execute([
        request(),
        request().input(Input::new("device_type", &[1], &[2i32])),
        request().input(Input::new("timestamp", &[3], &[7i32, 0, -5])),
        request()
            .input(Input::new("device_type", &[0], &[0i32; 0]))
            .input(Input::new("timestamp", &[0], &[0i32; 0])),
        request().input(Input::new("timestamp", &[2], &[i32::MIN, i32::MAX])),
    ]);
    let after = now();
    let tensor = |index: usize, name| report.success(index).output::<i32>(name);

    assert_eq!(tensor(0, "device_type"), (vec![-1], vec![1]));
    assert!((before..=after).contains(&tensor(0, "timestamp").0[0]));
    assert_eq!(tensor(1, "device_type"), (vec![2], vec![1]));
    assert_eq!(tensor(2, "device_type"), (vec![-1; 3], vec![3]));
    let (times, _) = tensor(2, "timestamp");
    assert_eq!((times[0], times[2]), (7, -5));
    assert!((before..=after).contains(&times[1]));
    assert_eq!(tensor(3, "timestamp"), (vec![], vec![0]));
    assert_eq!(tensor(4, "timestamp").0, [i32::MIN, i32::MAX]);
}

#[test]
fn lengths_that_do_not_fit_fail_that_request_alone() {
    let server = server();
    let model = server.load("context_preprocessor", config()).unwrap();
    let report = model.execute([
        request()
            .input(Input::new("device_type", &[2], &[1i32, 2]))
            .input(Input::new("timestamp", &[3], &[1i32, 2, 3])),
        request().input(Input::new("device_type", &[1, 1], &[1i32])),
        request().input(Input::new("device_type", &[2], &[1i32, 2])),
    ]);
    assert!(
        report
            .failure(0)
            .message
            .contains("'device_type' has 2 elements")
    );
    assert!(report.failure(1).message.contains("accepted: 1 dimension"));
    report.success(2);
}

/// A config with the users of the request; it may have three.
fn of_users() -> Config {
    config()
        .optional_input("user_id", "TYPE_INT32", &[-1])
        .output("user_id", "TYPE_INT32", &[-1])
        .parameter("USER_INPUT", "user_id")
        .parameter("MAX_USERS", "3")
}

fn asked(users: &[i32]) -> Request {
    request()
        .output("user_id")
        .input(Input::new("user_id", &[users.len() as i64], users))
}

#[test]
fn users_are_answered_as_they_came() {
    let server = server();
    let model = server.load("context_preprocessor", of_users()).unwrap();
    let report = model.execute([
        asked(&[-1]),
        asked(&[i32::MIN, 5, i32::MAX]).input(Input::new("device_type", &[3], &[2i32, 1, 0])),
        asked(&[7, 8]).input(Input::new("device_type", &[1], &[2i32])),
        asked(&[]),
    ]);
    let tensor = |index: usize, name| report.success(index).output::<i32>(name);
    assert_eq!(tensor(0, "user_id"), (vec![-1], vec![1]));
    assert_eq!(tensor(0, "device_type"), (vec![-1], vec![1]));
    assert_eq!(tensor(1, "user_id"), (vec![i32::MIN, 5, i32::MAX], vec![3]));
    assert_eq!(tensor(1, "device_type"), (vec![2, 1, 0], vec![3]));
    assert_eq!(tensor(1, "timestamp").1, [3]);
    assert_eq!(tensor(2, "user_id"), (vec![7, 8], vec![2]));
    assert_eq!(tensor(2, "device_type"), (vec![2], vec![1]));
    assert_eq!(tensor(3, "user_id"), (vec![], vec![0]));
}

#[test]
fn a_request_that_does_not_fit_its_users_is_refused_alone() {
    let server = server();
    let model = server.load("context_preprocessor", of_users()).unwrap();
    let device = |count: i64, values: &[i32]| Input::new("device_type", &[count], values);
    let refused = [
        (request(), "the request has no input 'user_id'"),
        (
            request().input(device(1, &[0])),
            "the request has no input 'user_id'",
        ),
        (
            asked(&[1, 2, 3, 4]),
            "tensor 'user_id' has 4 users; accepted: at most 3 in a request (parameter MAX_USERS)",
        ),
        (
            request().input(Input::new("user_id", &[1, 1], &[1i32])),
            "tensor 'user_id' has shape [1, 1]; accepted: 1 dimension",
        ),
        (
            asked(&[1]).input(device(2, &[0, 1])),
            "tensor 'device_type' has 2 elements for 1 users; accepted: 1, or one for each user",
        ),
        (
            asked(&[1, 2]).input(device(0, &[])),
            "tensor 'device_type' has 0 elements for 2 users; accepted: 1, or one for each user",
        ),
        (
            asked(&[1]).input(device(2, &[0, 1])).input(Input::new(
                "timestamp",
                &[3],
                &[1i32, 2, 3],
            )),
            "tensor 'device_type' has 2 elements; accepted: 1, or as many as the longest tensor",
        ),
    ];
    for (request, says) in refused {
        let report = model.execute([asked(&[1]), request, asked(&[2])]);
        report.success(0);
        let message = &report.failure(1).message;
        assert!(message.contains(says), "{message}");
        assert_eq!(report.success(2).output::<i32>("user_id").0, [2]);
    }
}

#[test]
fn a_config_that_cannot_work_does_not_load() {
    let server = server();
    for (config, says) in [
        (
            config().parameter("DEFAULTS", "later"),
            "accepted: a JSON object",
        ),
        (
            config().parameter("DEFAULTS", r#"{"timestamp": "then"}"#),
            "'timestamp' is \"then\"",
        ),
        (
            config().parameter("DEFAULTS", r#"{"time": 1}"#),
            "accepted: outputs of config.pbtxt that have a default, which are device_type, timestamp",
        ),
        (
            config().parameter("USER_INPUT", "user"),
            "parameter 'USER_INPUT' is 'user'; accepted: an output of config.pbtxt, which are 'device_type', 'timestamp'",
        ),
        (of_users().parameter("MAX_USERS", "0"), "MAX_USERS"),
        (
            of_users().parameter("DEFAULTS", r#"{"user_id": 1}"#),
            "parameter 'DEFAULTS' names 'user_id'",
        ),
        (
            config().parameter("DEFALTS", "{}"),
            "unknown parameter 'DEFALTS'",
        ),
        (
            config().output("x", "TYPE_INT32", &[-1]),
            "input of the same name",
        ),
        (config().max_batch_size(8), "max_batch_size must be 0"),
    ] {
        let message = server
            .load("context_preprocessor", config)
            .unwrap_err()
            .message;
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let server = server();
    fake::parameters_are_named(|key, value| {
        let config = of_users().parameter(key, value);
        server.load("context_preprocessor", config).map(drop)
    });
}
