//! The operators of a chain, their parameters and the names of what they give.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::parameters::{
    FloatType, Function, Grouping, HashKey, IntType, Properties, Similarity, Statistic,
};

/// A feature operator, with the semantics of NVTabular 23.8 and its parameter defaults unless said otherwise.
///
/// In TOML: `operators = [{ op = "Bucketize", boundaries = [18, 25] }, { op = "Categorify" }]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", deny_unknown_fields)]
pub enum Operator {
    /// Encodes values by a fitted vocabulary: 0 padding, 1 null, then `num_buckets` out-of-vocabulary codes from 2, then the
    /// vocabulary, most frequent value first (ties by value). Integer, string or list column; integer out.
    Categorify {
        /// Values seen fewer times stay out of the vocabulary. 0: all enter. Not together with `max_size`.
        #[serde(default)]
        freq_threshold: u64,
        /// Greatest cardinality, reserved codes included; the least frequent values stay out. 0: no limit.
        #[serde(default)]
        max_size: usize,
        /// Out-of-vocabulary codes; a value's code among them is chosen by its hash.
        #[serde(default = "one")]
        num_buckets: usize,
        /// What several columns share.
        #[serde(default)]
        encode_type: Grouping,
        /// The raw integer that stands for no value (say -1 in a padded candidate list): encoded as 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: Option<i64>,
        /// Element type of the codes (NVTabular's default is int64).
        #[serde(default)]
        dtype: IntType,
        /// What is hashed when `num_buckets` > 1.
        #[serde(default)]
        hash: HashKey,
    },
    /// hash(value) mod `num_buckets`. Integer, float or string; int32 out.
    HashBucket {
        /// Number of buckets, at least 1.
        num_buckets: u32,
        /// What is hashed.
        #[serde(default)]
        hash: HashKey,
    },
    /// The columns' hashes, combined by exclusive or, mod `num_buckets`: one int32 output, named by the columns joined with `_X_`.
    HashedCross {
        /// Number of buckets, at least 1.
        num_buckets: u32,
        /// What is hashed.
        #[serde(default)]
        hash: HashKey,
    },
    /// The number of boundaries ≤ x; NaN and null give the number of boundaries. Numeric; int32 out.
    Bucketize {
        /// Boundaries in ascending order.
        boundaries: Vec<f64>,
    },
    /// ln(x + 1) in float32; -1 gives -inf, less gives NaN. Numeric; float32 out.
    LogOp,
    /// (x - mean) / std with the fitted mean and standard deviation (one delta degree of freedom); x - mean where std is 0. Numeric.
    Normalize {
        /// Element type of the output (NVTabular's default is float64).
        #[serde(default)]
        dtype: FloatType,
    },
    /// (x - min) / (max - min) with the fitted extremes; not clipped; 0.5 where min = max. Numeric.
    NormalizeMinMax {
        /// Element type of the output (NVTabular's default is float64).
        #[serde(default)]
        dtype: FloatType,
    },
    /// Limits x to [`min`, `max`]; NaN stays. Numeric, type kept: bounds for an integer column must be whole.
    Clip {
        /// Least value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<f64>,
        /// Greatest value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<f64>,
    },
    /// Replaces null and NaN by `value`. Numeric, type kept.
    FillMissing {
        /// The replacement; whole for an integer column.
        #[serde(default)]
        value: f64,
        /// Adds a bool column `<column>_filled` that is true where a value was missing.
        #[serde(default)]
        add_binary_cols: bool,
    },
    /// Replaces null and NaN by the fitted median. Numeric, type kept (an integer column takes the median's whole part).
    FillMedian {
        /// Adds a bool column `<column>_filled` that is true where a value was missing.
        #[serde(default)]
        add_binary_cols: bool,
    },
    /// Elements `start..end` of each list, Python slicing; with one positive number, the first that many. List column.
    ListSlice {
        /// First element; negative counts from the end.
        start: i64,
        /// One past the last element; negative counts from the end; absent: to the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end: Option<i64>,
        /// Fills short lists at their end to the slice's greatest length.
        #[serde(default)]
        pad: bool,
        /// What fills them.
        #[serde(default)]
        pad_value: f64,
    },
    /// Records the least and greatest list length in the fitted state; the column passes through. List column.
    ValueCount,
    /// x - (x of the row `shift` rows before), NaN where the partition columns differ or there is no such row. Numeric;
    /// float32 outputs named `<column>_difference_lag_<shift>`.
    DifferenceLag {
        /// Input columns that must be equal in both rows.
        partition: Vec<String>,
        /// Distances in rows; negative looks ahead.
        #[serde(default = "shift_one")]
        shift: Vec<i64>,
    },
    /// Statistics of `columns` over the fitted rows that share the key. Outputs `<key>_count` and `<key>_<column>_<statistic>`; an unseen key
    /// gives count 0 and NaN (NVTabular raises on its count).
    JoinGroupby {
        /// Numeric input columns to aggregate, needed when fitting only.
        #[serde(default)]
        columns: Vec<String>,
        /// The statistics.
        #[serde(default = "count")]
        stats: Vec<Statistic>,
        /// Keys: each column by itself, or the combination of all.
        #[serde(default)]
        group: Grouping,
    },
    /// (Σ target + p_smooth · mean) / (count + p_smooth) over the fitted rows that share the key; an unseen key gives the mean.
    /// float32 outputs named `TE_<key>_<target>`.
    TargetEncoding {
        /// Numeric input column, needed when fitting only.
        target: String,
        /// Weight of the overall mean, in rows.
        #[serde(default = "twenty")]
        p_smooth: f64,
        /// Keys: each column by itself, or the combination of all.
        #[serde(default)]
        group: Grouping,
        /// Folds (NVTabular's default is 3): with more than 1, the rows that it was fitted on can be encoded by the other folds' targets alone
        /// ([`OutOfFold`](crate::OutOfFold)). All other rows are encoded by all targets.
        #[serde(default = "one_fold", skip_serializing_if = "is_one_fold")]
        kfold: u32,
        /// Seed of the draw of each row's fold. Null: rows take the folds in turn.
        #[serde(default = "fold_seed", skip_serializing_if = "is_fold_seed")]
        fold_seed: Option<u32>,
    },
    /// Compares two id columns by the features of what they name: the inner product of row `x` of the left matrix and row `y` of the
    /// right one. Two integer columns; one output named `<left>_<right>_sim`. An id without a row gives 0, a null NaN.
    ColumnSimilarity {
        /// Parquet file of the left matrix, an entry a row: columns `row`, `column`, `value`. A saved workflow keeps a copy.
        left: PathBuf,
        /// That of the right matrix; absent: the left one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        right: Option<PathBuf>,
        /// How rows are compared.
        #[serde(default)]
        metric: Similarity,
        /// Element type of the output (NVTabular's is float64).
        #[serde(default)]
        dtype: FloatType,
    },
    /// Drops the columns of codes whose greatest code is less than `min_cardinality`; all others stay.
    DropLowCardinality {
        /// The least greatest code that stays.
        #[serde(default = "four")]
        min_cardinality: usize,
    },
    /// Gives numbers the smallest type that holds the fitted range, int8 to int64, and floats float32. Values beyond the range become
    /// the nearest end of the type. Served as int32, int64 or float32.
    ReduceDtypeSize,
    /// Records range, mean, deviation, cardinality and share of missing values in the fitted state; the columns pass through.
    DataStats,
    /// Tells readers of the workflow something about the columns, which pass through.
    AddMetadata {
        /// Tags such as `user`, `item`, `id`, `context`, `target`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<String>,
        /// Properties by name.
        #[serde(default, skip_serializing_if = "Properties::is_empty")]
        properties: Properties,
    },
    /// AddMetadata with tags alone.
    AddTags {
        /// The tags.
        tags: Vec<String>,
    },
    /// AddMetadata with properties alone.
    AddProperties {
        /// Properties by name.
        properties: Properties,
    },
    /// AddMetadata with the tags `id` and `user`.
    TagAsUserID,
    /// AddMetadata with the tags `id` and `item`.
    TagAsItemID,
    /// AddMetadata with the tag `user`.
    TagAsUserFeatures,
    /// AddMetadata with the tag `item`.
    TagAsItemFeatures,
    /// Renames the chain's columns: to `name` (one column) or by adding `postfix`.
    Rename {
        /// The new name of a single column.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Text to add to every name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        postfix: Option<String>,
    },
    /// Keeps these of the chain's columns, in this order.
    Select {
        /// Names of columns that the operator before it gives.
        columns: Vec<String>,
    },
    /// A named function: `{ op = "LambdaOp", function = "sine", period = 24 }`.
    LambdaOp(Function),
}

