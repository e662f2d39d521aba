//! The tensors that a backend accepts, checked against config.pbtxt at load.

use crate::config::{ModelConfig, TensorConfig, tensor_names};
use crate::{DataType, Error};

/// The inputs and outputs that a backend expects in a config.
///
/// ```
/// use triton_backend::{DataType, Signature};
///
/// // One FP32 vector as input, one as output, and a user id that the config may omit.
/// Signature::new()
///     .input("x", &[DataType::Fp32])
///     .optional_input("user_id", &[DataType::Int32, DataType::Int64])
///     .output("y", &[DataType::Fp32]);
/// ```
///
/// The load fails for any other tensor, unless [`other_inputs`](Self::other_inputs) or [`other_outputs`](Self::other_outputs) allow it.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    inputs: Vec<Rule>,
    outputs: Vec<Rule>,
    other_inputs: Vec<DataType>,
    other_outputs: Vec<DataType>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    data_types: Vec<DataType>,
    required: bool,
}

/// Every data type, for [`Signature::other_inputs`] of a backend that takes any tensor.
pub const ANY_TYPE: &[DataType] = &[
    DataType::Bool,
    DataType::Uint8,
    DataType::Uint16,
    DataType::Uint32,
    DataType::Uint64,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Fp16,
    DataType::Fp32,
    DataType::Fp64,
    DataType::Bf16,
    DataType::Bytes,
];

/// Every data type whose elements have a fixed size: all except BYTES.
pub const FIXED_SIZE_TYPES: &[DataType] = ANY_TYPE.split_at(ANY_TYPE.len() - 1).0;

impl Signature {
    /// A signature without tensors: a config that declares one is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// A signature that accepts any tensors of any type.
    pub fn any() -> Self {
        Self::new().other_inputs(ANY_TYPE).other_outputs(ANY_TYPE)
    }

    /// The config must declare this input with one of these types.
    pub fn input(mut self, name: &str, data_types: &[DataType]) -> Self {
        self.inputs.push(Rule::new(name, data_types, true));
        self
    }

    /// The config may declare this input. If it does, the type must be one of these.
    pub fn optional_input(mut self, name: &str, data_types: &[DataType]) -> Self {
        self.inputs.push(Rule::new(name, data_types, false));
        self
    }

    /// The config must declare this output with one of these types.
    pub fn output(mut self, name: &str, data_types: &[DataType]) -> Self {
        self.outputs.push(Rule::new(name, data_types, true));
        self
    }

    /// The config may declare this output. If it does, the type must be one of these.
    pub fn optional_output(mut self, name: &str, data_types: &[DataType]) -> Self {
        self.outputs.push(Rule::new(name, data_types, false));
        self
    }

    /// The config may declare any further inputs of these types. A second call adds types.
    pub fn other_inputs(mut self, data_types: &[DataType]) -> Self {
        self.other_inputs.extend(data_types);
        self
    }

    /// The config may declare any further outputs of these types. A second call adds types.
    pub fn other_outputs(mut self, data_types: &[DataType]) -> Self {
        self.other_outputs.extend(data_types);
        self
    }

    /// Compares the signature with a config.
    ///
    /// # Errors
    /// Returns an error that names the first tensor that is missing, has another type, or is not expected.
    pub fn check(&self, config: &ModelConfig) -> Result<(), Error> {
        check("input", &self.inputs, &self.other_inputs, config.inputs())?;
        check(
            "output",
            &self.outputs,
            &self.other_outputs,
            config.outputs(),
        )
    }
}

impl Rule {
    fn new(name: &str, data_types: &[DataType], required: bool) -> Self {
        Self {
            name: name.to_owned(),
            data_types: data_types.to_vec(),
            required,
        }
    }
}

fn check(
    role: &str,
    rules: &[Rule],
    others: &[DataType],
    tensors: &[TensorConfig],
) -> Result<(), Error> {
    for rule in rules.iter().filter(|rule| rule.required) {
        if !tensors.iter().any(|t| t.name == rule.name) {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt must declare the {role} '{}' ({}); it declares: {}",
                rule.name,
                list(&rule.data_types),
                tensor_names(tensors)
            )));
        }
    }
    for tensor in tensors {
        let rule = rules.iter().find(|rule| rule.name == tensor.name);
        let accepted = rule.map_or(others, |rule| &rule.data_types);
        if accepted.is_empty() {
            let known: Vec<String> = rules.iter().map(|r| format!("'{}'", r.name)).collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares the {role} '{}', which this backend does not know; accepted: {known}",
                tensor.name
            )));
        }
        if !accepted.contains(&tensor.data_type) {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares the {role} '{}' as {}; accepted: {}",
                tensor.name,
                tensor.data_type,
                list(accepted)
            )));
        }
    }
    Ok(())
}

fn list(data_types: &[DataType]) -> String {
    let names: Vec<&str> = data_types.iter().map(|t| t.name()).collect();
    names.join(", ")
}
