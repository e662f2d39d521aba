//! The content of config.pbtxt, as Triton passes it to a backend.

use std::collections::BTreeMap;
use std::ffi::CString;

use serde_json::{Map, Value};

use crate::{DataType, Error};

/// One input or output of config.pbtxt.
#[derive(Debug, Clone)]
pub struct TensorConfig {
    /// The tensor's name.
    pub name: String,
    /// The type of its elements.
    pub data_type: DataType,
    /// The dimensions without the batch dimension, as the backend sees them: those of `reshape` if the config has one. -1 accepts any size.
    pub dims: Vec<i64>,
    /// Whether a request may omit it (inputs only).
    pub optional: bool,
    /// The name as a C string, so that no request has to convert it.
    pub(crate) c_name: CString,
}

/// The output that the SDK itself writes, see [`Release`](crate::Release).
const RELEASE_OUTPUT: &str = "release";

/// The parts of config.pbtxt that concern a backend.
///
/// ```
/// use triton_backend::{DataType, ModelConfig};
///
/// # fn main() -> Result<(), triton_backend::Error> {
/// let config = ModelConfig::from_json(
///     r#"{
///         "max_batch_size": 8,
///         "input": [{ "name": "x", "data_type": "TYPE_FP32", "dims": [64] }],
///         "parameters": { "FACTOR": { "string_value": "2" } }
///     }"#,
/// )?;
/// let x = config.input("x")?;
/// assert_eq!((x.data_type, x.dims.as_slice()), (DataType::Fp32, &[64][..]));
/// assert_eq!(config.parameters()["FACTOR"], "2");
/// assert!(config.input("y").unwrap_err().message().contains("'x'"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ModelConfig {
    inputs: Vec<TensorConfig>,
    outputs: Vec<TensorConfig>,
    release_output: Option<TensorConfig>,
    max_batch_size: usize,
    parameters: BTreeMap<String, String>,
    json: Map<String, Value>,
}

impl ModelConfig {
    /// Reads the JSON form of a config.pbtxt that Triton passes.
    ///
    /// # Errors
    /// Returns an error if the text is not a JSON object, or if a tensor has no name or an unsupported data type.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let json: Map<String, Value> = serde_json::from_str(json).map_err(|e| {
            Error::internal(format!("Triton's model config is not a JSON object: {e}"))
        })?;
        let parameters = json
            .get("parameters")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                let value = value.get("string_value").and_then(Value::as_str);
                (key.clone(), value.unwrap_or_default().to_owned())
            })
            .collect();
        let (release, outputs): (Vec<_>, Vec<_>) = tensors(&json, "output")?
            .into_iter()
            .partition(|t| t.name == RELEASE_OUTPUT && t.data_type == DataType::Bytes);
        Ok(Self {
            inputs: tensors(&json, "input")?,
            outputs,
            release_output: release.into_iter().next(),
            max_batch_size: json
                .get("max_batch_size")
                .and_then(integer)
                .and_then(|rows| rows.try_into().ok())
                .unwrap_or(0),
            parameters,
            json,
        })
    }

    /// The inputs in the order of the config.
    pub fn inputs(&self) -> &[TensorConfig] {
        &self.inputs
    }

    /// The outputs in the order of the config, except the one that the SDK writes (see [`Release`](crate::Release)).
    pub fn outputs(&self) -> &[TensorConfig] {
        &self.outputs
    }

    /// The output `release` of type BYTES, if the config declares it.
    pub(crate) fn release_output(&self) -> Option<&TensorConfig> {
        self.release_output.as_ref()
    }

    /// Replaces the config's values by these; `None` removes a key.
    pub(crate) fn override_parameters(&mut self, values: &BTreeMap<String, Option<String>>) {
        for (key, value) in values {
            match value {
                Some(value) => self.parameters.insert(key.clone(), value.clone()),
                None => self.parameters.remove(key),
            };
        }
    }

    /// The input of this name.
    ///
    /// # Errors
    /// Returns an error that names the existing inputs.
    pub fn input(&self, name: &str) -> Result<&TensorConfig, Error> {
        find(&self.inputs, "input", name)
    }

    /// The output of this name.
    ///
    /// # Errors
    /// Returns an error that names the existing outputs.
    pub fn output(&self, name: &str) -> Result<&TensorConfig, Error> {
        find(&self.outputs, "output", name)
    }

    /// The index of an input in [`inputs`](Self::inputs), for [`Request::input_at`](crate::Request::input_at); `None` if the config lacks it.
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|t| t.name == name)
    }

    /// The index of the input that a parameter names.
    ///
    /// # Errors
    /// Returns an error that names the parameter if the input does not exist.
    pub fn input_of_parameter(&self, parameter: &str, name: &str) -> Result<usize, Error> {
        self.input_index(name).ok_or_else(|| {
            Error::invalid_argument(format!(
                "parameter {parameter} = '{name}': config.pbtxt has no input of that name"
            ))
        })
    }

    /// The index of an output in [`outputs`](Self::outputs), for [`Response::output_at`](crate::Response::output_at); `None` if the config
    /// lacks it.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|t| t.name == name)
    }

    /// The maximum batch size that Triton forms. 0 means that the tensors have no batch dimension.
    pub fn max_batch_size(&self) -> usize {
        self.max_batch_size
    }

    /// The `parameters` of config.pbtxt, after the [release](crate::Release) has replaced values;
    /// [`Model::Parameters`](crate::Model::Parameters) is the typed form.
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// The whole config, for settings without a method here (such as `optimization`).
    pub fn json(&self) -> &Map<String, Value> {
        &self.json
    }
}

