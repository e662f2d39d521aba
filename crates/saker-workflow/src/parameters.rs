//! What operators are told: the types of their parameters.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::column::DType;

/// What is known of a column beside its values, by name.
pub type Properties = BTreeMap<String, serde_json::Value>;

/// How the rows of two feature matrices are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// Cosine of the rows weighted by inverse document frequency, ln(rows / entries of the column): the default.
    #[default]
    Tfidf,
    /// Cosine of the rows.
    Cosine,
    /// Inner product of the rows.
    Inner,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Equal.
    #[serde(rename = "==")]
    Equal,
    /// Not equal, or missing.
    #[serde(rename = "!=")]
    NotEqual,
    /// Less.
    #[serde(rename = "<")]
    Less,
    /// Less or equal.
    #[serde(rename = "<=")]
    LessOrEqual,
    /// Greater.
    #[serde(rename = ">")]
    Greater,
    /// Greater or equal.
    #[serde(rename = ">=")]
    GreaterOrEqual,
}

impl Comparison {
    /// Whether a value in this order to the constant meets the comparison; `None` stands for a missing value.
    pub(crate) fn meets(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

/// How an operator with several columns forms its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Each column by itself.
    #[default]
    Separate,
    /// Each column gives one output, all share one vocabulary named by the columns joined with `_`. Categorify only.
    Joint,
    /// The combination of the columns' values is the key; one output named by the columns joined with `_`.
    Combo,
}

/// What is hashed to choose a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The value alone, so that a value has one bucket wherever it stands: the default.
    #[default]
    Value,
    /// The value and its row number, as NVTabular 23.8 does on pandas, where a value's bucket depends on the row it
    /// stands in. Only for reproducing its output.
    ValueAndRow,
}

/// Element type of a floating-point output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FloatType {
    /// 32 bits: the default.
    #[default]
    #[serde(rename = "float32")]
    Float32,
    /// 64 bits.
    #[serde(rename = "float64")]
    Float64,
}

/// Element type of an integer output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IntType {
    /// 32 bits: the default.
    #[default]
    #[serde(rename = "int32")]
    Int32,
    /// 64 bits.
    #[serde(rename = "int64")]
    Int64,
}

/// A statistic of a group's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Rows of the group; int32. The same whatever the value column, so it is given once.
    Count,
    /// Sum of the group's values; float32 for a float32 column, otherwise float64.
    Sum,
    /// Mean; float32.
    Mean,
    /// Standard deviation with one delta degree of freedom; float32; NaN in a group of one row.
    Std,
    /// Variance with one delta degree of freedom; float32; NaN in a group of one row.
    Var,
    /// Least value; type as the sum's.
    Min,
    /// Greatest value; type as the sum's.
    Max,
}

impl Statistic {
    /// The name in a column such as `click_price_mean`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Std => "std",
            Self::Var => "var",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// A named function of one number, in place of a Python lambda, which cannot be saved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case")]
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

/// The unit of an integer that counts time since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds: the default.
    #[default]
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    fn is_second(&self) -> bool {
        *self == Self::S
    }
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

impl Grouping {
    /// The keys formed from these columns, by name.
    pub(crate) fn keys(self, columns: &[String]) -> Vec<String> {
        match self {
            Self::Separate => columns.to_vec(),
            Self::Joint | Self::Combo => vec![columns.join("_")],
        }
    }
}
