//! ReduceDtypeSize: numbers in the smallest type that holds them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::state::{State, saved_as_is};
use super::transform::{Context, OutputKind, Transform, each};
use crate::column::DType;
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{self, Accumulator, Counts, Finished};
#[cfg(feature = "tables")]
use crate::ingest::Ingested;
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::variable::{Null, SmallInt, Variable};

/// Gives numbers the smallest type that holds the fitted range, int8 to int64, and floats float32. Values beyond the range become
/// the nearest end of the type. Served as int32, int64 or float32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReduceDtypeSize {}

/// What ReduceDtypeSize is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// Least and greatest value by column; none of columns without values.
    pub ranges: BTreeMap<String, (f64, f64)>,
}

impl State for Ranges {
    saved_as_is!();

    fn lines(&self) -> Vec<String> {
        (self.ranges.iter())
            .map(|(column, (least, most))| format!("{column}: {least} to {most}"))
            .collect()
    }
}

impl Transform for ReduceDtypeSize {
    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Ranges { ranges } = context.state()?;
        each(columns, |column| {
            Ok(match (column.dtype, ranges.get(&column.name)) {
                (DType::Int32 | DType::Int64, Some(&range)) => reduce(column, range),
                (DType::Float64, _) => column.convert(Null::Becomes(f32::NAN), |x: f64| x as f32),
                _ => column.clone(),
            })
        })
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(fit::each_column(Vec::new(), integers, fitted))
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["ReduceDtypeSize"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each_fitted(|name| {
            let ranges = node.entry_of("ranges", name)?;
            Ok((Self {}, Ranges { ranges }))
        })
    }
}

/// The column in the smallest integer type that holds the range.
fn reduce(column: &Variable, (min, max): (f64, f64)) -> Variable {
    let holds = |least: i64, greatest: i64| min >= least as f64 && max <= greatest as f64;
    let (small, least, greatest) = if holds(i8::MIN.into(), i8::MAX.into()) {
        (Some(SmallInt::Int8), i8::MIN.into(), i8::MAX.into())
    } else if holds(i16::MIN.into(), i16::MAX.into()) {
        (Some(SmallInt::Int16), i16::MIN.into(), i16::MAX.into())
    } else if holds(i32::MIN.into(), i32::MAX.into()) {
        (None, i32::MIN, i32::MAX)
    } else {
        return column.clone();
    };
    // Both bounds are in int32, and so is what lies between them.
    let limit = move |x: i64| x.clamp(least.into(), greatest.into()) as i32;
    let mut reduced = match column.dtype {
        DType::Int32 => column.convert(Null::Stays, move |x: i32| limit(x.into())),
        DType::Int64 => column.convert(Null::Stays, limit),
        DType::Float32 | DType::Float64 | DType::Bool | DType::String => return column.clone(),
    };
    reduced.small = small;
    reduced.cardinality = column.cardinality;
    reduced.vocabulary.clone_from(&column.vocabulary);
    reduced
}

#[cfg(feature = "tables")]
fn integers(
    moments: &mut fit::Moments,
    column: &Ingested,
    counts: Counts<'_>,
) -> Result<(), Error> {
    if column.dtype.is_integer() {
        moments.update(column, counts)?;
    }
    Ok(())
}

#[cfg(feature = "tables")]
fn fitted(columns: Vec<(String, fit::Moments)>, _: &'static str) -> Result<Finished, Error> {
    let ranges = (columns.into_iter())
        .filter(|(_, moments)| moments.count > 0)
        .map(|(name, moments)| (name, (moments.min, moments.max)))
        .collect();
    Ok(Finished::fitted(Ranges { ranges }))
}
