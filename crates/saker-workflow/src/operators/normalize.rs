//! Normalize: numbers by their mean and standard deviation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

use super::state::{State, saved_as_is};
use super::transform::{Context, OutputKind, Transform, each};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{self, Accumulator, Finished};
use crate::kernels;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::parameters::FloatType;
use crate::variable::{Null, Variable, by_float, by_number};

/// (x - mean) / std with the fitted mean and standard deviation (one delta degree of freedom); x - mean where std is 0. Numeric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// Element type of the output (NVTabular's default is float64).
    #[serde(default)]
    pub dtype: FloatType,
}

/// What Normalize is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Mean by column.
    pub means: BTreeMap<String, f64>,
    /// Standard deviation by column, one delta degree of freedom; 0 for a constant column or a single row.
    pub stds: BTreeMap<String, f64>,
}

impl State for Moments {
    saved_as_is!();

    fn lines(&self) -> Vec<String> {
        let std = |column| self.stds.get(column).copied().unwrap_or(f64::NAN);
        (self.means.iter())
            .map(|(column, mean)| format!("{column}: mean {mean}, std {}", std(column)))
            .collect()
    }
}

impl Transform for Normalize {
    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Numbers
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Moments { means, stds } = context.state()?;
        each(columns, |column| {
            let column = column.number()?;
            let (Some(&mean), Some(&std)) = (means.get(&column.name), stds.get(&column.name))
            else {
                return Err(context.not_fitted(std::slice::from_ref(&column)));
            };
            Ok(by_number!(column, T => by_float!(self.dtype, U => {
                column.map(Null::Becomes(U::NAN), move |x: &[T], output: &mut [U]| {
                    kernels::normalize(x, mean, std, output);
                })
            })))
        })
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(fit::each_column(Vec::new(), fit::Moments::update, fitted))
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["Normalize"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each_fitted(|name| {
            let operator = Self {
                dtype: node.float_type("out_dtype")?,
            };
            let state = Moments {
                means: node.number_of("means", name)?,
                stds: node.number_of("stds", name)?,
            };
            Ok((operator, state))
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        let Moments { means, stds } = export.state()?;
        let params = json!({ "out_dtype": { "name": self.dtype.name() } });
        let state = json!({ "means": means, "stds": stds });
        Ok(Form::new("nvtabular.ops.normalize.Normalize")
            .params(params)
            .state(state))
    }
}

#[cfg(feature = "tables")]
fn fitted(columns: Vec<(String, fit::Moments)>, operator: &'static str) -> Result<Finished, Error> {
    let (mut means, mut stds) = (BTreeMap::new(), BTreeMap::new());
    for (name, moments) in columns {
        let mean = moments.mean();
        let mean = mean.ok_or_else(|| fit::nothing_to_fit(operator, &name))?;
        means.insert(name.clone(), mean);
        let std = moments.variance().sqrt();
        stds.insert(name, if std.is_finite() { std } else { 0.0 });
    }
    Ok(Finished::fitted(Moments { means, stds }))
}
