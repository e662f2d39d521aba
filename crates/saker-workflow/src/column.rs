//! Typed columns as borrowed slices: what kernels read and write.

use std::fmt;

/// Element type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit integers.
    Int32,
    /// 64-bit integers.
    Int64,
    /// 32-bit floats; NaN is a missing value.
    Float32,
    /// 64-bit floats; NaN is a missing value.
    Float64,
    /// Truth values.
    Bool,
    /// UTF-8 strings.
    String,
}

impl DType {
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64)
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64)
    }

    pub(crate) fn is_numeric(self) -> bool {
        !matches!(self, Self::Bool | Self::String)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Bool => "bool",
            Self::String => "string",
        })
    }
}

/// What an enum of one slice per element type knows of itself.
macro_rules! typed {
    ($name:ident: $($variant:ident),+) => {
        impl $name<'_> {
            /// Element type.
            pub fn dtype(&self) -> DType {
                match self {
                    $(Self::$variant(_) => DType::$variant,)+
                }
            }

            /// Number of rows.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$variant(values) => values.len(),)+
                }
            }

            /// Whether there are no rows.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

/// A column's values, `[rows]`.
#[derive(Debug, Clone, Copy)]
pub enum Slice<'a> {
    /// 32-bit integers.
    Int32(&'a [i32]),
    /// 64-bit integers.
    Int64(&'a [i64]),
    /// 32-bit floats.
    Float32(&'a [f32]),
    /// 64-bit floats.
    Float64(&'a [f64]),
    /// Truth values.
    Bool(&'a [bool]),
    /// UTF-8 strings.
    String(&'a [&'a [u8]]),
}

typed!(Slice: Int32, Int64, Float32, Float64, Bool, String);

/// Where a column is written, `[rows]`.
#[derive(Debug)]
pub enum SliceMut<'a> {
    /// 32-bit integers.
    Int32(&'a mut [i32]),
    /// 64-bit integers.
    Int64(&'a mut [i64]),
    /// 32-bit floats.
    Float32(&'a mut [f32]),
    /// 64-bit floats.
    Float64(&'a mut [f64]),
    /// Truth values.
    Bool(&'a mut [bool]),
}

typed!(SliceMut: Int32, Int64, Float32, Float64, Bool);

/// Values and, where a column can be null and its type has no NaN, which rows hold one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'a> {
    pub(crate) values: Slice<'a>,
    pub(crate) valid: Option<&'a [bool]>,
}

impl Column<'_> {
    /// Whether a row is not null; NaN counts as a value here.
    #[inline]
    pub(crate) fn is_valid(&self, row: usize) -> bool {
        self.valid
            .is_none_or(|valid| valid.get(row).copied().unwrap_or(false))
    }

    /// Whether a row holds no value: null, or NaN.
    #[inline]
    pub(crate) fn is_missing(&self, row: usize) -> bool {
        match self.values {
            _ if !self.is_valid(row) => true,
            Slice::Float32(x) => x.get(row).is_none_or(|x| x.is_nan()),
            Slice::Float64(x) => x.get(row).is_none_or(|x| x.is_nan()),
            Slice::Int32(_) | Slice::Int64(_) | Slice::Bool(_) | Slice::String(_) => false,
        }
    }

    /// Whether any row may be missing.
    pub(crate) fn may_miss(&self) -> bool {
        self.valid.is_some() || matches!(self.values, Slice::Float32(_) | Slice::Float64(_))
    }

    /// Writes `value` where a row is null.
    pub(crate) fn replace_nulls<T: Copy>(&self, output: &mut [T], value: T) {
        if let Some(valid) = self.valid {
            for (out, &valid) in output.iter_mut().zip(valid) {
                if !valid {
                    *out = value;
                }
            }
        }
    }
}
