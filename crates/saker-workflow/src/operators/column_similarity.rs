//! ColumnSimilarity: how alike what two ids name is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tables")]
use super::Fitted;
use super::Operator;
use super::state::State;
#[cfg(feature = "tables")]
use super::transform::GreatestCode;
use super::transform::{Context, OutputKind, Transform};
use crate::column::{Column, Slice};
use crate::error::Error;
use crate::kernels::Number;
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::parameters::{FloatType, Similarity};
#[cfg(feature = "tables")]
use crate::saved::Files;
use crate::saved::inside;
use crate::similarity::Features;
use crate::variable::{Variable, by_float, joined};

/// Compares two id columns by the features of what they name: the inner product of row `x` of the left matrix and row `y` of the
/// right one. Two integer columns; one output named `<left>_<right>_sim`. An id without a row gives 0, a null NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSimilarity {
    /// Parquet file of the left matrix, an entry a row: columns `row`, `column`, `value`. A saved workflow keeps a copy.
    pub left: PathBuf,
    /// That of the right matrix; absent: the left one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<PathBuf>,
    /// How rows are compared.
    #[serde(default)]
    pub metric: Similarity,
    /// Element type of the output (NVTabular's is float64).
    #[serde(default)]
    pub dtype: FloatType,
}

/// What ColumnSimilarity is fitted to.
#[derive(Debug, Clone)]
pub struct Matrices {
    /// The left matrix.
    pub left: Arc<Features>,
    /// The right matrix, which may be the left one.
    pub right: Arc<Features>,
}

/// [`Matrices`] in `workflow.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedMatrices {
    left: PathBuf,
    right: PathBuf,
}

impl Matrices {
    fn read(left: &Path, right: Option<&Path>, metric: Similarity) -> Result<Self, Error> {
        let left = Arc::new(Features::read(left, metric)?);
        let right = match right {
            Some(right) => Arc::new(Features::read(right, metric)?),
            None => Arc::clone(&left),
        };
        Ok(Self { left, right })
    }
}

impl State for Matrices {
    type Saved = SavedMatrices;

    fn load(saved: SavedMatrices, folder: &Path, _: Option<&Operator>) -> Result<Self, Error> {
        let left = inside(folder, &saved.left)?;
        let right = match saved.left == saved.right {
            true => None,
            false => Some(inside(folder, &saved.right)?),
        };
        // What was saved is weighted already.
        Self::read(&left, right.as_deref(), Similarity::Inner)
    }

    #[cfg(feature = "tables")]
    fn save(&self, _: Option<&Operator>, files: &mut Files) -> Result<SavedMatrices, Error> {
        let left = files.features(&self.left);
        Ok(SavedMatrices {
            right: if Arc::ptr_eq(&self.left, &self.right) {
                left.clone()
            } else {
                files.features(&self.right)
            },
            left,
        })
    }

    fn lines(&self) -> Vec<String> {
        vec![format!(
            "{} and {} rows of features",
            self.left.rows(),
            self.right.rows()
        )]
    }
}

impl Transform for ColumnSimilarity {
    fn validate(&self, inputs: &[String]) -> Result<(), String> {
        if inputs.len() != 2 {
            return Err("takes two columns, the left and the right one".to_owned());
        }
        Ok(())
    }

    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        vec![format!("{}_sim", inputs.join("_"))]
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Numbers
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Matrices { left, right } = context.state()?;
        for column in columns {
            column.scalar()?;
            column.require(
                column.dtype.is_integer(),
                "int32 or int64, a row of the matrix",
            )?;
        }
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        let name = format!("{}_sim", joined(columns, "_"));
        Ok(vec![by_float!(self.dtype, U => {
            Variable::of(name, false, columns, move |arguments, output: &mut [U], _| {
                let (a, b) = (arguments.get(0), arguments.get(1));
                for (row, out) in output.iter_mut().enumerate() {
                    *out = U::from_f64(match (integer(a, row), integer(b, row)) {
                        (Some(a), Some(b)) => left.inner(a, &right, b),
                        _ => f64::NAN,
                    });
                }
            })
        })])
    }

    #[cfg(feature = "tables")]
    fn state_without_rows(&self, _: &dyn Fn() -> Vec<GreatestCode>) -> Result<Fitted, Error> {
        let matrices = Matrices::read(&self.left, self.right.as_deref(), self.metric)?;
        Ok(matrices.into())
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["ColumnSimilarity"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        let left = node.file(&node.param::<PathBuf>("left")?)?;
        let right = node.param::<Option<PathBuf>>("right")?;
        let right = right.map(|right| node.file(&right)).transpose()?;
        // The matrices were saved as NVTabular weights them.
        let metric = Similarity::Inner;
        let state = Matrices::read(&left, right.as_deref(), metric)?;
        let operator = Self {
            left,
            right,
            metric,
            dtype: FloatType::Float64,
        };
        node.each_group_fitted(&operator, &state)
    }
}

/// An integer column's value; none where it is null.
fn integer(column: Column<'_>, row: usize) -> Option<i64> {
    match column.values {
        _ if !column.is_valid(row) => None,
        Slice::Int32(x) => x.get(row).map(|&x| x.into()),
        Slice::Int64(x) => x.get(row).copied(),
        // Refused when it is compiled.
        Slice::Float32(_) | Slice::Float64(_) | Slice::Bool(_) | Slice::String(_) => None,
    }
}
