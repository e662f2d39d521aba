//! LambdaOp: named functions of one number.

use serde::{Deserialize, Serialize};

#[cfg(feature = "tables")]
use super::Fitted;
use super::transform::{Context, OutputKind, Transform, each};
use crate::column::DType;
use crate::error::Error;
use crate::kernels::{self, Number, TimePart};
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::parameters::{Comparison, TimeUnit};
use crate::variable::{Null, Variable, by_number};

/// A named function: `{ op = "LambdaOp", function = "sine", period = 24 }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LambdaOp {
    /// The function.
    pub function: Function,
}

/// A named function of one number, in place of a Python lambda, which cannot be saved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case", deny_unknown_fields)]
pub enum Function {
    /// Hour of the day in UTC, 0 to 23. Integer or datetime in, int32 out.
    Hour {
        /// The unit of integers since 1970; a datetime column has its own.
        #[serde(default, skip_serializing_if = "TimeUnit::is_second")]
        unit: TimeUnit,
    },
    /// Day of the week in UTC, Monday = 0. Integer or datetime in, int32 out.
    Weekday {
        /// The unit of integers since 1970; a datetime column has its own.
        #[serde(default, skip_serializing_if = "TimeUnit::is_second")]
        unit: TimeUnit,
    },
    /// Day of the month in UTC, 1 to 31. Integer or datetime in, int32 out.
    Day {
        /// The unit of integers since 1970; a datetime column has its own.
        #[serde(default, skip_serializing_if = "TimeUnit::is_second")]
        unit: TimeUnit,
    },
    /// Month of the year in UTC, 1 to 12. Integer or datetime in, int32 out.
    Month {
        /// The unit of integers since 1970; a datetime column has its own.
        #[serde(default, skip_serializing_if = "TimeUnit::is_second")]
        unit: TimeUnit,
    },
    /// Integers since 1970 as a datetime column, as `pandas.to_datetime(x, unit=...)` does. A datetime column stays as it is.
    Datetime {
        /// The unit of the integers.
        #[serde(default, skip_serializing_if = "TimeUnit::is_second")]
        unit: TimeUnit,
    },
    /// sin(2π x / period), computed in float64; float32 out.
    Sine {
        /// The x after which the wave repeats: 24 for hours, 7 for weekdays.
        period: f64,
    },
    /// cos(2π x / period), computed in float64; float32 out.
    Cosine {
        /// The x after which the wave repeats: 24 for hours, 7 for weekdays.
        period: f64,
    },
    /// Whether x compares so with `value`: number in, bool out. A missing value compares with `!=` alone.
    Compare {
        /// The comparison.
        is: Comparison,
        /// The constant, rounded to float32 for a column of float32.
        value: f64,
    },
    /// factor · x + offset. Integers with a whole factor and offset give int64, which wraps around; other numbers give float32.
    Linear {
        /// What x is multiplied by.
        factor: f64,
        /// What is added.
        offset: f64,
    },
    /// x in another type: int32 or int64 of integers and bool, float32 or float64 of any number or bool.
    Cast {
        /// The type.
        dtype: DType,
    },
}

impl Function {
    /// Codes that the function's values need, from 0; none where the values are no codes.
    pub fn cardinality(self) -> Option<usize> {
        match self {
            Self::Hour { .. } => Some(24),
            Self::Weekday { .. } => Some(7),
            // From 1.
            Self::Day { .. } => Some(32),
            Self::Month { .. } => Some(13),
            Self::Compare { .. } => Some(2),
            Self::Datetime { .. }
            | Self::Sine { .. }
            | Self::Cosine { .. }
            | Self::Linear { .. }
            | Self::Cast { .. } => None,
        }
    }
}

