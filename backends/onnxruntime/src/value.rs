//! Converts Triton's tensors to ONNX Runtime's and back.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, Shape, Tensor as OrtTensor, TensorRef};
use smallvec::SmallVec;
use triton_backend::{DataType, Element, Error, Response, Tensor, TensorConfig, with_element};

use crate::PerRun;

/// Builds one input: a value for each run, with the run's rows, in the shape that the graph accepts. Floats point into Triton's buffer if
/// it is one aligned block of host memory; other data is copied. A single run has all rows.
///
/// # Errors
///
/// Returns an error if the tensor cannot be read, or if BYTES are not UTF-8.
pub(crate) fn inputs<'r>(
    tensor: &Tensor<'r>,
    shape: &'r [i64],
    runs: &[Range<usize>],
) -> Result<PerRun<SessionInputValue<'r>>, Error> {
    with_element!(tensor.data_type(), T => numbers::<T>(tensor, shape, runs), else strings(tensor, shape, runs))
}

fn numbers<'r, T>(
    tensor: &Tensor<'r>,
    shape: &'r [i64],
    runs: &[Range<usize>],
) -> Result<PerRun<SessionInputValue<'r>>, Error>
where
    T: Element + PrimitiveTensorElementType + Debug,
{
    let elements = match tensor.as_slice::<T>()? {
        // Integers may be indices into a table. ONNX Runtime checks an index and then reads it again. A client that shares memory with the
        // server could change it in between, so integers are copied.
        Cow::Borrowed(elements) if is_integer(tensor.data_type()) => Cow::Owned(elements.to_vec()),
        elements => elements,
    };
    match (elements, runs) {
        (Cow::Owned(elements), [_]) => {
            let value = OrtTensor::from_array((shape, elements)).map(Into::into);
            Ok(SmallVec::from_iter([taken(tensor, value)?]))
        }
        (Cow::Owned(elements), _) => parts(tensor, shape, &elements, runs, |shape, elements| {
            OrtTensor::from_array((shape, elements.to_vec())).map(Into::into)
        }),
        (Cow::Borrowed(elements), _) => parts(tensor, shape, elements, runs, |shape, elements| {
            TensorRef::from_array_view((shape, elements)).map(Into::into)
        }),
    }
}

fn is_integer(data_type: DataType) -> bool {
    use DataType::{Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    matches!(
        data_type,
        Int8 | Int16 | Int32 | Int64 | Uint8 | Uint16 | Uint32 | Uint64
    )
}

fn strings<'r>(
    tensor: &Tensor<'r>,
    shape: &'r [i64],
    runs: &[Range<usize>],
) -> Result<PerRun<SessionInputValue<'r>>, Error> {
    let strings = tensor.strings()?;
    let elements = (strings.iter().enumerate())
        .map(|(at, bytes)| {
            String::from_utf8(bytes.to_vec()).map_err(|_| {
                Error::invalid_argument(format!(
                    "tensor '{}' element {at} is not UTF-8",
                    tensor.name()
                ))
            })
        })
        .collect::<Result<Vec<String>, Error>>()?;
    parts(tensor, shape, &elements, runs, |shape, elements| {
        OrtTensor::from_string_array((shape, elements)).map(Into::into)
    })
}

/// Builds a value for each run. `value` receives the shape and the elements of the run's rows.
fn parts<'r, 'e, T>(
    tensor: &Tensor<'r>,
    shape: &[i64],
    elements: &'e [T],
    runs: &[Range<usize>],
    value: impl Fn(Shape, &'e [T]) -> ort::Result<SessionInputValue<'r>>,
) -> Result<PerRun<SessionInputValue<'r>>, Error> {
    if let [_] = runs {
        let value = value(shape.into(), elements);
        return Ok(SmallVec::from_iter([taken(tensor, value)?]));
    }
    let width: usize = shape.iter().skip(1).map(|dim| *dim as usize).product();
    let part = |rows: &Range<usize>| {
        let mut shape: Shape = shape.into();
        if let Some(first) = shape.first_mut() {
            *first = rows.len() as i64;
        }
        let part = elements.get(rows.start * width..rows.end * width);
        let part = part.ok_or_else(|| {
            Error::internal(format!(
                "tensor '{}' does not have the rows {rows:?}",
                tensor.name()
            ))
        })?;
        taken(tensor, value(shape, part))
    };
    runs.iter().map(part).collect()
}

