//! `feature_transform`: raw features to what the models were trained on.

use saker_pipeline::Group;
use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, is_clients_fault, wrong_tensors_are_refused},
    config::Config,
    golden::answers,
    stage::Stage,
    workflow::golden_workflow,
};

const USER: &str = "nvt_user_transform";
const CONTEXT: &str = "nvt_context_transform";
const ITEM: &str = "nvt_item_transform";

pub(super) fn user() -> Config {
    Config::new("feature_transform")
        .input("user_id", "INT32", &[-1])
        .input("age", "INT32", &[-1])
        .input("gender", "INT32", &[-1])
        .input("top_category", "INT32", &[-1])
        .output("user_id", "INT32", &[-1])
        .output("age_norm", "FP32", &[-1])
        .output("age_binned", "INT32", &[-1])
        .output("gender", "INT32", &[-1])
        .output("top_category", "INT32", &[-1])
}

fn context() -> Config {
    let mut config = Config::new("feature_transform")
        .input("device_type", "INT32", &[-1])
        .input("timestamp", "INT32", &[-1])
        .output("device_type", "INT32", &[-1]);
    for name in [
        "hour_sine",
        "hour_cosine",
        "day_of_week_sine",
        "day_of_week_cosine",
    ] {
        config = config.output(name, "FP32", &[-1]);
    }
    config
}

fn item() -> Config {
    let mut config = Config::new("feature_transform")
        .input("price", "FP32", &[-1])
        .output("price_log_norm", "FP32", &[-1]);
    for name in ["item_id", "category_l1", "category_l2", "item_gender"] {
        config = config
            .input(name, "INT32", &[-1])
            .output(name, "INT32", &[-1]);
    }
    config
}

/// A server with the golden workflow of that group.
fn stage(group: Group, model: &str, config: &Config) -> Stage {
    let folder = tempfile::tempdir().expect("a folder");
    golden_workflow(group, folder.path());
    let stage = Stage::new();
    stage
        .repository
        .copy(folder.path(), &format!("{model}/1"))
        .expect("a workflow");
    stage.place(model, config, &[]);
    stage
        .server
        .load(model)
        .unwrap_or_else(|error| panic!("{error}\n{}", stage.server.log()));
    stage
}

pub(super) fn users(rows: usize) -> Vec<Tensor> {
    let column = |value: &dyn Fn(usize) -> i32| (0..rows).map(value).collect::<Vec<i32>>();
    vec![
        Tensor::i32(
            "user_id",
            &column(&|row| if row % 2 == 0 { -1 } else { 46868 }),
        ),
        Tensor::i32("age", &column(&|row| 18 + row as i32 % 60)),
        Tensor::i32("gender", &column(&|row| row as i32 % 2)),
        Tensor::i32("top_category", &column(&|row| row as i32 % 8)),
    ]
}

#[test]
fn any_number_of_users() {
    let stage = stage(Group::User, USER, &user());
    for rows in SIZES {
        let outputs = stage.answer(USER, &users(rows));
        let ids = outputs.i32("user_id");
        assert_eq!(ids.len(), rows);
        assert!(ids.iter().step_by(2).all(|&id| id == 2));
        assert!(ids.iter().skip(1).step_by(2).all(|&id| id > 2));
        for (row, age) in outputs.f32("age_norm").into_iter().enumerate() {
            let age_years = f64::from(18 + row as i32 % 60);
            let expected = ((age_years - 35.551_483_333_333_33) / 11.577_732_227_475_051) as f32;
            assert_eq!(age.to_bits(), expected.to_bits(), "row {row}");
        }
    }
}

#[test]
fn contexts_of_the_reference() {
    let stage = stage(Group::Context, CONTEXT, &context());
    let devices: Vec<i32> = answers().iter().map(|answer| answer.device_type).collect();
    let times: Vec<i32> = answers().iter().map(|answer| answer.timestamp).collect();
    let outputs = stage.answer(
        CONTEXT,
        &[
            Tensor::i32("device_type", &devices),
            Tensor::i32("timestamp", &times),
        ],
    );
    for (row, answer) in answers().iter().enumerate() {
        let expected = &answer.context_features;
        assert_eq!(
            f64::from(outputs.i32("device_type")[row]),
            expected["device_type"]
        );
        for name in ["hour_sine", "day_of_week_cosine"] {
            assert_eq!(outputs.f32(name)[row], expected[name] as f32, "{name}");
        }
    }
}

#[test]
fn ids_at_the_ends_of_their_type_are_out_of_vocabulary() {
    let stage = stage(Group::Item, ITEM, &item());
    let ends = [i32::MIN, i32::MAX, -2, -1];
    let mut inputs = vec![Tensor::f32("price", &[f32::NAN, f32::INFINITY, -1.0, 0.0])];
    for name in ["item_id", "category_l1", "category_l2", "item_gender"] {
        inputs.push(Tensor::i32(name, &ends));
    }
    let outputs = stage.answer(ITEM, &inputs);
    // -1 is padding of the item id, and out-of-vocabulary of everything else.
    assert_eq!(outputs.i32("item_id"), [2, 2, 2, 0]);
    assert_eq!(outputs.i32("category_l1"), [2; 4]);
    let prices = outputs.f32("price_log_norm");
    assert!(prices[0].is_nan());
    assert_eq!(prices[1..3], [f32::INFINITY, f32::NEG_INFINITY]);
    assert!(prices[3].is_finite());
}

#[test]
fn wrong_requests() {
    let stage = stage(Group::User, USER, &user());
    wrong_tensors_are_refused(&stage, USER, &users(3), &[]);
    let mut inputs = users(3);
    inputs[1] = Tensor::i32("age", &[20, 30]);
    let error = stage
        .infer(USER, &inputs)
        .expect_err("two ages of three users");
    is_clients_fault(&error);
    assert!(
        error.message.contains(USER) && error.message.contains("age"),
        "{error}"
    );
    stage.answer(USER, &users(3));
}

#[test]
fn wrong_configurations() {
    let folder = tempfile::tempdir().expect("a folder");
    golden_workflow(Group::User, folder.path());
    let categories = folder.path().join("categories");
    let workflow = folder.path().join("workflow.json");
    let files: &[(&str, &std::path::Path)] =
        &[("categories", &categories), ("workflow.json", &workflow)];
    bad_parameters_are_refused(USER, &user(), files, "", &[]);
    let stage = Stage::new();
    let reason = stage.refusal("no_workflow", &user(), &[]);
    assert!(reason.contains("workflow.json"), "{reason}");
    let reason = stage.refusal("no_categories", &user(), &files[1..]);
    assert!(reason.contains("unique."), "{reason}");
    let more = user().output("shoe_size", "FP32", &[-1]);
    let reason = stage.refusal("unknown_output", &more, files);
    assert!(reason.contains("shoe_size"), "{reason}");
    let wrong = user().output("age_in_days", "INT32", &[-1]);
    let reason = stage.refusal("unknown_output_2", &wrong, files);
    assert!(reason.contains("age_in_days"), "{reason}");
}
