//! NormalizeMinMax: numbers by their extremes.

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

/// (x - min) / (max - min) with the fitted extremes; not clipped; 0.5 where min = max. Numeric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormalizeMinMax {
    /// Element type of the output (NVTabular's default is float64).
    #[serde(default)]
    pub dtype: FloatType,
}

/// What NormalizeMinMax is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extremes {
    /// Least value by column.
    pub mins: BTreeMap<String, f64>,
    /// Greatest value by column.
    pub maxs: BTreeMap<String, f64>,
}

impl State for Extremes {
    saved_as_is!();

    fn lines(&self) -> Vec<String> {
        let max = |column| self.maxs.get(column).copied().unwrap_or(f64::NAN);
        (self.mins.iter())
            .map(|(column, min)| format!("{column}: min {min}, max {}", max(column)))
            .collect()
    }
}

impl Transform for NormalizeMinMax {
    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Numbers
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Extremes { mins, maxs } = context.state()?;
        each(columns, |column| {
            let column = column.number()?;
            let (Some(&min), Some(&max)) = (mins.get(&column.name), maxs.get(&column.name)) else {
                return Err(context.not_fitted(std::slice::from_ref(&column)));
            };
            Ok(by_number!(column, T => by_float!(self.dtype, U => {
                column.map(Null::Becomes(U::NAN), move |x: &[T], output: &mut [U]| {
                    kernels::normalize_min_max(x, min, max, output);
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
        &["NormalizeMinMax"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each_fitted(|name| {
            let operator = Self {
                dtype: node.float_type("out_dtype")?,
            };
            let state = Extremes {
                mins: node.number_of("mins", name)?,
                maxs: node.number_of("maxs", name)?,
            };
            Ok((operator, state))
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        let Extremes { mins, maxs } = export.state()?;
        let params = json!({ "out_dtype": { "name": self.dtype.name() } });
        let state = json!({ "mins": mins, "maxs": maxs });
        Ok(Form::new("nvtabular.ops.normalize.NormalizeMinMax")
            .params(params)
            .state(state))
    }
}

#[cfg(feature = "tables")]
fn fitted(columns: Vec<(String, fit::Moments)>, operator: &'static str) -> Result<Finished, Error> {
    let (mut mins, mut maxs) = (BTreeMap::new(), BTreeMap::new());
    for (name, moments) in columns {
        if moments.count == 0 {
            return Err(fit::nothing_to_fit(operator, &name));
        }
        mins.insert(name.clone(), moments.min);
        maxs.insert(name, moments.max);
    }
    Ok(Finished::fitted(Extremes { mins, maxs }))
}
