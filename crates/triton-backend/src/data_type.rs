//! Triton's data types, and the Rust types that hold their elements.

use std::fmt;

use half::{bf16, f16};
use triton_rs_sys as sys;

/// The element type of a tensor.
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
