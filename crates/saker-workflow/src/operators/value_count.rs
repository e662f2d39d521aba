//! ValueCount: the lengths of lists, recorded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::state::{State, saved_as_is};
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{self, Accumulator, Counts, Finished};
#[cfg(feature = "tables")]
use crate::ingest::Ingested;
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::variable::Variable;

/// Records the least and greatest list length in the fitted state; the column passes through. List column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueCount {}

/// What ValueCount is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lengths {
    /// Least and greatest list length by column.
    pub lengths: BTreeMap<String, (usize, usize)>,
}

impl State for Lengths {
    saved_as_is!();

    fn lines(&self) -> Vec<String> {
        (self.lengths.iter())
            .map(|(column, (least, most))| format!("{column}: {least} to {most} elements"))
            .collect()
    }
}

impl Transform for ValueCount {
    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    /// NVTabular counts nothing of a column without lists.
    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        Ok(columns.to_vec())
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(fit::each_column(Vec::new(), bounds, fitted))
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["ValueCount"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each_fitted(|name| {
            let lengths = node.entry_of("lengths", name)?;
            Ok((Self {}, Lengths { lengths }))
        })
    }
}

/// Least and greatest length of a column; none of no lists.
#[cfg(feature = "tables")]
type Bounds = Option<(usize, usize)>;

#[cfg(feature = "tables")]
fn bounds(bounds: &mut Bounds, column: &Ingested, _: Counts<'_>) -> Result<(), Error> {
    let Some((offsets, _)) = &column.lists else {
        return Err(Error::types(&column.name, column.dtype, "lists"));
    };
    for length in offsets.lengths() {
        let (least, most) = bounds.unwrap_or((length, length));
        *bounds = Some((least.min(length), most.max(length)));
    }
    Ok(())
}

#[cfg(feature = "tables")]
fn fitted(columns: Vec<(String, Bounds)>, _: &'static str) -> Result<Finished, Error> {
    let lengths = (columns.into_iter())
        .map(|(name, bounds)| (name, bounds.unwrap_or((0, 0))))
        .collect();
    Ok(Finished::fitted(Lengths { lengths }))
}