impl Transform for LambdaOp {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        let accepted = match self.function {
            Function::Compare { value, .. } if !value.is_finite() => {
                "value must be a finite number"
            }
            Function::Linear { factor, offset } if !(factor.is_finite() && offset.is_finite()) => {
                "factor and offset must be finite numbers"
            }
            Function::Cast { dtype } if !dtype.is_numeric() => {
                "dtype must be int32, int64, float32 or float64"
            }
            Function::Sine { period } | Function::Cosine { period }
                if !(period.is_finite() && period > 0.0) =>
            {
                "period must be greater than 0"
            }
            _ => return Ok(()),
        };
        Err(accepted.to_owned())
    }

    fn of_row_alone(&self) -> bool {
        match self.function {
            Function::Hour { .. }
            | Function::Weekday { .. }
            | Function::Day { .. }
            | Function::Month { .. }
            | Function::Datetime { .. }
            | Function::Sine { .. }
            | Function::Cosine { .. }
            | Function::Compare { .. }
            | Function::Linear { .. }
            | Function::Cast { .. } => true,
        }
    }

    fn kind(&self) -> OutputKind {
        match self.function {
            Function::Hour { .. }
            | Function::Weekday { .. }
            | Function::Day { .. }
            | Function::Month { .. }
            | Function::Compare { .. } => OutputKind::Codes,
            Function::Sine { .. } | Function::Cosine { .. } | Function::Linear { .. } => {
                OutputKind::Numbers
            }
            Function::Datetime { .. } | Function::Cast { .. } => OutputKind::Unchanged,
        }
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        each(columns, |column| {
            let mut output = self.function.of(column)?;
            output.cardinality = self.function.cardinality();
            Ok(output)
        })
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["LambdaOp", "UDF"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        let functions: Option<Vec<Function>> = node.param("functions")?;
        let Some(functions) = functions else {
            return Err(node.fail(&format!(
                "{} is a Python function, which cannot be read. The functions that there are: {FUNCTIONS}. \
                 scripts/export-nvtabular recognises them by what they compute",
                node.callable()
            )));
        };
        let operators: Vec<_> = functions
            .into_iter()
            .map(|function| (Self { function }.into(), Fitted::Nothing))
            .collect();
        let parts = node.names.iter().map(|name| Part {
            names: vec![name.clone()],
            operators: operators.clone(),
        });
        Ok(parts.collect())
    }
}

/// The functions with their parameters, for an error message.
#[cfg(feature = "tables")]
const FUNCTIONS: &str = "hour, weekday, day and month (unit), datetime (unit), sine (period), cosine (period), compare (is, value), linear (factor, offset), \
     cast (dtype)";

/// Up to here float64 holds every integer.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

impl Function {
    /// The function of a column.
    fn of(self, column: &Variable) -> Result<Variable, Error> {
        match self {
            Self::Hour { unit } => part_of_time(column, TimePart::Hour, unit),
            Self::Weekday { unit } => part_of_time(column, TimePart::Weekday, unit),
            Self::Day { unit } => part_of_time(column, TimePart::Day, unit),
            Self::Month { unit } => part_of_time(column, TimePart::Month, unit),
            Self::Datetime { unit } => datetime(column, unit),
            Self::Sine { period } => sine(column, period),
            Self::Cosine { period } => cosine(column, period),
            Self::Compare { is, value } => compare(column, is, value),
            Self::Linear { factor, offset } => linear(column, factor, offset),
            Self::Cast { dtype } => cast(column, dtype),
        }
    }
}

fn part_of_time(column: &Variable, part: TimePart, unit: TimeUnit) -> Result<Variable, Error> {
    let accepted = "int32 or int64 (time since 1970), or datetime";
    let unit = column.datetime.unwrap_or(unit);
    Ok(match column.dtype {
        DType::Int32 => column.map(Null::Stays, move |x: &[i32], output| {
            kernels::time_part(x, part, unit, output);
        }),
        DType::Int64 => column.map(Null::Stays, move |x: &[i64], output| {
            kernels::time_part(x, part, unit, output);
        }),
        _ => return Err(Error::types(&column.name, column.type_name(), accepted)),
    })
}

