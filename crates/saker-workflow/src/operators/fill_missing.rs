//! FillMissing: a value in place of missing ones.

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

use super::transform::{Context, OutputKind, Transform};
use crate::column::{DType, Slice};
use crate::error::Error;
use crate::kernels::{self, Number};
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::variable::{Null, Variable, by_number};

/// Replaces null and NaN by `value`. Numeric, type kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillMissing {
    /// The replacement; whole for an integer column.
    #[serde(default)]
    pub value: f64,
    /// Adds a bool column `<column>_filled` that is true where a value was missing.
    #[serde(default)]
    pub add_binary_cols: bool,
}

impl Transform for FillMissing {
    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        filled_names(inputs, self.add_binary_cols)
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        fill(columns, self.add_binary_cols, |column| {
            check_whole(column, self.value)?;
            Ok(self.value)
        })
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["FillMissing"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each(|_| {
            Ok(Self {
                value: node.param("fill_val")?,
                add_binary_cols: node.param("add_binary_cols")?,
            })
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, _: &Export<'_>) -> Result<Form, Error> {
        let params = json!({ "fill_val": self.value, "add_binary_cols": self.add_binary_cols });
        Ok(Form::new("nvtabular.ops.fill.FillMissing").params(params))
    }
}

/// The columns' names, each followed by its flag's.
pub(super) fn filled_names(inputs: &[String], flagged: bool) -> Vec<String> {
    if !flagged {
        return inputs.to_vec();
    }
    let names = inputs.iter();
    names
        .flat_map(|name| [name.clone(), flag_name(name)])
        .collect()
}

fn flag_name(column: &str) -> String {
    format!("{column}_filled")
}

/// The columns with missing values filled, each followed by its flag.
pub(super) fn fill(
    columns: &[Variable],
    flagged: bool,
    value: impl Fn(&Variable) -> Result<f64, Error>,
) -> Result<Vec<Variable>, Error> {
    let mut filled = Vec::new();
    for column in columns {
        if column.dtype != DType::Bool {
            column.numeric()?;
        }
        // A list has no single flag.
        column.require(
            !(flagged && column.list),
            "one value a row where add_binary_cols is true",
        )?;
        filled.push(fill_one(column, value(column)?)?);
        if flagged {
            filled.push(flag(column));
        }
    }
    Ok(filled)
}

fn fill_one(column: &Variable, value: f64) -> Result<Variable, Error> {
    if column.dtype == DType::Bool {
        return Ok(column.convert(Null::Becomes(value != 0.0), |x: bool| x));
    }
    Ok(by_number!(column, T => {
        let value = T::from_f64(value);
        column.map(Null::Becomes(value), move |x: &[T], output| kernels::fill(x, value, output))
    }))
}

/// Whether each row's value is missing.
fn flag(column: &Variable) -> Variable {
    Variable::of(
        flag_name(&column.name),
        column.list,
        [column],
        |arguments, output: &mut [bool], _| {
            let column = arguments.get(0);
            match column.values {
                Slice::Float32(x) => kernels::map(x, output, f32::is_nan),
                Slice::Float64(x) => kernels::map(x, output, f64::is_nan),
                // These are missing only where they are null.
                Slice::Int32(_) | Slice::Int64(_) | Slice::Bool(_) | Slice::String(_) => {
                    output.fill(false);
                }
            }
            column.replace_nulls(output, true);
        },
    )
}

/// Refuses a value that an integer column cannot hold.
pub(super) fn check_whole(column: &Variable, value: f64) -> Result<(), Error> {
    let (low, high) = match column.dtype {
        DType::Int32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::Int64 => (i64::MIN as f64, i64::MAX as f64),
        _ => return Ok(()),
    };
    if value.fract() == 0.0 && (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Value {
        column: column.name.clone(),
        value: value.to_string(),
        accepted: format!("a whole number in the range of {}", column.dtype),
    })
}
