//! `config.pbtxt` as a value, and its text.

use saker_serving::releases::edit::{self, quote};

use std::collections::BTreeMap;
use std::fmt::Write;

/// Type of a tensor, as Triton names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// 32-bit integers.
    Int32,
    /// 32-bit floats.
    Fp32,
    /// Bytes of any length.
    String,
}

impl DataType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Int32 => "TYPE_INT32",
            Self::Fp32 => "TYPE_FP32",
            Self::String => "TYPE_STRING",
        }
    }
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Its shape; -1 accepts any length.
    pub dims: Vec<i64>,
    /// Whether a request may omit it (inputs only).
    pub optional: bool,
}

impl Tensor {
    /// A column of any length.
    pub fn column(name: &str, data_type: DataType) -> Self {
        Self {
            name: name.to_owned(),
            data_type,
            dims: vec![-1],
            optional: false,
        }
    }

    /// One text.
    pub fn text(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            data_type: DataType::String,
            dims: vec![1],
            optional: false,
        }
    }

    /// Rows of this width.
    pub fn rows(name: &str, width: usize) -> Self {
        Self {
            name: name.to_owned(),
            data_type: DataType::Fp32,
            dims: vec![-1, width as i64],
            optional: false,
        }
    }

    /// The same tensor, but a request may omit it.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// One step of an ensemble, which maps the model's tensors to the ensemble's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// Input of the model, tensor of the ensemble.
    pub inputs: Vec<(String, String)>,
    /// Output of the model, tensor of the ensemble.
    pub outputs: Vec<(String, String)>,
}

/// A model's `config.pbtxt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelConfig {
    /// Name of the model and of its folder.
    pub name: String,
    /// The backend; empty for an ensemble.
    pub backend: String,
    /// Input tensors.
    pub inputs: Vec<Tensor>,
    /// Output tensors.
    pub outputs: Vec<Tensor>,
    /// The versions that Triton loads; if empty, the latest.
    pub versions: Vec<u64>,
    /// Settings of the backend.
    pub parameters: BTreeMap<String, String>,
    /// Instances on the CPU; 0 for an ensemble.
    pub instances: usize,
    /// Steps of an ensemble.
    pub steps: Vec<Step>,
}

impl ModelConfig {
    /// The text of `config.pbtxt`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let out = &mut text;
        field(out, 0, "name", &self.name);
        if self.steps.is_empty() {
            field(out, 0, "backend", &self.backend);
        } else {
            field(out, 0, "platform", "ensemble");
        }
        // Requests carry whole columns, so Triton must not add a batch dimension.
        line(out, 0, "max_batch_size: 0");
        if !self.versions.is_empty() {
            line(out, 0, &edit::version_policy(&self.versions));
        }
        tensors(out, "input", &self.inputs);
        tensors(out, "output", &self.outputs);
        if self.instances > 0 {
            line(out, 0, &edit::instance_group(self.instances));
        }
        for (key, value) in &self.parameters {
            line(out, 0, &edit::parameter(key, value));
        }
        if !self.steps.is_empty() {
            line(out, 0, "ensemble_scheduling {");
            line(out, 1, "step [");
            for (index, step) in self.steps.iter().enumerate() {
                line(out, 2, "{");
                field(out, 3, "model_name", &step.model);
                line(out, 3, &format!("model_version: {}", step.version));
                for (kind, map) in [("input_map", &step.inputs), ("output_map", &step.outputs)] {
                    for (key, value) in map {
                        line(
                            out,
                            3,
                            &format!("{kind} {{ key: {} value: {} }}", quote(key), quote(value)),
                        );
                    }
                }
                line(
                    out,
                    2,
                    if index + 1 == self.steps.len() {
                        "}"
                    } else {
                        "},"
                    },
                );
            }
            line(out, 1, "]");
            line(out, 0, "}");
        }
        text
    }
}

fn tensors(out: &mut String, kind: &str, tensors: &[Tensor]) {
    if tensors.is_empty() {
        return;
    }
    line(out, 0, &format!("{kind} ["));
    for (index, tensor) in tensors.iter().enumerate() {
        let dims = tensor
            .dims
            .iter()
            .map(i64::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let optional = if tensor.optional {
            " optional: true"
        } else {
            ""
        };
        let comma = if index + 1 == tensors.len() { "" } else { "," };
        line(
            out,
            1,
            &format!(
                "{{ name: {} data_type: {} dims: [ {dims} ]{optional} }}{comma}",
                quote(&tensor.name),
                tensor.data_type.as_str()
            ),
        );
    }
    line(out, 0, "]");
}

fn field(out: &mut String, depth: usize, key: &str, value: &str) {
    line(out, depth, &format!("{key}: {}", quote(value)));
}

fn line(out: &mut String, depth: usize, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:width$}{text}", "", width = depth * 2);
}
