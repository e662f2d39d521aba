//! The output and duration of each step of the ensemble for one request, as text and JSON.

use serde_json::{Value, json};
use triton_client::steps::{Explained, Step};

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timing {
    /// The model.
    pub(super) model: String,
    /// Its outputs with their lengths.
    pub(super) answers: String,
    /// Queue, input, infer and output.
    pub(super) nanoseconds: [u64; 4],
}

impl Timing {
    /// The timings of every step; the ensemble's own is the last.
    pub(super) fn of(ensemble: &str, explained: &Explained) -> Vec<Self> {
        let of_step = |step: &Step| {
            let shapes = step.outputs.iter().map(|tensor| {
                let shape: Vec<String> = tensor.shape.iter().map(i64::to_string).collect();
                format!("{}[{}]", tensor.name, shape.join(", "))
            });
            Self {
                model: step.model.clone(),
                answers: summary(shapes.collect()),
                nanoseconds: step.nanoseconds,
            }
        };
        let whole = Self {
            model: ensemble.to_owned(),
            answers: "in all".to_owned(),
            nanoseconds: explained.nanoseconds,
        };
        explained.steps.iter().map(of_step).chain([whole]).collect()
    }

    /// The timing as JSON, for `--json`.
    pub(super) fn json(&self) -> Value {
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

fn summary(mut shapes: Vec<String>) -> String {
    /// A step with more outputs than this shows their number instead of a list.
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