fn taken<'r>(
    tensor: &Tensor<'_>,
    value: ort::Result<SessionInputValue<'r>>,
) -> Result<SessionInputValue<'r>, Error> {
    value.map_err(|error| {
        Error::internal(format!(
            "ONNX Runtime does not accept tensor '{}': {error}",
            tensor.name()
        ))
    })
}

/// Copies one output into Triton's buffer, if the client requested it. The rows of the runs follow each other. `shape` replaces the shape
/// that a single run returns.
///
/// # Errors
///
/// Returns an error if an output is not a tensor of the type that config.pbtxt declares. With several runs, each must return as many rows
/// as it received; otherwise this returns an error.
pub(crate) fn output(
    response: &Response<'_>,
    position: usize,
    declared: &TensorConfig,
    shape: Option<&[i64]>,
    (values, runs): (&[DynValue], &[Range<usize>]),
) -> Result<(), Error> {
    let name = &declared.name;
    with_element!(declared.data_type, T => copy::<T>(response, position, name, shape, (values, runs)), else {
        if let [value] = values {
            let (found, elements) = value.try_extract_strings().map_err(|error| odd(name, &error))?;
            return response.write_strings(name, shape.unwrap_or(found), &elements);
        }
        let whole = joined_shape(name, values, runs)?;
        let mut elements = Vec::new();
        for value in values {
            elements.extend(value.try_extract_strings().map_err(|error| odd(name, &error))?.1);
        }
        response.write_strings(name, &whole, &elements)
    })
}

fn copy<T: Element + PrimitiveTensorElementType>(
    response: &Response<'_>,
    position: usize,
    name: &str,
    shape: Option<&[i64]>,
    (values, runs): (&[DynValue], &[Range<usize>]),
) -> Result<(), Error> {
    let extract = |value| extract::<T>(name, value);
    if let [value] = values {
        let (found, elements) = extract(value)?;
        return response.write_at(position, shape.unwrap_or(found), elements);
    }
    let whole = joined_shape(name, values, runs)?;
    let Some(mut left) = response.output_at::<T>(position, &whole)? else {
        return Ok(());
    };
    for value in values {
        let (_, elements) = extract(value)?;
        let Some((place, rest)) = left.split_at_mut_checked(elements.len()) else {
            return Err(Error::internal(format!(
                "output '{name}' of the model has more elements than its shape {whole:?}"
            )));
        };
        place.copy_from_slice(elements);
        left = rest;
    }
    Ok(())
}

fn extract<'v, T: PrimitiveTensorElementType>(
    name: &str,
    value: &'v DynValue,
) -> Result<(&'v [i64], &'v [T]), Error> {
    let found = value.try_extract_tensor::<T>();
    let (shape, elements) = found.map_err(|error| odd(name, &error))?;
    Ok((shape, elements))
}

/// The shape of an output of several runs, with their rows concatenated.
fn joined_shape(name: &str, values: &[DynValue], runs: &[Range<usize>]) -> Result<Vec<i64>, Error> {
    let mut whole: Vec<i64> = Vec::new();
    for (value, run) in values.iter().zip(runs) {
        let shape: &[i64] = value.dtype().tensor_shape().map_or(&[], |shape| shape);
        let (rows, width) = shape.split_first().unzip();
        let width = width.unwrap_or_default();
        let same = whole.is_empty() || whole.get(1..) == Some(width);
        if rows.is_none_or(|rows| *rows as usize != run.len()) || !same {
            return Err(Error::internal(format!(
                "output '{name}' of the model has shape {shape:?} for {} rows; parameter 'rows_per_run' needs a graph \
                 whose outputs have the inputs' rows, and the same other dimensions in each run",
                run.len()
            )));
        }
        match whole.first_mut() {
            Some(total) => *total += run.len() as i64,
            None => whole = shape.to_vec(),
        }
    }
    if values.len() != runs.len() {
        return Err(Error::internal(format!(
            "the model did not return the output '{name}'"
        )));
    }
    Ok(whole)
}

fn odd(name: &str, error: &ort::Error) -> Error {
    Error::internal(format!("output '{name}' of the model: {error}"))
}

/// Writes an output without elements.
///
/// # Errors
///
/// Returns an error if Triton refuses the output.
pub(crate) fn empty(
    response: &Response<'_>,
    position: usize,
    name: &str,
    data_type: DataType,
    shape: &[i64],
) -> Result<(), Error> {
    with_element!(data_type, T => empty_of::<T>(response, position, shape), else {
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
