//! DifferenceLag: the difference from an earlier or later row.

use serde::{Deserialize, Serialize};

use super::transform::{Context, OutputKind, Transform};
use crate::column::{Column, Slice};
use crate::error::Error;
use crate::kernels;
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::variable::{Variable, by_number};

/// x - (x of the row `shift` rows before), NaN where the partition columns differ or there is no such row. Numeric;
/// float32 outputs named `<column>_difference_lag_<shift>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferenceLag {
    /// Input columns that must be equal in both rows.
    pub partition: Vec<String>,
    /// Distances in rows; negative looks ahead.
    #[serde(default = "shift_one")]
    pub shift: Vec<i64>,
}

fn shift_one() -> Vec<i64> {
    vec![1]
}

impl Transform for DifferenceLag {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        if self.partition.is_empty() {
            return Err("partition must name at least one input column".to_owned());
        }
        if self.shift.is_empty() || self.shift.contains(&0) {
            return Err("shift must be one or more distances other than 0".to_owned());
        }
        Ok(())
    }

    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        let names = inputs.iter();
        names
            .flat_map(|name| self.shift.iter().map(|&shift| output_name(name, shift)))
            .collect()
    }

    fn of_row_alone(&self) -> bool {
        false
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Numbers
    }

    fn reads(&self) -> &[String] {
        &self.partition
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let partition = self.partition.iter().map(|name| (context.input)(name));
        let partition = partition.collect::<Result<Vec<_>, _>>()?;
        partition.iter().try_for_each(Variable::scalar)?;
        let mut differences = Vec::new();
        for column in columns {
            let column = column.number()?;
            column.scalar()?;
            for &shift in &self.shift {
                differences.push(difference(&column, &partition, shift)?);
            }
        }
        Ok(differences)
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["DifferenceLag"]
    }

    #[cfg(feature = "tables")]
    fn nvtabular_reads_input() -> bool {
        true
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each(|_| {
            Ok(Self {
                partition: node.param("partition_cols")?,
                shift: node.param("shifts")?,
            })
        })
    }
}

fn output_name(column: &str, shift: i64) -> String {
    format!("{column}_difference_lag_{shift}")
}

fn difference(column: &Variable, partition: &[Variable], shift: i64) -> Result<Variable, Error> {
    let name = output_name(&column.name, shift);
    let columns = std::iter::once(column).chain(partition);
    Ok(by_number!(column, T => {
        Variable::of(name, false, columns, move |arguments, output, _| {
            kernels::difference_lag(arguments.values::<T>(0), shift, output);
            for partition in arguments.all().skip(1) {
                mark_boundaries(partition, shift, output);
            }
            mark_nulls(arguments.get(0), shift, output);
        })
    }))
}

/// NaN where a partition column differs from the row `shift` before; a missing value differs from everything.
fn mark_boundaries(partition: Column<'_>, shift: i64, output: &mut [f32]) {
    let rows = output.len();
    for (row, out) in output.iter_mut().enumerate() {
        let same = kernels::lagged(row, shift, rows).is_some_and(|other| {
            !partition.is_missing(row)
                && !partition.is_missing(other)
                && match partition.values {
                    Slice::Int32(x) => x.get(row) == x.get(other),
                    Slice::Int64(x) => x.get(row) == x.get(other),
                    Slice::Float32(x) => x.get(row) == x.get(other),
                    Slice::Float64(x) => x.get(row) == x.get(other),
                    Slice::Bool(x) => x.get(row) == x.get(other),
                    Slice::String(x) => x.get(row) == x.get(other),
                }
        });
        if !same {
            *out = f32::NAN;
        }
    }
}

/// A null in the column itself has no difference, on either side.
fn mark_nulls(column: Column<'_>, shift: i64, output: &mut [f32]) {
    if column.valid.is_none() {
        return;
    }
    let rows = output.len();
    for (row, out) in output.iter_mut().enumerate() {
        let other = kernels::lagged(row, shift, rows);
        if column.is_missing(row) || other.is_some_and(|other| column.is_missing(other)) {
            *out = f32::NAN;
        }
    }
}
