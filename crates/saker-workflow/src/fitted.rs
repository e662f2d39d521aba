//! What fitting leaves for each operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::vocabulary::{GroupTable, Vocabulary};

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
    },
}
