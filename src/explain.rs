//! What each step of the ensemble answered for one request, and how long it took.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::assemble::VERSION;
use crate::assemble::steps::ENSEMBLE;
use crate::client::{Tensor, Triton};

/// The times that Triton counts for a model, in this order.
const TIMES: [&str; 4] = ["queue", "compute_input", "compute_infer", "compute_output"];

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The model.
    pub model: String,
    /// Its outputs with their lengths.
    pub answers: String,
    /// Queue, input, infer and output.
    pub nanoseconds: [u64; 4],
}

impl Timing {
    /// The same for `--json`.
    pub fn json(&self) -> Value {
        let [queue, input, infer, output] = self.nanoseconds;
        json!({
            "model": self.model,
            "answers": self.answers,
            "queue_ns": queue,
            "compute_input_ns": input,
            "compute_infer_ns": infer,
            "compute_output_ns": output,
        })
    }
}

/// Asks the ensemble, and then each of its steps by itself to see the tensors between them. The times are those of the first
/// request: differences of Triton's statistics, so other clients' requests at the same moment count in.
///
/// # Errors
/// Those of the requests.
pub fn explain(triton: &Triton, request: &[Tensor]) -> Result<(Vec<Tensor>, Vec<Timing>)> {
    let before = triton.statistics()?;
    let answer = triton.infer(ENSEMBLE, request)?;
    let after = triton.statistics()?;
    let config = triton.config(ENSEMBLE)?;
    let steps = config["ensemble_scheduling"]["step"]
        .as_array()
        .context("the ensemble has no steps")?;

    let mut tensors: HashMap<String, Tensor> = request
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.clone()))
        .collect();
    let mut timings = Vec::new();
    for step in steps {
        let model = step["model_name"]
            .as_str()
            .context("a step without a model")?;
        // The number of the release that serves: another may be loaded beside it.
        let version = step["model_version"]
            .as_u64()
            .context("a step without a version")?;
        let outputs =
            ask(triton, model, version, step, &tensors).with_context(|| format!("step {model}"))?;
        let counted = format!("{model}/{version}");
        let shapes = outputs.iter().map(|(_, tensor)| {
            let shape: Vec<String> = tensor.shape.iter().map(i64::to_string).collect();
            format!("{}[{}]", tensor.name, shape.join(", "))
        });
        timings.push(Timing {
            model: model.to_owned(),
            answers: summary(shapes.collect()),
            nanoseconds: TIMES.map(|time| {
                nanoseconds(&after, &counted, time)
                    .saturating_sub(nanoseconds(&before, &counted, time))
            }),
        });
        tensors.extend(outputs);
    }
    let counted = format!("{ENSEMBLE}/{VERSION}");
    timings.push(Timing {
        model: ENSEMBLE.to_owned(),
        answers: "in all".to_owned(),
        nanoseconds: TIMES.map(|time| {
            nanoseconds(&after, &counted, time).saturating_sub(nanoseconds(&before, &counted, time))
        }),
    });
    Ok((answer, timings))
}

/// Asks one step with the tensors it takes in the ensemble; its outputs come under the ensemble's names.
fn ask(
    triton: &Triton,
    model: &str,
    version: u64,
    step: &Value,
    tensors: &HashMap<String, Tensor>,
) -> Result<Vec<(String, Tensor)>> {
    let map = |name: &str| step[name].as_object().with_context(|| format!("no {name}"));
    // A tensor that is not there is one that the request left out.
    let inputs: Vec<Tensor> = map("input_map")?
        .iter()
        .filter_map(|(input, source)| Some((input, tensors.get(source.as_str()?)?)))
        .map(|(input, tensor)| Tensor {
            name: input.clone(),
            ..tensor.clone()
        })
        .collect();
    let named = map("output_map")?;
    let outputs = triton.infer_version(model, version, &inputs)?.into_iter();
    Ok(outputs
        .filter_map(|tensor| Some((named.get(&tensor.name)?.as_str()?.to_owned(), tensor)))
        .collect())
}

fn summary(mut shapes: Vec<String>) -> String {
    /// More outputs than this are counted, not listed.
    const LISTED: usize = 2;
    let more = shapes.len().saturating_sub(LISTED);
    shapes.truncate(LISTED);
    let listed = shapes.join(" ");
    if more > 0 {
        format!("{listed} and {more} more")
    } else {
        listed
    }
}

fn nanoseconds(statistics: &serde_json::Map<String, Value>, model: &str, time: &str) -> u64 {
    statistics
        .get(model)
        .and_then(|model| model["inference_stats"][time]["ns"].as_u64())
        .unwrap_or(0)
}
