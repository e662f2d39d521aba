//! DropLowCardinality: columns of few codes, dropped.

use serde::{Deserialize, Serialize};

use super::Fitted;
use super::state::{InFitted, State, saved_as_is};
#[cfg(feature = "tables")]
use super::transform::GreatestCode;
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::variable::Variable;

/// Drops the columns of codes whose greatest code is less than `min_cardinality`; all others stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropLowCardinality {
    /// The least greatest code that stays.
    #[serde(default = "four")]
    pub min_cardinality: usize,
}

fn four() -> usize {
    4
}

/// What DropLowCardinality is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The columns that stay.
    pub kept: Vec<String>,
}

impl State for Columns {
    saved_as_is!();

    fn lines(&self) -> Vec<String> {
        vec![format!("keeps {}", self.kept.join(", "))]
    }
}

impl Transform for DropLowCardinality {
    fn fitted_output_names(&self, fitted: &Fitted, inputs: &[String]) -> Vec<String> {
        match Columns::of(fitted) {
            Some(columns) => columns.kept.clone(),
            None => inputs.to_vec(),
        }
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Columns { kept } = context.state()?;
        let kept = columns.iter().filter(|c| kept.contains(&c.name));
        Ok(kept.cloned().collect())
    }

    #[cfg(feature = "tables")]
    fn state_without_rows(&self, columns: &dyn Fn() -> Vec<GreatestCode>) -> Result<Fitted, Error> {
        let columns = columns().into_iter();
        let kept = columns
            .filter(|(_, greatest)| greatest.is_none_or(|code| code >= self.min_cardinality))
            .map(|(name, _)| name)
            .collect();
        Ok(Columns { kept }.into())
    }

    #[cfg(feature = "tables")]
    fn greatest_codes(&self, fitted: &Fitted, mut columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
        if let Some(Columns { kept }) = Columns::of(fitted) {
            columns.retain(|(name, _)| kept.contains(name));
        }
        columns
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["DropLowCardinality"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        let min_cardinality = node.param("min_cardinality")?;
        let outputs = node.output_names();
        // The others need not be made at all.
        let kept = node.names.iter().filter(|name| outputs.contains(name));
        let parts = kept.map(|name| {
            let kept = vec![name.clone()];
            Part::new(kept.clone(), Self { min_cardinality }, Columns { kept })
        });
        Ok(parts.collect())
    }
}
