//! Compares config.pbtxt with the graph's inputs and outputs, so that a mismatch fails at load. Completes an incomplete config from the
//! graph.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType};
use serde_json::{Value, json};
use triton_backend::{DataType, Error, ModelConfig, TensorConfig};

/// Checks every tensor of the config.
///
/// # Errors
///
/// Returns an error if a tensor of the config does not exist in the graph, or has another type or an incompatible shape. It also returns an
/// error if the config lacks an input of the graph, or if the graph fixes the batch dimension.
pub(crate) fn check(session: &Session, config: &ModelConfig) -> Result<(), Error> {
    check_side("input", config, config.inputs(), session.inputs())?;
    check_side("output", config, config.outputs(), session.outputs())?;
    for input in session.inputs() {
        if config.input_index(input.name()).is_none() {
            return Err(Error::invalid_argument(format!(
                "the model needs the input '{}', which config.pbtxt does not declare",
                input.name()
            )));
        }
    }
    if config.outputs().is_empty() {
        return Err(Error::invalid_argument(format!(
            "config.pbtxt declares no output; the model has: {}",
            names(session.outputs())
        )));
    }
    Ok(())
}

fn check_side(
    role: &str,
    config: &ModelConfig,
    tensors: &[TensorConfig],
    outlets: &[Outlet],
) -> Result<(), Error> {
    let batched = config.max_batch_size() > 0;
    for tensor in tensors {
        let name = &tensor.name;
        let wrong = |what: String| Err(Error::invalid_argument(format!("{role} '{name}' {what}")));
        let Some(outlet) = outlets.iter().find(|outlet| outlet.name() == name) else {
            return wrong(format!(
                "of config.pbtxt is not in the model; its {role}s: {}",
                names(outlets)
            ));
        };
        let (element, shape) = element_and_shape(role, outlet)?;
        if data_type(element) != Some(tensor.data_type) {
            return wrong(format!(
                "is {} in config.pbtxt, but {element} in the model",
                tensor.data_type
            ));
        }
        let mut declared = tensor.dims.clone();
        if batched {
            declared.insert(0, -1);
        }
        let fits = declared.len() == shape.len()
            && declared
                .iter()
                .zip(shape)
                .all(|(ours, theirs)| ours == theirs || *ours < 0 || *theirs < 0);
        if !fits && !is_declared_scalar(config, tensor, shape) {
            let batch = if batched {
                ", the batch dimension included"
            } else {
                ""
            };
            return wrong(format!(
                "has the shape {declared:?} in config.pbtxt{batch}, but {shape:?} in the model"
            ));
        }
        if batched && !is_open(shape) {
            return wrong(no_batches(config, shape));
        }
    }
    Ok(())
}

/// Whether a tensor is a scalar of the graph. Triton's tensors have at least one dimension, so config.pbtxt declares it as `[ 1 ]`.
pub(crate) fn is_declared_scalar(
    config: &ModelConfig,
    tensor: &TensorConfig,
    shape: &[i64],
) -> bool {
    config.max_batch_size() == 0 && shape.is_empty() && tensor.dims == [1]
}

/// Whether the first dimension accepts any size.
fn is_open(shape: &[i64]) -> bool {
    shape.first().is_some_and(|rows| *rows < 0)
}

fn no_batches(config: &ModelConfig, shape: &[i64]) -> String {
    format!(
        "has the shape {shape:?} in the model, which takes no batches, but max_batch_size is {}; accepted: a first \
         dimension of any size (-1), or max_batch_size 0 with every dimension declared",
        config.max_batch_size()
    )
}

fn declares(config: &ModelConfig, key: &str) -> bool {
    let tensors = config.json().get(key).and_then(Value::as_array);
    tensors.is_some_and(|tensors| !tensors.is_empty())
}

/// Whether the config declares inputs and outputs.
pub(crate) fn is_complete(config: &ModelConfig) -> bool {
    declares(config, "input") && declares(config, "output")
}

