//! What a workflow does, as data: chains of operators over named columns.
//!
//! A [`Definition`] is written by people (as TOML in a pipeline definition) or by code, and becomes a
//! `Workflow` by fitting. It holds no fitted numbers.
//!
//! ```
//! use saker_workflow::{Chain, Definition, Operator};
//!
//! let operators: Vec<Operator> = serde_json::from_str(
//!     r#"[{ "op": "Bucketize", "boundaries": [18, 25, 35, 50, 65] }, { "op": "Categorify" }]"#,
//! )?;
//! let definition = Definition::new(vec![Chain::feature("age_binned", "age", operators)]);
//! assert_eq!(definition.output_names()?, ["age_binned"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A workflow's chains. Their outputs, in order, are the workflow's output columns.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The chains, in the order of their outputs.
    pub chains: Vec<Chain>,
}

/// One or more input columns passed through operators, first to last.
///
/// Every operator maps the columns it gets to the columns it gives, as a chain of `>>` does in NVTabular: most keep
/// the names and treat each column by itself, some join their columns into one ([`Operator::HashedCross`]), some add columns
/// ([`Operator::FillMissing`] with a flag).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Names of the input columns.
    pub columns: Vec<String>,
    /// The operators, first to last. None: the columns pass through unchanged.
    #[serde(default)]
    pub operators: Vec<Operator>,
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
    /// Hour of the day, 0 to 23, of Unix seconds in UTC: (t / 3600) mod 24. Integer in, int32 out.
    Hour,
    /// Day of the week, Monday = 0, of Unix seconds in UTC: (t / 86400 + 3) mod 7. Integer in, int32 out.
    Weekday,
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
}

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
    },
    /// Renames the chain's columns: to `name` (one column) or by adding `postfix`.
    Rename {
        /// The new name of a single column.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Text to add to every name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        postfix: Option<String>,
    },
    /// A named function: `{ op = "LambdaOp", function = "sine", period = 24 }`.
    LambdaOp(Function),
}

fn one() -> usize {
    1
}

fn twenty() -> f64 {
    20.0
}

fn shift_one() -> Vec<i64> {
    vec![1]
}

fn count() -> Vec<Statistic> {
    vec![Statistic::Count]
}

impl Definition {
    /// A definition of these chains.
    pub fn new(chains: Vec<Chain>) -> Self {
        Self { chains }
    }

    /// The input columns that serving needs, in order of first use.
    pub fn input_names(&self) -> Vec<&str> {
        self.collect_inputs(false)
    }

    /// The input columns that fitting needs: those of serving and the columns aggregated by JoinGroupby and TargetEncoding.
    pub fn fit_input_names(&self) -> Vec<&str> {
        self.collect_inputs(true)
    }

    fn collect_inputs(&self, fitting: bool) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let mut add = |name| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        for chain in &self.chains {
            chain.columns.iter().for_each(|name| add(name.as_str()));
            for operator in &chain.operators {
                match operator {
                    Operator::DifferenceLag { partition, .. } => {
                        partition.iter().for_each(|name| add(name.as_str()));
                    }
                    Operator::JoinGroupby { columns, .. } if fitting => {
                        columns.iter().for_each(|name| add(name.as_str()));
                    }
                    Operator::TargetEncoding { target, .. } if fitting => add(target.as_str()),
                    _ => {}
                }
            }
        }
        names
    }

    /// The output columns, in order.
    ///
    /// # Errors
    /// As [`Definition::validate`].
    pub fn output_names(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = Vec::new();
        for chain in &self.chains {
            for name in chain.output_names()? {
                if names.contains(&name) {
                    return Err(Error::definition(
                        &name,
                        "two chains give this output column; rename one of them",
                    ));
                }
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Checks every parameter that can be checked without data.
    ///
    /// # Errors
    /// Names the column, the operator and what is accepted.
    pub fn validate(&self) -> Result<(), Error> {
        self.output_names().map(drop)
    }
}

impl Chain {
    /// Columns through operators.
    pub fn new<S: Into<String>>(
        columns: impl IntoIterator<Item = S>,
        operators: Vec<Operator>,
    ) -> Self {
        Self {
            columns: columns.into_iter().map(Into::into).collect(),
            operators,
        }
    }

    /// The chain of one feature: column `source` through `operators` to output `name`. The column is renamed first, so that fitted
    /// numbers and vocabularies carry the feature's name.
    pub fn feature(name: &str, source: &str, operators: Vec<Operator>) -> Self {
        let mut all = Vec::with_capacity(operators.len() + 1);
        if name != source {
            all.push(Operator::Rename {
                name: Some(name.to_owned()),
                postfix: None,
            });
        }
        all.extend(operators);
        Self::new([source], all)
    }

    /// The output columns of this chain, in order.
    ///
    /// # Errors
    /// An operator's parameters are not accepted, or it does not fit the number of columns.
    pub fn output_names(&self) -> Result<Vec<String>, Error> {
        if self.columns.is_empty() {
            return Err(Error::definition("(none)", "a chain names no input column"));
        }
        let mut names = self.columns.clone();
        for operator in &self.operators {
            operator.validate(&names)?;
            names = operator.output_names(&names);
        }
        Ok(names)
    }
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
            Self::Rename { .. } => "Rename",
            Self::LambdaOp(_) => "LambdaOp",
        }
    }

    /// The columns this operator gives for the columns it gets.
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
            Self::Rename { name, postfix } => match (name, postfix) {
                (Some(name), _) => vec![name.clone()],
                (None, Some(postfix)) => inputs.iter().map(|n| format!("{n}{postfix}")).collect(),
                (None, None) => inputs.to_vec(),
            },
            _ => inputs.to_vec(),
        }
    }

    fn validate(&self, inputs: &[String]) -> Result<(), Error> {
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
                    || boundaries.windows(2).any(|pair| pair[0] > pair[1]) =>
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
            Self::Rename { name, postfix } => match (name, postfix) {
                (Some(_), None) if inputs.len() != 1 => {
                    return fail("name renames one column; use postfix for several");
                }
                (Some(_), None) | (None, Some(_)) => {}
                _ => return fail("give either name or postfix"),
            },
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

impl Grouping {
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
