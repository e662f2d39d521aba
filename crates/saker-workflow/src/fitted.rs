//! What fitting leaves for each operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::column::DType;
use crate::similarity::Features;
use crate::vocabulary::{GroupTable, Vocabulary};

/// What DataStats records of a column. Texts count by their number of characters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnStatistics {
    /// Element type.
    pub dtype: DType,
    /// Least value; none of no values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Standard deviation with one delta degree of freedom; none of fewer than two values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Missing values, percent of the rows.
    pub per_nan: f64,
    /// Number of distinct values, of columns other than floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cardinality: Option<u64>,
}

/// An operator's fitted state, by the names of the columns it gets.
#[derive(Debug, Clone, Default)]
pub enum Fitted {
    /// The operator has nothing to fit.
    #[default]
    Nothing,
    /// Normalize.
    Moments {
        /// Mean by column.
        means: BTreeMap<String, f64>,
        /// Standard deviation by column, one delta degree of freedom; 0 for a constant column or a single row.
        stds: BTreeMap<String, f64>,
    },
    /// NormalizeMinMax.
    Extremes {
        /// Least value by column.
        mins: BTreeMap<String, f64>,
        /// Greatest value by column.
        maxs: BTreeMap<String, f64>,
    },
    /// FillMedian.
    Medians {
        /// Median by column.
        medians: BTreeMap<String, f64>,
    },
    /// ValueCount.
    Lengths {
        /// Least and greatest list length by column.
        lengths: BTreeMap<String, (usize, usize)>,
    },
    /// Categorify: one vocabulary a key.
    Vocabularies(Vec<Arc<Vocabulary>>),
    /// JoinGroupby: one table a key.
    Groups(Vec<Arc<GroupTable>>),
    /// TargetEncoding: one table a key, and the target's mean.
    Target {
        /// Counts and sums by key.
        tables: Vec<Arc<GroupTable>>,
        /// The target's mean over all rows.
        mean: f64,
        /// With `kfold`: counts and sums by fold (column `__fold__`) and key, in the order of `tables`.
        folds: Vec<Arc<GroupTable>>,
    },
    /// ReduceDtypeSize.
    Ranges {
        /// Least and greatest value by column; none of columns without values.
        ranges: BTreeMap<String, (f64, f64)>,
    },
    /// DataStats.
    Statistics {
        /// Statistics by column.
        columns: BTreeMap<String, ColumnStatistics>,
    },
    /// DropLowCardinality.
    Columns {
        /// The columns that stay.
        kept: Vec<String>,
    },
    /// ColumnSimilarity: the left and the right matrix.
    Similarity(Arc<Features>, Arc<Features>),
    /// JoinExternal: the chosen columns of the other table.
    #[cfg(feature = "tables")]
    External(Arc<arrow::record_batch::RecordBatch>),
}
