//! DataStats: what a column's values are like, recorded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tables")]
use super::Fitted;
use super::state::{State, saved_as_is};
#[cfg(feature = "tables")]
use super::transform::GreatestCode;
use super::transform::{Context, OutputKind, Transform};
use crate::column::DType;
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{self, Accumulator, Finished};
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::variable::Variable;

/// Records range, mean, deviation, cardinality and share of missing values in the fitted state; the columns pass through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataStats {}

/// What DataStats is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Statistics by column.
    pub columns: BTreeMap<String, ColumnStatistics>,
}

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

impl State for Statistics {
    saved_as_is!();

    fn lines(&self) -> Vec<String> {
        let lines = self.columns.iter().map(|(column, found)| {
            let number = |x: Option<f64>| x.map_or("none".to_owned(), |x| x.to_string());
            let distinct = found
                .cardinality
                .map_or(String::new(), |n| format!(", {n} distinct"));
            format!(
                "{column}: {} to {}, mean {}, std {}, {} % missing{distinct}",
                number(found.min),
                number(found.max),
                number(found.mean),
                number(found.std),
                found.per_nan
            )
        });
        lines.collect()
    }
}

impl Transform for DataStats {
    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        Ok(columns.to_vec())
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(fit::each_column(
            Vec::new(),
            fit::Statistics::update,
            fitted,
        ))
    }

    #[cfg(feature = "tables")]
    fn greatest_codes(&self, _: &Fitted, columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
        columns
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["DataStats"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each_fitted(|name| {
            let columns = node.entry_of("columns", name)?;
            Ok((Self {}, Statistics { columns }))
        })
    }
}

#[cfg(feature = "tables")]
fn fitted(columns: Vec<(String, fit::Statistics)>, _: &'static str) -> Result<Finished, Error> {
    let columns = (columns.into_iter())
        .map(|(name, statistics)| (name, statistics.finish()))
        .collect();
    Ok(Finished::fitted(Statistics { columns }))
}