fn find<'a>(
    tensors: &'a [TensorConfig],
    role: &str,
    name: &str,
) -> Result<&'a TensorConfig, Error> {
    tensors.iter().find(|t| t.name == name).ok_or_else(|| {
        Error::invalid_argument(format!(
            "config.pbtxt has no {role} '{name}'; its {role}s: {}",
            tensor_names(tensors)
        ))
    })
}

/// The tensors' names for a message: `'a', 'b'`, or `none`.
///
/// ```
/// use triton_backend::{ModelConfig, tensor_names};
///
/// let config = ModelConfig::from_json(r#"{ "input": [{ "name": "x", "data_type": "TYPE_FP32" }] }"#);
/// assert_eq!(tensor_names(config.unwrap().inputs()), "'x'");
/// ```
#[must_use]
pub fn tensor_names(tensors: &[TensorConfig]) -> String {
    if tensors.is_empty() {
        return "none".to_owned();
    }
    let quoted: Vec<String> = tensors.iter().map(|t| format!("'{}'", t.name)).collect();
    quoted.join(", ")
}

/// The tensors that the config lists under `role`, `input` or `output`.
fn tensors(config: &Map<String, Value>, role: &str) -> Result<Vec<TensorConfig>, Error> {
    config
        .get(role)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|tensor| tensor_config(tensor, role))
        .collect()
}

fn tensor_config(tensor: &Value, role: &str) -> Result<TensorConfig, Error> {
    let text = |key: &str| tensor.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = text("name").to_owned();
    if name.is_empty() {
        return Err(Error::invalid_argument(format!(
            "config.pbtxt has an {role} without a name"
        )));
    }
    let spelled = text("data_type");
    let data_type = DataType::from_config(spelled).ok_or_else(|| {
        Error::invalid_argument(format!(
            "{role} '{name}' has the unknown data type '{spelled}'"
        ))
    })?;
    let reshaped = tensor.pointer("/reshape/shape").and_then(Value::as_array);
    let dims = reshaped
        .or_else(|| tensor.get("dims")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(integer)
        .collect();
    let c_name = CString::new(name.as_str())
        .map_err(|_| Error::invalid_argument(format!("the name of {role} {name:?} holds a NUL")))?;
    Ok(TensorConfig {
        optional: tensor
            .get("optional")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        name,
        data_type,
        dims,
        c_name,
    })
}

/// Protobuf writes 64-bit integers as strings in JSON; Triton converts most of them back.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_an_object() {
        for json in ["", "{", "null", "3", "[]", "\"{}\""] {
            let error = ModelConfig::from_json(json).unwrap_err();
            let message = error.message();
            assert!(
                message.contains("is not a JSON object"),
                "{json}: {message}"
            );
        }
    }

    #[test]
    fn what_a_config_leaves_out_is_empty() {
        for json in [
            "{}",
            r#"{ "input": null, "output": {}, "parameters": [], "max_batch_size": -1 }"#,
        ] {
            let config = ModelConfig::from_json(json).unwrap();
            assert!(
                config.inputs().is_empty() && config.outputs().is_empty(),
                "{json}"
            );
            assert!(config.parameters().is_empty(), "{json}");
            assert_eq!(config.max_batch_size(), 0, "{json}");
            assert_eq!(config.json().get("optimization"), None, "{json}");
        }
    }

    #[test]
    fn a_reshaped_tensor_has_the_backends_dimensions() {
        let dims = |tensor: &str| {
            let config = format!(
                r#"{{ "input": [{{ "name": "x", "data_type": "TYPE_FP32", "dims": ["-1", 3] {tensor} }}] }}"#
            );
            ModelConfig::from_json(&config).unwrap().inputs()[0]
                .dims
                .clone()
        };
        assert_eq!(dims(""), [-1, 3]);
        assert_eq!(dims(r#", "reshape": {}"#), [-1, 3]);
        assert_eq!(dims(r#", "reshape": { "shape": ["6"] }"#), [6]);
        assert_eq!(dims(r#", "reshape": { "shape": [] }"#), [0_i64; 0]);
    }
}
