//! Bucketize: numbers by the interval that they lie in.

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

use super::transform::{Context, OutputKind, Transform, each};
use crate::error::Error;
use crate::kernels;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::variable::{Null, Variable, by_number};

/// The number of boundaries ≤ x; NaN and null give the number of boundaries. Numeric; int32 out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucketize {
    /// Boundaries in ascending order.
    pub boundaries: Vec<f64>,
}

impl Transform for Bucketize {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        let Self { boundaries } = self;
        if boundaries.is_empty() || boundaries.iter().any(|b| b.is_nan()) || !boundaries.is_sorted()
        {
            return Err("boundaries must be numbers in ascending order, at least one".to_owned());
        }
        Ok(())
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Codes
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        each(columns, |column| {
            let column = column.number()?;
            let boundaries = self.boundaries.clone();
            let null = Null::Becomes(boundaries.len() as i32);
            let mut buckets = by_number!(column, T => column.map(null, move |x: &[T], output| {
                kernels::bucketize(x, &boundaries, output);
            }));
            buckets.cardinality = Some(self.boundaries.len() + 1);
            Ok(buckets)
        })
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["Bucketize"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each(|name| {
            Ok(Self {
                boundaries: node.by_column("boundaries", name)?,
            })
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, _: &Export<'_>) -> Result<Form, Error> {
        let params = json!({ "boundaries": self.boundaries });
        Ok(Form::new("nvtabular.ops.bucketize.Bucketize").params(params))
    }
}
