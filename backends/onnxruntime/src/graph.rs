//! Holds config.pbtxt against the graph's own inputs and outputs, so that a mismatch shows at load.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType};
use triton_backend::{DataType, Error, ModelConfig, TensorConfig};

/// Checks every tensor of the config.
///
/// # Errors
///
/// A name the graph does not have, another type, a shape that cannot fit; an input of the graph that the config leaves
/// out.
pub(crate) fn check(session: &Session, config: &ModelConfig) -> Result<(), Error> {
    let batched = config.max_batch_size() > 0;
    check_side("input", config.inputs(), session.inputs(), batched)?;
    check_side("output", config.outputs(), session.outputs(), batched)?;
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
    tensors: &[TensorConfig],
    outlets: &[Outlet],
    batched: bool,
) -> Result<(), Error> {
    for tensor in tensors {
        let name = &tensor.name;
        let wrong = |what: String| Err(Error::invalid_argument(format!("{role} '{name}' {what}")));
        let Some(outlet) = outlets.iter().find(|outlet| outlet.name() == name) else {
            return wrong(format!(
                "of config.pbtxt is not in the model; its {role}s: {}",
                names(outlets)
            ));
        };
        let (Some(element), Some(shape)) =
            (outlet.dtype().tensor_type(), outlet.dtype().tensor_shape())
        else {
            return wrong(format!(
                "is {} in the model; accepted: tensors",
                outlet.dtype()
            ));
        };
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
                .zip(shape.iter())
                .all(|(ours, theirs)| ours == theirs || *ours < 0 || *theirs < 0);
        if !fits {
            let batch = if batched {
                ", the batch dimension included"
            } else {
                ""
            };
            return wrong(format!(
                "has the shape {declared:?} in config.pbtxt{batch}, but {:?} in the model",
                &shape[..]
            ));
        }
    }
    Ok(())
}

fn names(outlets: &[Outlet]) -> String {
    let quoted: Vec<String> = outlets.iter().map(|o| format!("'{}'", o.name())).collect();
    quoted.join(", ")
}

/// Triton's type of an ONNX element type, `None` where it has none.
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
