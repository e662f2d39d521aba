//! Clip: numbers within bounds.

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

use super::fill_missing::check_whole;
use super::transform::{Context, OutputKind, Transform, each};
use crate::error::Error;
use crate::kernels::{self, Number};
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::variable::{Null, Variable, by_number};

/// Limits x to [`min`, `max`]; NaN stays. Numeric, type kept: bounds for an integer column must be whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl Transform for Clip {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        let Self { min, max } = self;
        if min.is_none() && max.is_none() {
            return Err("give min, max or both".to_owned());
        }
        let (min, max) = (
            min.unwrap_or(f64::NEG_INFINITY),
            max.unwrap_or(f64::INFINITY),
        );
        if min.is_nan() || max.is_nan() || min > max {
            return Err("min and max must be numbers, min not greater than max".to_owned());
        }
        Ok(())
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        each(columns, |column| {
            let column = column.number()?;
            for bound in [self.min, self.max].into_iter().flatten() {
                check_whole(&column, bound)?;
            }
            Ok(by_number!(column, T => {
                let (min, max) = (self.min.map(T::from_f64), self.max.map(T::from_f64));
                column.map(Null::Stays, move |x: &[T], output| kernels::clip(x, min, max, output))
            }))
        })
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["Clip"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each(|_| {
            Ok(Self {
                min: node.param("min_value")?,
                max: node.param("max_value")?,
            })
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, _: &Export<'_>) -> Result<Form, Error> {
        let params = json!({ "min_value": self.min, "max_value": self.max });
        Ok(Form::new("nvtabular.ops.clip.Clip").params(params))
    }
}
