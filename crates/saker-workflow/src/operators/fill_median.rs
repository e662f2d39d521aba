//! FillMedian: the median in place of missing values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

use super::fill_missing::{fill, filled_names};
use super::state::{State, saved_as_is};
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{self, Accumulator, Finished, Median, Search};
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::variable::Variable;

/// Replaces null and NaN by the fitted median. Numeric, type kept (an integer column takes the median's whole part).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillMedian {
    /// Adds a bool column `<column>_filled` that is true where a value was missing.
    #[serde(default)]
    pub add_binary_cols: bool,
}

/// What FillMedian is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Medians {
    /// Median by column.
    pub medians: BTreeMap<String, f64>,
}

impl State for Medians {
    saved_as_is!();

    fn lines(&self) -> Vec<String> {
        (self.medians.iter())
            .map(|(column, median)| format!("{column}: median {median}"))
            .collect()
    }
}

impl Transform for FillMedian {
    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        filled_names(inputs, self.add_binary_cols)
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Medians { medians } = context.state()?;
        fill(columns, self.add_binary_cols, |column| {
            let median = medians.get(&column.name).copied();
            median.ok_or_else(|| context.not_fitted(std::slice::from_ref(column)))
        })
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(fit::each_column(Vec::new(), Median::update, fitted))
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["FillMedian"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each_fitted(|name| {
            let operator = Self {
                add_binary_cols: node.param("add_binary_cols")?,
            };
            let medians = node.number_of("medians", name)?;
            Ok((operator, Medians { medians }))
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        let Medians { medians } = export.state()?;
        let params = json!({ "add_binary_cols": self.add_binary_cols });
        let form = Form::new("nvtabular.ops.fill.FillMedian").params(params);
        Ok(form.state(json!({ "medians": medians })))
    }
}

#[cfg(feature = "tables")]
fn fitted(columns: Vec<(String, Median)>, operator: &'static str) -> Result<Finished, Error> {
    let (mut medians, mut next, mut done) = (BTreeMap::new(), Vec::new(), true);
    for (name, median) in columns {
        match median.finish() {
            Search::Found(None) => return Err(fit::nothing_to_fit(operator, &name)),
            Search::Found(Some(median)) => {
                medians.insert(name.clone(), median);
                next.push((name, Median::known(median)));
            }
            Search::Again(median) => {
                done = false;
                next.push((name, median));
            }
        }
    }
    if !done {
        let again = fit::each_column(next, Median::update, fitted);
        return Ok(Finished::Again(again));
    }
    Ok(Finished::fitted(Medians { medians }))
}