/// A bound that keeps a slip of the keyboard from filling the memory with tables.
const MOST_FOLDS: u32 = 1 << 16;

fn one() -> usize {
    1
}

fn twenty() -> f64 {
    20.0
}

fn one_fold() -> u32 {
    1
}

fn is_one_fold(kfold: &u32) -> bool {
    *kfold == 1
}

fn fold_seed() -> Option<u32> {
    Some(42)
}

fn is_fold_seed(seed: &Option<u32>) -> bool {
    *seed == fold_seed()
}

fn four() -> usize {
    4
}

fn shift_one() -> Vec<i64> {
    vec![1]
}

fn count() -> Vec<Statistic> {
    vec![Statistic::Count]
}

impl Operator {
    /// Categorify with every parameter at its default.
    pub fn categorify() -> Self {
        Self::Categorify {
            freq_threshold: 0,
            max_size: 0,
            num_buckets: 1,
            encode_type: Grouping::Separate,
            padding: None,
            dtype: IntType::Int32,
            hash: HashKey::Value,
        }
    }

    /// The operator's name in definitions and error messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Categorify { .. } => "Categorify",
            Self::HashBucket { .. } => "HashBucket",
            Self::HashedCross { .. } => "HashedCross",
            Self::Bucketize { .. } => "Bucketize",
            Self::LogOp => "LogOp",
            Self::Normalize { .. } => "Normalize",
            Self::NormalizeMinMax { .. } => "NormalizeMinMax",
            Self::Clip { .. } => "Clip",
            Self::FillMissing { .. } => "FillMissing",
            Self::FillMedian { .. } => "FillMedian",
            Self::ListSlice { .. } => "ListSlice",
            Self::ValueCount => "ValueCount",
            Self::DifferenceLag { .. } => "DifferenceLag",
            Self::JoinGroupby { .. } => "JoinGroupby",
            Self::TargetEncoding { .. } => "TargetEncoding",
            Self::ColumnSimilarity { .. } => "ColumnSimilarity",
            Self::DropLowCardinality { .. } => "DropLowCardinality",
            Self::ReduceDtypeSize => "ReduceDtypeSize",
            Self::DataStats => "DataStats",
            Self::AddMetadata { .. } => "AddMetadata",
            Self::AddTags { .. } => "AddTags",
            Self::AddProperties { .. } => "AddProperties",
            Self::TagAsUserID => "TagAsUserID",
            Self::TagAsItemID => "TagAsItemID",
            Self::TagAsUserFeatures => "TagAsUserFeatures",
            Self::TagAsItemFeatures => "TagAsItemFeatures",
            Self::Rename { .. } => "Rename",
            Self::Select { .. } => "Select",
            Self::LambdaOp(_) => "LambdaOp",
        }
    }

    #[cfg(feature = "tables")]
    /// Whether it only tells something about its columns.
    pub(crate) fn is_metadata(&self) -> bool {
        matches!(
            self,
            Self::AddMetadata { .. }
                | Self::AddTags { .. }
                | Self::AddProperties { .. }
                | Self::TagAsUserID
                | Self::TagAsItemID
                | Self::TagAsUserFeatures
                | Self::TagAsItemFeatures
        )
    }

    /// The tags and properties that it gives its columns.
    pub(crate) fn metadata(&self) -> (Vec<String>, Properties) {
        let tags = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect();
        match self {
            Self::AddMetadata { tags, properties } => (tags.clone(), properties.clone()),
            Self::AddTags { tags } => (tags.clone(), Properties::new()),
            Self::AddProperties { properties } => (Vec::new(), properties.clone()),
            Self::TagAsUserID => (tags(&["id", "user"]), Properties::new()),
            Self::TagAsItemID => (tags(&["id", "item"]), Properties::new()),
            Self::TagAsUserFeatures => (tags(&["user"]), Properties::new()),
            Self::TagAsItemFeatures => (tags(&["item"]), Properties::new()),
            _ => (Vec::new(), Properties::new()),
        }
    }

    /// The columns this operator gives for the columns it gets; DropLowCardinality may give fewer, by what was fitted.
    pub fn output_names(&self, inputs: &[String]) -> Vec<String> {
        match self {
            Self::Categorify {
                encode_type: Grouping::Combo,
                ..
            } => vec![inputs.join("_")],
            Self::HashedCross { .. } => vec![inputs.join("_X_")],
            Self::FillMissing {
                add_binary_cols: true,
                ..
            }
            | Self::FillMedian {
                add_binary_cols: true,
            } => inputs
                .iter()
                .flat_map(|name| [name.clone(), format!("{name}_filled")])
                .collect(),
            Self::DifferenceLag { shift, .. } => inputs
                .iter()
                .flat_map(|name| {
                    shift
                        .iter()
                        .map(move |shift| format!("{name}_difference_lag_{shift}"))
                })
                .collect(),
            Self::JoinGroupby {
                columns,
                stats,
                group,
            } => group
                .keys(inputs)
                .iter()
                .flat_map(|key| joined_statistics(key, columns, stats))
                .map(|(name, _)| name)
                .collect(),
            Self::TargetEncoding { target, group, .. } => group
                .keys(inputs)
                .iter()
                .map(|key| format!("TE_{key}_{target}"))
                .collect(),
            Self::ColumnSimilarity { .. } => vec![format!("{}_sim", inputs.join("_"))],
            Self::Rename { name, postfix } => match (name, postfix) {
                (Some(name), _) => vec![name.clone()],
                (None, Some(postfix)) => inputs.iter().map(|n| format!("{n}{postfix}")).collect(),
                (None, None) => inputs.to_vec(),
            },
            Self::Select { columns } => columns.clone(),
            _ => inputs.to_vec(),
        }
    }

    pub(super) fn validate(&self, inputs: &[String]) -> Result<(), Error> {
        let column = inputs.join(", ");
        let fail = |accepted: &str| {
            Err(Error::definition(
                &column,
                &format!("{}: {accepted}", self.name()),
            ))
        };
        match self {
            Self::Categorify {
                freq_threshold,
                max_size,
                num_buckets,
                ..
            } => {
                if *num_buckets == 0 {
                    return fail("num_buckets must be at least 1");
                }
                if *freq_threshold > 0 && *max_size > 0 {
                    return fail("freq_threshold and max_size cannot be given together");
                }
                if *max_size > 0 && *max_size < num_buckets + 2 {
                    return fail("max_size must be 0 (no limit) or at least num_buckets + 2");
                }
            }
            Self::HashBucket { num_buckets, .. } | Self::HashedCross { num_buckets, .. }
                if *num_buckets == 0 || *num_buckets > i32::MAX as u32 =>
            {
                return fail("num_buckets must lie in 1..=2147483647");
            }
            Self::Bucketize { boundaries }
                if boundaries.is_empty()
                    || boundaries.iter().any(|b| b.is_nan())
                    || !boundaries.is_sorted() =>
            {
                return fail("boundaries must be numbers in ascending order, at least one");
            }
            Self::Clip {
                min: None,
                max: None,
            } => return fail("give min, max or both"),
            Self::Clip { min, max } => {
                let (min, max) = (
                    min.unwrap_or(f64::NEG_INFINITY),
                    max.unwrap_or(f64::INFINITY),
                );
                if min.is_nan() || max.is_nan() || min > max {
                    return fail("min and max must be numbers, min not greater than max");
                }
            }
            Self::ListSlice {
                start,
                end,
                pad: true,
                ..
            } if list_slice_length(*start, *end).is_none() => {
                return fail("pad needs a slice of limited length: give end, or a negative start");
            }
            Self::DifferenceLag { partition, shift } => {
                if partition.is_empty() {
                    return fail("partition must name at least one input column");
                }
                if shift.is_empty() || shift.contains(&0) {
                    return fail("shift must be one or more distances other than 0");
                }
            }
            Self::JoinGroupby { group, .. } | Self::TargetEncoding { group, .. }
                if *group == Grouping::Joint =>
            {
                return fail("group must be \"separate\" or \"combo\"");
            }
            Self::JoinGroupby { columns, stats, .. } => {
                if stats.is_empty() {
                    return fail("stats must name at least one statistic");
                }
                if columns.is_empty() && stats.iter().any(|s| *s != Statistic::Count) {
                    return fail("columns must name what to aggregate");
                }
            }
            Self::TargetEncoding { p_smooth, .. } if !p_smooth.is_finite() || *p_smooth < 0.0 => {
                return fail("p_smooth must be a number, at least 0");
            }
            Self::TargetEncoding { kfold, .. } if *kfold == 0 || *kfold > MOST_FOLDS => {
                return fail("kfold must lie in 1..=65536");
            }
            Self::ColumnSimilarity { .. } if inputs.len() != 2 => {
                return fail("takes two columns, the left and the right one");
            }
            Self::AddTags { tags } if tags.is_empty() => {
                return fail("tags must name at least one tag");
            }
            Self::Rename { name, postfix } => match (name, postfix) {
                (Some(_), None) if inputs.len() != 1 => {
                    return fail("name renames one column; use postfix for several");
                }
                (Some(_), None) | (None, Some(_)) => {}
                _ => return fail("give either name or postfix"),
            },
            Self::Select { columns } => {
                if let Some(other) = columns.iter().find(|name| !inputs.contains(name)) {
                    return fail(&format!(
                        "'{other}' is missing, accepted are columns of the operator before it"
                    ));
                }
                if columns.is_empty() {
                    return fail("columns must name at least one column");
                }
            }
            Self::LambdaOp(Function::Compare { value, .. }) if !value.is_finite() => {
                return fail("value must be a finite number");
            }
            Self::LambdaOp(Function::Linear { factor, offset })
                if !(factor.is_finite() && offset.is_finite()) =>
            {
                return fail("factor and offset must be finite numbers");
            }
            Self::LambdaOp(Function::Cast { dtype }) if !dtype.is_numeric() => {
                return fail("dtype must be int32, int64, float32 or float64");
            }
            Self::LambdaOp(Function::Sine { period } | Function::Cosine { period })
                if !(period.is_finite() && *period > 0.0) =>
            {
                return fail("period must be greater than 0");
            }
            _ => {}
        }
        Ok(())
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

/// Start and end of a slice in Python's terms: one positive number alone means the first that many.
pub(crate) fn list_slice_bounds(start: i64, end: Option<i64>) -> (i64, i64) {
    match end {
        None if start > 0 => (0, start),
        None => (start, i64::MAX),
        Some(end) => (start, end),
    }
}

/// The greatest length of a slice, where there is one.
pub(crate) fn list_slice_length(start: i64, end: Option<i64>) -> Option<usize> {
    let (start, end) = list_slice_bounds(start, end);
    let length = match (start < 0, end < 0) {
        (true, true) => end.saturating_sub(start),
        (true, false) => start.saturating_neg(),
        (false, false) if end != i64::MAX => end - start,
        _ => return None,
    };
    usize::try_from(length.max(0)).ok()
}