/// Completes the config's missing inputs and outputs as NVIDIA's backend does. Tensors come from the graph. If the first dimension of every
/// tensor accepts any size, batches of up to `default_max_batch_size` are allowed.
///
/// # Errors
///
/// Returns an error if a tensor has a type that Triton lacks, or if `max_batch_size` is above 0 for a graph without batches.
pub(crate) fn complete(
    session: &Session,
    config: &ModelConfig,
    default_max_batch_size: usize,
) -> Result<Value, Error> {
    let mut json = config.json().clone();
    let mut max_batch_size = config.max_batch_size();
    match closed(session)? {
        None => {
            if max_batch_size == 0 {
                max_batch_size = default_max_batch_size;
                json.insert("max_batch_size".to_owned(), max_batch_size.into());
            }
            let chosen = |key: &str| json.get(key).is_some_and(|scheduler| !scheduler.is_null());
            if max_batch_size > 1 && !chosen("sequence_batching") && !chosen("dynamic_batching") {
                json.insert("dynamic_batching".to_owned(), json!({}));
            }
        }
        Some((role, name, shape)) if max_batch_size > 0 => {
            return Err(Error::invalid_argument(format!(
                "{role} '{name}' {}",
                no_batches(config, &shape)
            )));
        }
        Some(_) => {}
    }
    for (key, outlets) in [("input", session.inputs()), ("output", session.outputs())] {
        if !declares(config, key) {
            let tensors = outlets
                .iter()
                .map(|outlet| tensor(key, outlet, max_batch_size > 0))
                .collect::<Result<Vec<_>, Error>>()?;
            json.insert(key.to_owned(), tensors.into());
        }
    }
    Ok(json.into())
}

/// A tensor: role, name and shape.
type Closed = (&'static str, String, Vec<i64>);

/// The first tensor whose first dimension is fixed.
fn closed(session: &Session) -> Result<Option<Closed>, Error> {
    for (role, outlets) in [("input", session.inputs()), ("output", session.outputs())] {
        for outlet in outlets {
            let (_, shape) = element_and_shape(role, outlet)?;
            if !is_open(shape) {
                return Ok(Some((role, outlet.name().to_owned(), shape.to_vec())));
            }
        }
    }
    Ok(None)
}

/// A tensor of the graph as config.pbtxt declares it.
fn tensor(role: &str, outlet: &Outlet, batched: bool) -> Result<Value, Error> {
    let name = outlet.name();
    let (element, shape) = element_and_shape(role, outlet)?;
    let data_type = data_type(element).ok_or_else(|| {
        Error::unsupported(format!(
            "{role} '{name}' is {element} in the model, a type that Triton lacks"
        ))
    })?;
    let data_type = data_type.config_name();
    // Triton requires at least one dimension. Without batches it accepts no reshape to a scalar.
    Ok(match (shape, batched) {
        ([_], true) => json!({
            "name": name, "data_type": data_type, "dims": [1], "reshape": { "shape": [] }
        }),
        ([], false) => json!({ "name": name, "data_type": data_type, "dims": [1] }),
        (dims, false) | ([_, dims @ ..], true) => {
            json!({ "name": name, "data_type": data_type, "dims": dims })
        }
        ([], true) => {
            return Err(Error::internal(format!(
                "{role} '{name}' is a scalar in the model, which does not accept batches"
            )));
        }
    })
}

/// A tensor's element type and shape; -1 marks a dimension of any size.
///
/// # Errors
///
/// Returns an error if the graph has a sequence or a map instead of a tensor.
fn element_and_shape<'a>(
    role: &str,
    outlet: &'a Outlet,
) -> Result<(TensorElementType, &'a [i64]), Error> {
    match (outlet.dtype().tensor_type(), outlet.dtype().tensor_shape()) {
        (Some(element), Some(shape)) => Ok((element, shape)),
        _ => Err(Error::invalid_argument(format!(
            "{role} '{}' is {} in the model; accepted: tensors",
            outlet.name(),
            outlet.dtype()
        ))),
    }
}

fn names(outlets: &[Outlet]) -> String {
    let quoted: Vec<String> = outlets.iter().map(|o| format!("'{}'", o.name())).collect();
    quoted.join(", ")
}

/// Triton's type for an ONNX element type; `None` if it does not exist.
fn data_type(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}