fn datetime(column: &Variable, unit: TimeUnit) -> Result<Variable, Error> {
    if column.datetime.is_some() {
        return Ok(column.clone());
    }
    column.require(
        column.dtype.is_integer(),
        "int32 or int64 (time since 1970)",
    )?;
    let mut datetime = to_int64(column);
    datetime.datetime = Some(unit);
    Ok(datetime)
}

fn sine(column: &Variable, period: f64) -> Result<Variable, Error> {
    let column = column.number()?;
    Ok(
        by_number!(column, T => column.map(Null::Becomes(f32::NAN), move |x: &[T], output| {
            kernels::sine(x, period, output);
        })),
    )
}

fn cosine(column: &Variable, period: f64) -> Result<Variable, Error> {
    let column = column.number()?;
    Ok(
        by_number!(column, T => column.map(Null::Becomes(f32::NAN), move |x: &[T], output| {
            kernels::cosine(x, period, output);
        })),
    )
}

fn compare(column: &Variable, is: Comparison, value: f64) -> Result<Variable, Error> {
    let column = column.number()?;
    let null = Null::Becomes(is.meets(None));
    Ok(match column.dtype {
        // The constant is rounded as NumPy rounds it for such a column.
        DType::Float32 => {
            let value = value as f32;
            column.convert(null, move |x: f32| is.meets(x.partial_cmp(&value)))
        }
        DType::Float64 => column.convert(null, move |x: f64| is.meets(x.partial_cmp(&value))),
        DType::Int32 => column.convert(null, move |x: i32| {
            is.meets(f64::from(x).partial_cmp(&value))
        }),
        DType::Int64 => column.convert(null, move |x: i64| is.meets(kernels::order(x, value))),
        DType::Bool | DType::String => return Err(column.no_number()),
    })
}

fn linear(column: &Variable, factor: f64, offset: f64) -> Result<Variable, Error> {
    let column = column.number()?;
    let whole = |x: f64| x.fract() == 0.0 && x.abs() <= LARGEST_WHOLE;
    if column.dtype.is_integer() && whole(factor) && whole(offset) {
        let (factor, offset) = (factor as i64, offset as i64);
        let linear = move |x: i64| x.wrapping_mul(factor).wrapping_add(offset);
        return Ok(match column.dtype {
            DType::Int32 => column.convert(Null::Stays, move |x: i32| linear(x.into())),
            _ => column.convert(Null::Stays, linear),
        });
    }
    Ok(by_number!(column, T => {
        column.convert(Null::Becomes(f32::NAN), move |x: T| (x.to_f64() * factor + offset) as f32)
    }))
}

fn cast(column: &Variable, dtype: DType) -> Result<Variable, Error> {
    column.require(column.datetime.is_none(), "a number or bool")?;
    let exact = column.dtype.is_integer() || column.dtype == DType::Bool;
    column.require(
        exact || (dtype.is_float() && column.dtype.is_numeric()),
        if dtype.is_float() {
            "a number or bool"
        } else {
            "int32, int64 or bool, which keep their value as an integer"
        },
    )?;
    let column = column.as_number();
    Ok(match dtype {
        DType::Int32 => match column.dtype {
            // As NumPy does, beyond the range too.
            DType::Int64 => column.convert(Null::Stays, |x: i64| x as i32),
            _ => column.convert(Null::Stays, |x: i32| x),
        },
        DType::Int64 => to_int64(&column),
        DType::Float32 => {
            by_number!(column, T => column.convert(Null::Becomes(f32::NAN), |x: T| x.to_f32()))
        }
        DType::Float64 => {
            by_number!(column, T => column.convert(Null::Becomes(f64::NAN), |x: T| x.to_f64()))
        }
        DType::Bool | DType::String => return Err(column.no_number()),
    })
}

/// A column of integers in int64.
fn to_int64(column: &Variable) -> Variable {
    match column.dtype {
        DType::Int32 => column.convert(Null::Stays, |x: i32| i64::from(x)),
        _ => column.convert(Null::Stays, |x: i64| x),
    }
}
