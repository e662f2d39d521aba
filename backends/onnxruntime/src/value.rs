//! Triton's tensors as ONNX Runtime's and back.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorRef};
use triton_backend::{DataType, Element, Error, Response, Tensor};

/// Calls a generic function with the Rust type of a Triton type; BYTES has none.
macro_rules! with_element {
    ($data_type:expr, $function:ident ( $($argument:expr),* ), else $bytes:expr) => {
        match $data_type {
            DataType::Bool => $function::<bool>($($argument),*),
            DataType::Uint8 => $function::<u8>($($argument),*),
            DataType::Uint16 => $function::<u16>($($argument),*),
            DataType::Uint32 => $function::<u32>($($argument),*),
            DataType::Uint64 => $function::<u64>($($argument),*),
            DataType::Int8 => $function::<i8>($($argument),*),
            DataType::Int16 => $function::<i16>($($argument),*),
            DataType::Int32 => $function::<i32>($($argument),*),
            DataType::Int64 => $function::<i64>($($argument),*),
            DataType::Fp16 => $function::<f16>($($argument),*),
            DataType::Fp32 => $function::<f32>($($argument),*),
            DataType::Fp64 => $function::<f64>($($argument),*),
            DataType::Bf16 => $function::<bf16>($($argument),*),
            DataType::Bytes => $bytes,
        }
    };
}

/// One input for a run. It points into Triton's buffer where that is one aligned piece of host memory.
///
/// # Errors
///
/// What cannot be read, and BYTES that are not UTF-8.
pub(crate) fn input<'r>(tensor: &Tensor<'r>) -> Result<SessionInputValue<'r>, Error> {
    with_element!(tensor.data_type(), borrow(tensor), else strings(tensor))
}

fn borrow<'r, T>(tensor: &Tensor<'r>) -> Result<SessionInputValue<'r>, Error>
where
    T: Element + PrimitiveTensorElementType + Debug,
{
    let shape = tensor.shape();
    match tensor.as_slice::<T>()? {
        Cow::Borrowed(elements) => TensorRef::from_array_view((shape, elements)).map(Into::into),
        Cow::Owned(elements) => OrtTensor::from_array((shape, elements)).map(Into::into),
    }
    .map_err(|error| refused(tensor, &error))
}

/// Some rows of an input for a run.
///
/// # Errors
///
/// Returns an error if the tensor cannot be read, is BYTES, or has fewer rows.
pub(crate) fn input_rows<'r>(
    tensor: &Tensor<'r>,
    rows: Range<usize>,
) -> Result<SessionInputValue<'r>, Error> {
    with_element!(tensor.data_type(), borrow_rows(tensor, rows), else {
        Err(Error::unsupported(format!("tensor '{}' is BYTES; parameter 'rows_per_run' needs numbers", tensor.name())))
    })
}

fn borrow_rows<'r, T>(
    tensor: &Tensor<'r>,
    rows: Range<usize>,
) -> Result<SessionInputValue<'r>, Error>
where
    T: Element + PrimitiveTensorElementType + Debug,
{
    let mut shape = tensor.shape().to_vec();
    let width: usize = shape.iter().skip(1).map(|dim| *dim as usize).product();
    if let Some(first) = shape.first_mut() {
        *first = rows.len() as i64;
    }
    let elements = rows.start * width..rows.end * width;
    let short = || {
        Error::invalid_argument(format!(
            "tensor '{}' has shape {:?}; accepted: as many rows as the others, {} at least",
            tensor.name(),
            tensor.shape(),
            rows.end
        ))
    };
    match tensor.as_slice::<T>()? {
        Cow::Borrowed(all) => {
            let all = all.get(elements).ok_or_else(short)?;
            TensorRef::from_array_view((shape, all)).map(Into::into)
        }
        Cow::Owned(all) => {
            let all = all.get(elements).ok_or_else(short)?.to_vec();
            OrtTensor::from_array((shape, all)).map(Into::into)
        }
    }
    .map_err(|error| refused(tensor, &error))
}

