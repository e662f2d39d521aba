//! What holds for every backend.

use std::path::Path;

use triton_testing::{server::ServerError, tensor::Tensor};

use super::{config::Config, stage::Stage};

/// The numbers of rows that every step must take.
pub(crate) const SIZES: [usize; 4] = [0, 1, 300, 10_000];

/// Sends every input under a wrong name, type, shape and byte size, and leaves it out: each must be
/// answered with an error that names the tensor, and the request after it must work.
pub(crate) fn wrong_tensors_are_refused(
    stage: &Stage,
    model: &str,
    inputs: &[Tensor],
    optional: &[&str],
) {
    let good = stage.answer(model, inputs);
    for (index, input) in inputs.iter().enumerate() {
        let name = &input.name;
        let refused = |wrong: Tensor, named: &str| {
            let what = format!(
                "{} {} {:?}, {} bytes",
                wrong.name,
                wrong.data_type,
                wrong.shape,
                wrong.data.len()
            );
            let mut inputs = inputs.to_vec();
            inputs[index] = wrong;
            let error = stage
                .infer(model, &inputs)
                .expect_err(&format!("{model} took {what}"));
            is_clients_fault(&error);
            assert!(
                error.message.contains(named),
                "the error for {what} does not name '{named}': {error}"
            );
            assert_eq!(
                stage.answer(model, inputs_of(&inputs, index, input).as_slice()),
                good
            );
        };
        refused(
            Tensor {
                name: "no_such_tensor".to_owned(),
                ..input.clone()
            },
            "no_such_tensor",
        );
        let other = if input.data_type == "FP32" {
            "INT32"
        } else {
            "FP32"
        };
        refused(
            Tensor {
                data_type: other.to_owned(),
                ..input.clone()
            },
            name,
        );
        let mut shape = vec![1];
        shape.extend(&input.shape);
        refused(input.clone().shaped(&shape), name);
        let mut longer = input.shape.clone();
        longer[0] += 1;
        refused(input.clone().shaped(&longer), name);
        let mut shorter = input.clone();
        shorter.data.pop();
        refused(shorter, name);
        if !optional.contains(&name.as_str()) {
            let mut inputs = inputs.to_vec();
            inputs.remove(index);
            let error = stage
                .infer(model, &inputs)
                .expect_err("an input is missing");
            is_clients_fault(&error);
        }
    }
    assert_eq!(stage.answer(model, inputs), good);
    assert!(stage.server.is_alive());
}

fn inputs_of(inputs: &[Tensor], index: usize, right: &Tensor) -> Vec<Tensor> {
    let mut inputs = inputs.to_vec();
    inputs[index] = right.clone();
    inputs
}

/// The error says that the request was wrong, not that the server failed.
pub(crate) fn is_clients_fault(error: &ServerError) {
    assert!(
        (400..500).contains(&error.status),
        "not the client's fault: {error}"
    );
}

/// An unknown key, and each bad value, must fail the load with a message that names the key and the
/// value; an unknown key also names an accepted one.
pub(crate) fn bad_parameters_are_refused(
    name: &str,
    config: &Config,
    files: &[(&str, &Path)],
    accepted: &str,
    bad: &[(&str, &str)],
) {
    let stage = Stage::new();
    let unknown = config.clone().parameter("NO_SUCH_KEY", "7");
    let reason = stage.refusal(&format!("{name}_unknown"), &unknown, files);
    for part in ["NO_SUCH_KEY", accepted] {
        assert!(
            reason.contains(part),
            "'{part}' is not in the reason: {reason}"
        );
    }
    for (index, (key, value)) in bad.iter().enumerate() {
        let wrong = config.clone().parameter(key, value);
        let reason = stage.refusal(&format!("{name}_{index}"), &wrong, files);
        // Of a JSON object, the member that is wrong.
        let member = value
            .strip_prefix("{\"")
            .and_then(|rest| rest.split('"').next());
        for part in [*key, member.unwrap_or(value)] {
            assert!(
                reason.contains(part),
                "'{part}' is not in the reason: {reason}"
            );
        }
    }
    // The server and the backend go on.
    stage.place(name, config, files);
    stage
        .server
        .load(name)
        .unwrap_or_else(|error| panic!("the right configuration must load: {error}"));
}
