//! Writes a workflow's outputs to Triton's buffers. Used by `feature_transform` and the fused step.

use saker_workflow::{Bound, DType, Plan, Scratch, SliceMut};
use triton_backend::{DataType, Element, Error, Response};

/// Computes an output of the plan in Triton's buffer at this position, if the client requested it. `shape` is the shape of the inputs.
///
/// # Errors
/// Returns an error if Triton refuses the buffer, if the plan does not accept an input, or if it has no such output.
pub fn write(
    plan: &Plan,
    bound: &Bound<'_>,
    output: usize,
    response: &Response<'_>,
    position: usize,
    shape: &[i64],
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let computed = plan.outputs().get(output).ok_or_else(|| {
        Error::internal(format!(
            "the workflow has no output number {output}; it has {}",
            plan.outputs().len()
        ))
    })?;
    let write = match computed.dtype {
        DType::Int32 => typed::<i32>,
        DType::Int64 => typed::<i64>,
        DType::Float32 => typed::<f32>,
        DType::Float64 => typed::<f64>,
        // A plan never returns strings.
        DType::Bool | DType::String => typed::<bool>,
    };
    write(bound, output, position, shape, response, scratch)
}

fn typed<T: Buffer>(
    bound: &Bound<'_>,
    output: usize,
    position: usize,
    shape: &[i64],
    response: &Response<'_>,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    match response.output_at::<T>(position, shape)? {
        Some(buffer) => bound
            .write(output, T::slice(buffer), scratch)
            .map_err(invalid),
        None => Ok(()),
    }
}

/// An element type that a plan writes.
trait Buffer: Element {
    fn slice(buffer: &mut [Self]) -> SliceMut<'_>;
}

macro_rules! buffer {
    ($type:ty, $variant:ident) => {
        impl Buffer for $type {
            fn slice(buffer: &mut [Self]) -> SliceMut<'_> {
                SliceMut::$variant(buffer)
            }
        }
    };
}

buffer!(i32, Int32);
buffer!(i64, Int64);
buffer!(f32, Float32);
buffer!(f64, Float64);
buffer!(bool, Bool);

/// The column type for a tensor of this type.
///
/// # Errors
/// Returns an error if no column has this type.
pub fn dtype(data_type: DataType) -> Result<DType, Error> {
    Ok(match data_type {
        DataType::Int32 => DType::Int32,
        DataType::Int64 => DType::Int64,
        DataType::Fp32 => DType::Float32,
        DataType::Fp64 => DType::Float64,
        DataType::Bool => DType::Bool,
        DataType::Bytes => DType::String,
        other => {
            return Err(Error::invalid_argument(format!(
                "a column of type {other} cannot be transformed"
            )));
        }
    })
}

/// The tensor type for a column of this type.
pub fn triton_type(dtype: DType) -> DataType {
    match dtype {
        DType::Int32 => DataType::Int32,
        DType::Int64 => DataType::Int64,
        DType::Float32 => DataType::Fp32,
        DType::Float64 => DataType::Fp64,
        DType::Bool => DataType::Bool,
        DType::String => DataType::Bytes,
    }
}

/// Converts an error of a workflow. Its cause is the request or the model, so it is an invalid argument.
pub fn invalid(error: saker_workflow::Error) -> Error {
    Error::invalid_argument(error.to_string())
}
