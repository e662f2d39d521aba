//! Triton's data types, and the Rust types that hold their elements.

use std::fmt;

use half::{bf16, f16};
use triton_rs_sys as sys;

/// The element type of a tensor.
///
/// ```
/// use triton_backend::DataType;
///
/// assert_eq!(DataType::Fp32.size(), Some(4));
/// assert_eq!(DataType::Bytes.config_name(), "TYPE_STRING");
/// assert_eq!(DataType::from_config("TYPE_INT64"), Some(DataType::Int64));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are Triton's")]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    /// Byte strings, each after its length as a little-endian `u32`.
    Bytes,
    Bf16,
}

impl DataType {
    /// Bytes per element; `None` for [`DataType::Bytes`], whose elements vary in length.
    pub fn size(self) -> Option<usize> {
        match self {
            DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
            DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => Some(2),
            DataType::Uint32 | DataType::Int32 | DataType::Fp32 => Some(4),
            DataType::Uint64 | DataType::Int64 | DataType::Fp64 => Some(8),
            DataType::Bytes => None,
        }
    }

    /// The name in requests, such as `INT32`; config.pbtxt adds the prefix `TYPE_`.
    pub fn name(self) -> &'static str {
        match self {
            DataType::Bool => "BOOL",
            DataType::Uint8 => "UINT8",
            DataType::Uint16 => "UINT16",
            DataType::Uint32 => "UINT32",
            DataType::Uint64 => "UINT64",
            DataType::Int8 => "INT8",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::Fp16 => "FP16",
            DataType::Fp32 => "FP32",
            DataType::Fp64 => "FP64",
            DataType::Bytes => "BYTES",
            DataType::Bf16 => "BF16",
        }
    }

    /// The spelling of config.pbtxt: `TYPE_INT32`, and `TYPE_STRING` for [`DataType::Bytes`].
    pub fn config_name(self) -> String {
        match self {
            DataType::Bytes => "TYPE_STRING".to_owned(),
            other => format!("TYPE_{}", other.name()),
        }
    }

    /// Parses the spelling of config.pbtxt: `TYPE_INT32`, and `TYPE_STRING` for [`DataType::Bytes`].
    pub fn from_config(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("TYPE_")? {
            "BOOL" => DataType::Bool,
            "UINT8" => DataType::Uint8,
            "UINT16" => DataType::Uint16,
            "UINT32" => DataType::Uint32,
            "UINT64" => DataType::Uint64,
            "INT8" => DataType::Int8,
            "INT16" => DataType::Int16,
            "INT32" => DataType::Int32,
            "INT64" => DataType::Int64,
            "FP16" => DataType::Fp16,
            "FP32" => DataType::Fp32,
            "FP64" => DataType::Fp64,
            "STRING" => DataType::Bytes,
            "BF16" => DataType::Bf16,
            _ => return None,
        })
    }

    pub(crate) fn to_raw(self) -> sys::TRITONSERVER_DataType {
        match self {
            DataType::Bool => sys::TRITONSERVER_TYPE_BOOL,
            DataType::Uint8 => sys::TRITONSERVER_TYPE_UINT8,
            DataType::Uint16 => sys::TRITONSERVER_TYPE_UINT16,
            DataType::Uint32 => sys::TRITONSERVER_TYPE_UINT32,
            DataType::Uint64 => sys::TRITONSERVER_TYPE_UINT64,
            DataType::Int8 => sys::TRITONSERVER_TYPE_INT8,
            DataType::Int16 => sys::TRITONSERVER_TYPE_INT16,
            DataType::Int32 => sys::TRITONSERVER_TYPE_INT32,
            DataType::Int64 => sys::TRITONSERVER_TYPE_INT64,
            DataType::Fp16 => sys::TRITONSERVER_TYPE_FP16,
            DataType::Fp32 => sys::TRITONSERVER_TYPE_FP32,
            DataType::Fp64 => sys::TRITONSERVER_TYPE_FP64,
            DataType::Bytes => sys::TRITONSERVER_TYPE_BYTES,
            DataType::Bf16 => sys::TRITONSERVER_TYPE_BF16,
        }
    }

    pub(crate) fn from_raw(raw: sys::TRITONSERVER_DataType) -> Option<Self> {
        Some(match raw {
            sys::TRITONSERVER_TYPE_BOOL => DataType::Bool,
            sys::TRITONSERVER_TYPE_UINT8 => DataType::Uint8,
            sys::TRITONSERVER_TYPE_UINT16 => DataType::Uint16,
            sys::TRITONSERVER_TYPE_UINT32 => DataType::Uint32,
            sys::TRITONSERVER_TYPE_UINT64 => DataType::Uint64,
            sys::TRITONSERVER_TYPE_INT8 => DataType::Int8,
            sys::TRITONSERVER_TYPE_INT16 => DataType::Int16,
            sys::TRITONSERVER_TYPE_INT32 => DataType::Int32,
            sys::TRITONSERVER_TYPE_INT64 => DataType::Int64,
            sys::TRITONSERVER_TYPE_FP16 => DataType::Fp16,
            sys::TRITONSERVER_TYPE_FP32 => DataType::Fp32,
            sys::TRITONSERVER_TYPE_FP64 => DataType::Fp64,
            sys::TRITONSERVER_TYPE_BYTES => DataType::Bytes,
            sys::TRITONSERVER_TYPE_BF16 => DataType::Bf16,
            _ => return None,
        })
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that is an element of a tensor.
///
/// The trait is sealed. `f16` and `bf16` are the types of the crate `half`. For BYTES see [`Tensor::strings`](crate::Tensor::strings).
///
/// ```no_run
/// use triton_backend::{DataType, Element, Error, Response, Tensor};
///
/// /// Copies an input to an output of the same shape.
/// fn copy<T: Element>(from: &Tensor<'_>, response: &Response<'_>, to: &str) -> Result<(), Error> {
///     response.write(to, from.shape(), &from.as_slice::<T>()?)
/// }
/// assert_eq!(<i32 as Element>::DATA_TYPE, DataType::Int32);
/// ```
pub trait Element: Copy + Default + Send + Sync + sealed::Sealed + 'static {
    /// The data type whose elements have this representation in memory.
    const DATA_TYPE: DataType;
    /// Whether any bit pattern is a valid value of this type. `bool` accepts only 0 and 1.
    #[doc(hidden)]
    const ANY_BITS: bool = true;
}