fn strings<'r>(tensor: &Tensor<'r>) -> Result<SessionInputValue<'r>, Error> {
    let strings = tensor.strings()?;
    let elements = (0..strings.len())
        .map(|at| {
            let bytes = strings.get(at).unwrap_or_default();
            String::from_utf8(bytes.to_vec()).map_err(|_| {
                Error::invalid_argument(format!(
                    "tensor '{}' element {at} is not UTF-8",
                    tensor.name()
                ))
            })
        })
        .collect::<Result<Vec<String>, Error>>()?;
    OrtTensor::from_string_array((tensor.shape(), &elements[..]))
        .map(Into::into)
        .map_err(|error| refused(tensor, &error))
}

fn refused(tensor: &Tensor<'_>, error: &ort::Error) -> Error {
    Error::internal(format!(
        "ONNX Runtime does not take tensor '{}': {error}",
        tensor.name()
    ))
}

/// Copies one output of a run into Triton's buffer, where the client asked for it.
///
/// # Errors
///
/// An output that is no tensor of the type config.pbtxt declares.
pub(crate) fn output(
    response: &Response<'_>,
    position: usize,
    name: &str,
    data_type: DataType,
    value: &DynValue,
) -> Result<(), Error> {
    with_element!(data_type, copy(response, position, name, value), else {
        let (shape, elements) = value.try_extract_strings().map_err(|error| odd(name, &error))?;
        response.write_strings(name, shape, &elements)
    })
}

fn copy<T: Element + PrimitiveTensorElementType>(
    response: &Response<'_>,
    position: usize,
    name: &str,
    value: &DynValue,
) -> Result<(), Error> {
    let (shape, elements) = value
        .try_extract_tensor::<T>()
        .map_err(|error| odd(name, &error))?;
    response.write_at(position, shape, elements)
}

/// Copies one output of several runs into Triton's buffer, the rows of one run after those of the one before.
///
/// # Errors
///
/// Returns an error if an output is no tensor of the type that config.pbtxt declares, or the runs' shapes differ beyond the rows.
pub(crate) fn joined_output(
    response: &Response<'_>,
    position: usize,
    name: &str,
    data_type: DataType,
    values: &[DynValue],
) -> Result<(), Error> {
    with_element!(data_type, join(response, position, name, values), else {
        Err(Error::unsupported(format!("output '{name}' is BYTES; parameter 'rows_per_run' needs numbers")))
    })
}

fn join<T: Element + PrimitiveTensorElementType>(
    response: &Response<'_>,
    position: usize,
    name: &str,
    values: &[DynValue],
) -> Result<(), Error> {
    let mut parts = Vec::with_capacity(values.len());
    let mut whole: Vec<i64> = Vec::new();
    for value in values {
        let (shape, elements) = value
            .try_extract_tensor::<T>()
            .map_err(|error| odd(name, &error))?;
        match whole.split_first_mut() {
            None => whole = shape.to_vec(),
            Some((rows, width)) if shape.len() == width.len() + 1 && shape[1..] == *width => {
                *rows += shape[0];
            }
            Some(_) => {
                return Err(Error::internal(format!(
                    "output '{name}' of the model has shape {:?} after {whole:?}; accepted with parameter 'rows_per_run': \
                     the same but for the first dimension",
                    &shape[..]
                )));
            }
        }
        parts.push(elements);
    }
    let Some(mut left) = response.output_at::<T>(position, &whole)? else {
        return Ok(());
    };
    for part in parts {
        let Some((place, rest)) = left.split_at_mut_checked(part.len()) else {
            return Err(Error::internal(format!(
                "output '{name}' of the model has more elements than its shape {whole:?}"
            )));
        };
        place.copy_from_slice(part);
        left = rest;
    }
    Ok(())
}

fn odd(name: &str, error: &ort::Error) -> Error {
    Error::internal(format!("output '{name}' of the model: {error}"))
}

/// An output without elements.
///
/// # Errors
///
/// When Triton refuses it.
pub(crate) fn empty(
    response: &Response<'_>,
    position: usize,
    name: &str,
    data_type: DataType,
    shape: &[i64],
) -> Result<(), Error> {
    with_element!(data_type, empty_of(response, position, shape), else {
        response.write_strings::<&str>(name, shape, &[])
    })
}

fn empty_of<T: Element>(
    response: &Response<'_>,
    position: usize,
    shape: &[i64],
) -> Result<(), Error> {
    response.write_at::<T>(position, shape, &[])
}
