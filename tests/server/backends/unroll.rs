//! `unroll`: each user's features over that user's candidates.

use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, is_clients_fault, wrong_tensors_are_refused},
    config::Config,
    stage::Stage,
};

const MODEL: &str = "unroll_features";

fn config() -> Config {
    let mut config = Config::new("unroll");
    for (name, data_type, dims) in [
        ("user_id", "INT32", &[-1][..]),
        ("hour_sine", "FP32", &[-1]),
        ("item_id", "INT32", &[-1]),
        ("embedding", "FP32", &[-1, 2]),
    ] {
        config = config
            .input(name, data_type, dims)
            .output(name, data_type, dims);
    }
    config.parameter("ITEM_INPUT", "item_id")
}

fn request(users: &[i32], hours: &[f32], items: usize) -> Vec<Tensor> {
    let ids: Vec<i32> = (0..items as i32).collect();
    let vectors: Vec<f32> = (0..2 * items).map(|place| place as f32).collect();
    vec![
        Tensor::i32("user_id", users),
        Tensor::f32("hour_sine", hours),
        Tensor::i32("item_id", &ids),
        Tensor::f32("embedding", &vectors).shaped(&[items as i64, 2]),
    ]
}

#[test]
fn any_number_of_items() {
    let stage = Stage::with(MODEL, &config(), &[]);
    for items in SIZES {
        let inputs = request(&[i32::MAX], &[0.5], items);
        let outputs = stage.answer(MODEL, &inputs);
        assert_eq!(outputs.i32("user_id"), vec![i32::MAX; items]);
        assert_eq!(outputs.f32("hour_sine"), vec![0.5; items]);
        assert_eq!(outputs.i32("item_id"), inputs[2].to_i32());
        assert_eq!(outputs.get("embedding"), Some(&inputs[3]));
    }
}

#[test]
fn several_users_have_rows_of_equal_length() {
    let stage = Stage::with(MODEL, &config(), &[]);
    let outputs = stage.answer(MODEL, &request(&[4, -9], &[f32::NAN, f32::NEG_INFINITY], 6));
    assert_eq!(outputs.i32("user_id"), [4, 4, 4, -9, -9, -9]);
    let hours = outputs.f32("hour_sine");
    assert!(hours[..3].iter().all(|hour| hour.is_nan()));
    assert_eq!(hours[3..], [f32::NEG_INFINITY; 3]);
    // One moment for all.
    let outputs = stage.answer(MODEL, &request(&[4, -9], &[0.25], 4));
    assert_eq!(outputs.i32("user_id"), [4, 4, -9, -9]);
    assert_eq!(outputs.f32("hour_sine"), [0.25; 4]);
}

#[test]
fn wrong_requests() {
    let stage = Stage::with(MODEL, &config(), &[]);
    wrong_tensors_are_refused(&stage, MODEL, &request(&[1], &[0.5], 3), &[]);
    let error = stage
        .infer(MODEL, &request(&[1, 2], &[0.5], 3))
        .expect_err("three items for two users");
    is_clients_fault(&error);
    assert!(error.message.contains("user_id"), "{error}");
}

#[test]
fn wrong_configurations() {
    bad_parameters_are_refused(
        MODEL,
        &config(),
        &[],
        "ITEM_INPUT",
        &[("ITEM_INPUT", "no_such_input")],
    );
    let stage = Stage::new();
    let other = config().output("nowhere", "FP32", &[-1]);
    let reason = stage.refusal("other", &other, &[]);
    assert!(reason.contains("nowhere"), "{reason}");
}
