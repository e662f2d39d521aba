//! An ensemble's steps, asked one by one, to see the tensors between them and how long each step takes.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::answer;
use crate::{Error, Result, Tensor, Triton};

/// The times that Triton counts for a model, in this order.
const TIMES: [&str; 4] = ["queue", "compute_input", "compute_infer", "compute_output"];

/// One step of an ensemble, as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The name of the step's model.
    pub model: String,
    /// The version of it that the ensemble is pinned to.
    pub version: u64,
    /// Its inputs, under the model's names.
    pub inputs: Vec<Tensor>,
    /// Its outputs, under the model's names.
    pub outputs: Vec<Tensor>,
    /// Time that the request spent in the step: queue, input, infer and output.
    pub nanoseconds: [u64; 4],
}

/// The answers of an ensemble and of each of its steps to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The ensemble's answer.
    pub answer: Vec<Tensor>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// The times of the ensemble, as [`Step::nanoseconds`].
    pub nanoseconds: [u64; 4],
}

/// Asks the ensemble, and then each of its steps by itself to see the tensors between them. The times are those of the first
/// request: differences of Triton's statistics, so other clients' requests at the same moment count in.
///
/// ```no_run
/// use triton_client::steps::explain;
/// use triton_client::{Tensor, Triton};
///
/// # fn main() -> triton_client::Result<()> {
/// let triton = Triton::new("127.0.0.1:8000");
/// let explained = explain(&triton, "ensemble", &[Tensor::int32("user_id", &[42])])?;
/// for step in &explained.steps {
///     println!("{}: {} ns", step.model, step.nanoseconds.iter().sum::<u64>());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Returns the errors of the requests.
pub fn explain(triton: &Triton, ensemble: &str, request: &[Tensor]) -> Result<Explained> {
    let before = triton.statistics()?;
    let answered = triton.infer(ensemble, request)?;
    let after = triton.statistics()?;
    let spent = |model: &str, version: u64| {
        let counted = format!("{model}/{version}");
        TIMES.map(|time| {
            nanoseconds(&after, &counted, time).saturating_sub(nanoseconds(&before, &counted, time))
        })
    };
    let config = triton.config(ensemble)?;
    let described = config
        .pointer("/ensemble_scheduling/step")
        .and_then(Value::as_array)
        .ok_or_else(|| answer(format!("{ensemble} has no steps")))?;

    let mut tensors: HashMap<String, Tensor> = request
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.clone()))
        .collect();
    let mut steps = Vec::new();
    for step in described {
        let model = step
            .get("model_name")
            .and_then(Value::as_str)
            .ok_or_else(|| answer("a step without a model"))?;
        // The number of the release that serves: another may be loaded beside it.
        let version = step
            .get("model_version")
            .and_then(Value::as_u64)
            .ok_or_else(|| answer(format!("step {model} without a version")))?;
        let (inputs, outputs) =
            ask(triton, model, version, step, &mut tensors).map_err(|source| Error::Step {
                step: model.to_owned(),
                source: Box::new(source),
            })?;
        steps.push(Step {
            model: model.to_owned(),
            version,
            inputs,
            outputs,
            nanoseconds: spent(model, version),
        });
    }
    Ok(Explained {
        answer: answered,
        steps,
        // An ensemble has one version, whatever its steps are pinned to.
        nanoseconds: spent(ensemble, 1),
    })
}

/// Asks one step with the tensors it takes in the ensemble, and adds its outputs under the ensemble's names.
fn ask(
    triton: &Triton,
    model: &str,
    version: u64,
    step: &Value,
    tensors: &mut HashMap<String, Tensor>,
) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let map = |name: &str| {
        step.get(name)
            .and_then(Value::as_object)
            .ok_or_else(|| answer(format!("no {name}")))
    };
    // A missing tensor is an optional input that the request omitted.
    let inputs: Vec<Tensor> = map("input_map")?
        .iter()
        .filter_map(|(input, source)| Some((input, tensors.get(source.as_str()?)?)))
        .map(|(input, tensor)| Tensor {
            name: input.clone(),
            ..tensor.clone()
        })
        .collect();
    let named = map("output_map")?;
    let outputs = triton.infer_version(model, version, &inputs)?;
    for output in &outputs {
        if let Some(name) = named.get(&output.name).and_then(Value::as_str) {
            tensors.insert(name.to_owned(), output.clone());
        }
    }
    Ok((inputs, outputs))
}

fn nanoseconds(statistics: &Map<String, Value>, model: &str, time: &str) -> u64 {
    statistics
        .get(model)
        .and_then(|model| model.get("inference_stats")?.get(time)?.get("ns")?.as_u64())
        .unwrap_or(0)
}
