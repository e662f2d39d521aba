//! A workflow made ready to serve: columns written straight into the caller's buffers.

use crate::column::{Column, DType, Slice, SliceMut};
use crate::error::Error;
use crate::program::{self, Expression, Scratch};
use crate::workflow::{InputColumn, Workflow};

/// The greatest number of input columns of a plan, so that a run needs no list of its own on the heap.
pub const MAX_INPUTS: usize = 64;

/// A workflow compiled for inputs of given types. Shared by threads; each brings its own [`Scratch`].
///
/// A run costs the same whatever the size of the vocabularies, and allocates nothing once the scratch has grown to the
/// number of rows.
#[derive(Debug)]
pub struct Plan {
    inputs: Vec<InputColumn>,
    outputs: Vec<PlanOutput>,
}

/// An output column of a plan.
#[derive(Debug)]
pub struct PlanOutput {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    expression: Expression,
}

impl Plan {
    /// Compiles a workflow for inputs of these names and types, in the order in which [`Plan::run`] will get them. They may be other
    /// types than were fitted, where the operators take both: int64 for int32, say.
    ///
    /// # Errors
    /// The workflow needs a column that is missing; a type does not suit; a column holds lists or an output strings, which cannot be
    /// served; there are more than [`MAX_INPUTS`] inputs.
    pub fn prepare(workflow: &Workflow, inputs: &[(&str, DType)]) -> Result<Self, Error> {
        let inputs: Vec<InputColumn> = inputs
            .iter()
            .map(|&(name, dtype)| InputColumn {
                name: name.to_owned(),
                dtype,
                list: false,
            })
            .collect();
        if inputs.len() > MAX_INPUTS {
            return Err(Error::definition(
                &inputs[MAX_INPUTS].name,
                &format!("at most {MAX_INPUTS} input columns can be served"),
            ));
        }
        let outputs = workflow
            .compile(&inputs)?
            .into_iter()
            .map(|variable| {
                if variable.dtype == DType::String {
                    return Err(Error::types(
                        &variable.name,
                        variable.dtype,
                        "a numeric type or bool for an output that is served",
                    ));
                }
                Ok(PlanOutput {
                    name: variable.name,
                    dtype: variable.dtype,
                    expression: variable.expression,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { inputs, outputs })
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[InputColumn] {
        &self.inputs
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &[PlanOutput] {
        &self.outputs
    }

    /// Position of an output.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|output| output.name == name)
    }

    /// Computes output number `output` into a buffer of as many rows as the inputs, which may be none.
    ///
    /// # Errors
    /// Inputs or buffer differ from the plan in number, type or length.
    pub fn run(
        &self,
        output: usize,
        inputs: &[Slice<'_>],
        mut buffer: SliceMut<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let Some(output) = self.outputs.get(output) else {
            return Err(Error::definition(
                "(output)",
                &format!("the plan has {} outputs, not {output}", self.outputs.len()),
            ));
        };
        if inputs.len() != self.inputs.len() {
            return Err(Error::Length {
                column: "(inputs)".to_owned(),
                found: inputs.len(),
                expected: self.inputs.len(),
            });
        }
        if buffer.dtype() != output.dtype {
            return Err(Error::types(
                &output.name,
                buffer.dtype(),
                &output.dtype.to_string(),
            ));
        }
        let rows = inputs.first().map_or(0, Slice::len);
        if buffer.len() != rows {
            return Err(Error::Length {
                column: output.name.clone(),
                found: buffer.len(),
                expected: rows,
            });
        }
        let mut columns = [Column {
            values: Slice::Bool(&[]),
            valid: None,
        }; MAX_INPUTS];
        for ((column, values), declared) in columns.iter_mut().zip(inputs).zip(&self.inputs) {
            if values.dtype() != declared.dtype {
                return Err(Error::types(
                    &declared.name,
                    values.dtype(),
                    &declared.dtype.to_string(),
                ));
            }
            if values.len() != rows {
                return Err(Error::Length {
                    column: declared.name.clone(),
                    found: values.len(),
                    expected: rows,
                });
            }
            column.values = *values;
        }
        program::evaluate(
            &output.expression,
            &columns[..inputs.len()],
            &mut buffer,
            scratch,
        );
        Ok(())
    }
}
