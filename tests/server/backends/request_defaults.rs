//! `request_defaults`: what a request left out.

use std::time::{SystemTime, UNIX_EPOCH};

use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, is_clients_fault, wrong_tensors_are_refused},
    config::Config,
    stage::Stage,
};

const MODEL: &str = "context_preprocessor";

fn config() -> Config {
    Config::new("request_defaults")
        .optional("device_type", "INT32", &[-1])
        .optional("timestamp", "INT32", &[-1])
        .output("device_type", "INT32", &[-1])
        .output("timestamp", "INT32", &[-1])
        .parameter("DEFAULTS", r#"{"device_type":-1,"timestamp":"now"}"#)
}

fn now() -> i32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i32::try_from(now.expect("a time after 1970").as_secs()).expect("a time before 2038")
}

fn is_now(timestamp: i32) -> bool {
    (now() - 60..=now() + 1).contains(&timestamp)
}

#[test]
fn what_is_absent_gets_its_default() {
    let stage = Stage::with(MODEL, &config(), &[]);
    let outputs = stage.answer(MODEL, &[]);
    assert_eq!(outputs.i32("device_type"), [-1]);
    assert!(is_now(outputs.i32("timestamp")[0]));
    let outputs = stage.answer(MODEL, &[Tensor::i32("device_type", &[2, 0, 7])]);
    assert_eq!(outputs.i32("device_type"), [2, 0, 7]);
    assert_eq!(outputs.i32("timestamp").len(), 3);
    let outputs = stage.answer(MODEL, &[Tensor::i32("timestamp", &[0, 5, i32::MAX])]);
    assert_eq!(outputs.i32("device_type"), [-1, -1, -1]);
    let times = outputs.i32("timestamp");
    assert!(is_now(times[0]), "0 stands for the server's time");
    assert_eq!(times[1..], [5, i32::MAX]);
}

#[test]
fn any_number_of_rows() {
    let stage = Stage::with(MODEL, &config(), &[]);
    for rows in SIZES {
        let devices: Vec<i32> = (0..rows as i32).collect();
        let times: Vec<i32> = devices.iter().map(|row| i32::MAX - row).collect();
        let inputs = [
            Tensor::i32("device_type", &devices),
            Tensor::i32("timestamp", &times),
        ];
        let outputs = stage.answer(MODEL, &inputs);
        assert_eq!(outputs.i32("device_type"), devices);
        assert_eq!(outputs.i32("timestamp"), times);
    }
}

#[test]
fn wrong_requests() {
    let stage = Stage::with(MODEL, &config(), &[]);
    let inputs = [
        Tensor::i32("device_type", &[i32::MIN]),
        Tensor::i32("timestamp", &[i32::MAX]),
    ];
    wrong_tensors_are_refused(&stage, MODEL, &inputs, &["device_type", "timestamp"]);
    let error = stage
        .infer(
            MODEL,
            &[
                Tensor::i32("device_type", &[0, 1]),
                Tensor::i32("timestamp", &[5, 6, 7]),
            ],
        )
        .expect_err("two devices and three times");
    is_clients_fault(&error);
    assert!(error.message.contains(MODEL), "{error}");
    assert!(error.message.contains("device_type"), "{error}");
}

#[test]
fn wrong_configurations() {
    bad_parameters_are_refused(
        MODEL,
        &config(),
        &[],
        "DEFAULTS",
        &[
            ("DEFAULTS", "{not json"),
            ("DEFAULTS", r#"{"nobody":1}"#),
            ("DEFAULTS", r#"{"device_type":"soon"}"#),
        ],
    );
}