macro_rules! elements {
    ($($rust:ty => $data_type:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DATA_TYPE: DataType = DataType::$data_type;
        }
    )*};
}

elements! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Fp16, f32 => Fp32, f64 => Fp64, bf16 => Bf16,
}

impl sealed::Sealed for bool {}
impl Element for bool {
    const DATA_TYPE: DataType = DataType::Bool;
    const ANY_BITS: bool = false;
}

/// Evaluates an expression with the Rust type of a data type that is known at run time only.
///
/// `T => …` is compiled for each type of the table below. BYTES has no such type and evaluates the `else` branch. With a list, `T of [Int32, Fp32]
/// => …`, only the listed types do, and every other one evaluates the `else` branch.
///
/// ```
/// use triton_backend::{DataType, Element, with_element};
///
/// fn zeros<T: Element>(count: usize) -> usize {
///     vec![T::default(); count].len() * size_of::<T>()
/// }
///
/// let bytes = |data_type| with_element!(data_type, T => Some(zeros::<T>(3)), else None);
/// assert_eq!(bytes(DataType::Fp64), Some(24));
/// assert_eq!(bytes(DataType::Bytes), None);
///
/// let whole = |data_type| with_element!(data_type, T of [Int32, Int64] => Some(T::MAX as i64), else None);
/// assert_eq!(whole(DataType::Int32), Some(2_147_483_647));
/// assert_eq!(whole(DataType::Fp32), None);
/// ```
#[macro_export]
macro_rules! with_element {
    (@rust Bool) => { bool };
    (@rust Uint8) => { u8 };
    (@rust Uint16) => { u16 };
    (@rust Uint32) => { u32 };
    (@rust Uint64) => { u64 };
    (@rust Int8) => { i8 };
    (@rust Int16) => { i16 };
    (@rust Int32) => { i32 };
    (@rust Int64) => { i64 };
    (@rust Fp16) => { $crate::__private::half::f16 };
    (@rust Fp32) => { f32 };
    (@rust Fp64) => { f64 };
    (@rust Bf16) => { $crate::__private::half::bf16 };
    ($data_type:expr, $element:ident of [$($name:ident),+ $(,)?] => $body:expr, else $other:expr $(,)?) => {
        match $data_type {
            $($crate::DataType::$name => {
                type $element = $crate::with_element!(@rust $name);
                $body
            })+
            _ => $other,
        }
    };
    ($data_type:expr, $element:ident => $body:expr, else $other:expr $(,)?) => {
        $crate::with_element!(
            $data_type,
            $element of [
                Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64, Bf16,
            ] => $body,
            else $other
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FIXED_SIZE_TYPES;

    #[test]
    fn each_type_has_its_elements() {
        for data_type in FIXED_SIZE_TYPES {
            let found =
                with_element!(*data_type, T => Some((T::DATA_TYPE, size_of::<T>())), else None);
            assert_eq!(found, data_type.size().map(|size| (*data_type, size)));
        }
        let bytes = with_element!(DataType::Bytes, T => Some(T::DATA_TYPE), else None);
        assert_eq!(bytes, None);
    }
}
