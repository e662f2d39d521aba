//! Select: some of a chain's columns.

use serde::{Deserialize, Serialize};

#[cfg(feature = "tables")]
use super::Fitted;
#[cfg(feature = "tables")]
use super::transform::GreatestCode;
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
use crate::variable::{Variable, joined};

/// Keeps these of the chain's columns, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// Names of columns that the operator before it gives.
    pub columns: Vec<String>,
}

impl Transform for Select {
    fn validate(&self, inputs: &[String]) -> Result<(), String> {
        if let Some(other) = self.columns.iter().find(|name| !inputs.contains(name)) {
            return Err(format!(
                "'{other}' is missing, accepted are columns of the operator before it"
            ));
        }
        if self.columns.is_empty() {
            return Err("columns must name at least one column".to_owned());
        }
        Ok(())
    }

    fn output_names(&self, _: &[String]) -> Vec<String> {
        self.columns.clone()
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let selected = self.columns.iter().map(|name| {
            let column = columns.iter().find(|column| column.name == *name);
            column.cloned().ok_or_else(|| Error::MissingColumn {
                column: name.clone(),
                given: joined(columns, ", "),
            })
        });
        selected.collect()
    }

    #[cfg(feature = "tables")]
    fn greatest_codes(&self, _: &Fitted, columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
        let selected = self.columns.iter().map(|name| {
            let column = columns.iter().find(|(column, _)| column == name);
            (name.clone(), column.and_then(|(_, code)| *code))
        });
        selected.collect()
    }
}
