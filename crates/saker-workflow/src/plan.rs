//! A workflow made ready to serve: columns written straight into the caller's buffers.

use smallvec::SmallVec;

use crate::column::{Column, DType, Slice, SliceMut};
use crate::error::Error;
use crate::parts::InputColumn;
use crate::program::{self, Expression, Scratch};
use crate::workflow::Workflow;

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
    /// Compiles a workflow for inputs of these names and types, in the order in which [`Plan::bind`] will get them. They may be other
    /// types than were fitted, where the operators take both: int64 for int32, say.
    ///
    /// # Errors
    /// The workflow has an operator that changes rows; it needs a column that is missing; a type does not suit; a column holds lists or
    /// an output strings, which cannot be served.
    pub fn prepare(workflow: &Workflow, inputs: &[(&str, DType)]) -> Result<Self, Error> {
        let mut tables = workflow
            .definition()
            .stages()
            .flat_map(|stage| &stage.table);
        if let Some(operator) = tables.next() {
            return Err(Error::NotServed {
                operator: operator.name(),
                effect: operator.effect(),
            });
        }
        let inputs = inputs
            .iter()
            .map(|&(name, dtype)| {
                let datetime = workflow.is_datetime(name);
                if datetime && dtype != DType::Int64 {
                    return Err(Error::types(
                        name,
                        dtype,
                        "int64, nanoseconds since 1970: the column held datetimes in the fit",
                    ));
                }
                Ok(InputColumn {
                    name: name.to_owned(),
                    dtype,
                    list: false,
                    datetime,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
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

    /// Takes in a request's columns, all of the same number of rows, which may be 0.
    ///
    /// # Errors
    /// The columns differ from the plan in number or type, or from each other in length.
    pub fn bind<'a>(&'a self, inputs: &[Slice<'a>]) -> Result<Bound<'a>, Error> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::Length {
                column: "(inputs)".to_owned(),
                found: inputs.len(),
                expected: self.inputs.len(),
            });
        }
        let rows = inputs.first().map_or(0, Slice::len);
        for (values, declared) in inputs.iter().zip(&self.inputs) {
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
        }
        Ok(Bound {
            plan: self,
            rows,
            columns: inputs
                .iter()
                .map(|&values| Column {
                    values,
                    valid: None,
                })
                .collect(),
        })
    }
}

/// A plan with a request's columns.
#[derive(Debug)]
pub struct Bound<'a> {
    plan: &'a Plan,
    rows: usize,
    columns: SmallVec<[Column<'a>; 16]>,
}

impl Bound<'_> {
    /// Number of rows of every input and output.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Computes output number `output` of the plan into a buffer of [`Bound::rows`] elements.
    ///
    /// # Errors
    /// There is no such output, or the buffer is of another type or length.
    pub fn write(
        &self,
        output: usize,
        mut buffer: SliceMut<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let Some(output) = self.plan.outputs.get(output) else {
            return Err(Error::definition(
                "(output)",
                &format!(
                    "the plan has {} outputs, not {output}",
                    self.plan.outputs.len()
                ),
            ));
        };
        if buffer.dtype() != output.dtype {
            return Err(Error::types(
                &output.name,
                buffer.dtype(),
                &output.dtype.to_string(),
            ));
        }
        if buffer.len() != self.rows {
            return Err(Error::Length {
                column: output.name.clone(),
                found: buffer.len(),
                expected: self.rows,
            });
        }
        program::evaluate(&output.expression, &self.columns, &mut buffer, scratch);
        Ok(())
    }
}
