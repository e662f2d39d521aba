//! LogOp: the logarithm of numbers.

use serde::{Deserialize, Serialize};

use super::transform::{Context, OutputKind, Transform, each};
use crate::error::Error;
use crate::kernels;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::variable::{Null, Variable, by_number};

/// ln(x + 1) in float32; -1 gives -inf, less gives NaN. Numeric; float32 out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogOp {}

impl Transform for LogOp {
    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Numbers
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        each(columns, |column| {
            let column = column.number()?;
            Ok(by_number!(column, T => column.map(Null::Becomes(f32::NAN), kernels::log::<T>)))
        })
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["LogOp"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each(|_| Ok(Self {}))
    }

    #[cfg(feature = "tables")]
    fn export(&self, _: &Export<'_>) -> Result<Form, Error> {
        Ok(Form::new("nvtabular.ops.logop.LogOp"))
    }
}
