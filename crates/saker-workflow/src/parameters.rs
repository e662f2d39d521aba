//! What operators are told: the types of their parameters.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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

impl FloatType {
    /// The name in definitions, and NumPy's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }
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
    pub(crate) fn is_second(&self) -> bool {
        *self == Self::S
    }
}

impl Grouping {
    /// What forms one key of columns of these names.
    #[cfg(feature = "tables")]
    pub(crate) fn of(names: &[String]) -> Self {
        match names.len() {
            0 | 1 => Self::Separate,
            _ => Self::Combo,
        }
    }

    /// The keys formed from these columns, by name.
    pub(crate) fn keys(self, columns: &[String]) -> Vec<String> {
        match self {
            Self::Separate => columns.to_vec(),
            Self::Joint | Self::Combo => vec![columns.join("_")],
        }
    }
}

/// The output columns of JoinGroupby for one key: name, and the aggregated column (none for the count) with its statistic.
pub(crate) fn joined_statistics(
    key: &str,
    columns: &[String],
    stats: &[Statistic],
) -> Vec<(String, (Option<usize>, Statistic))> {
    let mut outputs = Vec::new();
    if stats.contains(&Statistic::Count) {
        outputs.push((format!("{key}_count"), (None, Statistic::Count)));
    }
    for (index, column) in columns.iter().enumerate() {
        for &statistic in stats.iter().filter(|s| **s != Statistic::Count) {
            outputs.push((
                format!("{key}_{column}_{}", statistic.name()),
                (Some(index), statistic),
            ));
        }
    }
    outputs
}
