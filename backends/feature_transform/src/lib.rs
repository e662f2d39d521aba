//! Applies the fitted workflow of the model's version folder to the request's columns.
//! See the README beside this crate.

#![warn(clippy::indexing_slicing)]

use std::borrow::Cow;
use std::sync::Arc;

use saker_steps::transform::{self, dtype, invalid, triton_type};
use saker_workflow::{DType, Plan, Scratch, Slice, Workflow};
use triton_backend::{
    Batch, DataType, Error, Instance, Model, ModelContext, Request, Response, Signature, Strings,
    Tensor,
};

const COLUMN_TYPES: &[DataType] = &[
    DataType::Int32,
    DataType::Int64,
    DataType::Fp32,
    DataType::Fp64,
    DataType::Bool,
];

/// A loaded model.
pub struct FeatureTransform {
    plan: Plan,
    /// For each output of config.pbtxt, its index in the plan.
    outputs: Vec<usize>,
}

/// The intermediate columns of one instance.
#[derive(Default)]
pub struct Worker {
    scratch: Scratch,
}

impl Model for FeatureTransform {
    type Parameters = ();
    type Instance = Worker;

    fn signature((): &()) -> Signature {
        Signature::new()
            .other_inputs(COLUMN_TYPES)
            .other_inputs(&[DataType::Bytes])
            .other_outputs(COLUMN_TYPES)
    }

    fn load(context: &Arc<ModelContext>, (): ()) -> Result<Self, Error> {
        let workflow = Workflow::load(context.version_dir()).map_err(invalid)?;
        let config = context.config();
        let needed = workflow.definition().input_names();
        for input in config.inputs() {
            if !needed.contains(&input.name.as_str()) {
                return Err(Error::invalid_argument(format!(
                    "input '{}' is not an input of the workflow; accepted: {}",
                    input.name,
                    needed.join(", ")
                )));
            }
            if input.optional {
                return Err(Error::invalid_argument(format!(
                    "input '{}' must not be optional: the workflow has no default for it",
                    input.name
                )));
            }
        }
        let columns = config
            .inputs()
            .iter()
            .map(|input| Ok((input.name.as_str(), dtype(input.data_type)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let plan = Plan::prepare(&workflow, &columns).map_err(invalid)?;
        let outputs = config
            .outputs()
            .iter()
            .map(|output| {
                let index = plan.output_index(&output.name);
                let computed = index.and_then(|index| plan.outputs().get(index));
                let (index, computed) = index.zip(computed).ok_or_else(|| {
                    let given: Vec<&str> = plan.outputs().iter().map(|o| o.name.as_str()).collect();
                    Error::invalid_argument(format!(
                        "output '{}' is not an output of the workflow; accepted: {}",
                        output.name,
                        given.join(", ")
                    ))
                })?;
                let given = triton_type(computed.dtype);
                if given != output.data_type {
                    return Err(Error::invalid_argument(format!(
                        "output '{}' is declared as {}, but the workflow returns {given}",
                        output.name, output.data_type
                    )));
                }
                Ok(index)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { plan, outputs })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker::default())
    }
}

impl Instance<FeatureTransform> for Worker {
    fn execute(&mut self, model: &FeatureTransform, batch: &Batch<'_>) -> Result<(), Error> {
        batch.respond_each(|request, response| answer(model, request, response, &mut self.scratch));
        Ok(())
    }
}

fn answer(
    model: &FeatureTransform,
    request: &Request<'_>,
    response: &Response<'_>,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let mut shape: Option<(&str, &[i64])> = None;
    let mut columns = Vec::with_capacity(model.plan.inputs().len());
    for (index, declared) in model.plan.inputs().iter().enumerate() {
        let tensor = request.input_at(index)?.ok_or_else(|| {
            Error::invalid_argument(format!("tensor '{}' is missing", declared.name))
        })?;
        let (first, rows) = *shape.get_or_insert((declared.name.as_str(), tensor.shape()));
        if tensor.shape() != rows {
            return Err(Error::invalid_argument(format!(
                "tensor '{}' has shape {:?} but '{first}' has {rows:?}; accepted: one shape for all inputs",
                declared.name,
                tensor.shape()
            )));
        }
        columns.push(Values::read(&tensor, declared.dtype)?);
    }
    let strings: Vec<Vec<&[u8]>> = columns.iter().map(Values::strings).collect();
    let slices: Vec<Slice<'_>> = columns
        .iter()
        .zip(&strings)
        .map(|(column, strings)| column.slice(strings))
        .collect();
    let bound = model.plan.bind(&slices).map_err(invalid)?;
    let shape = shape.map_or(&[0i64][..], |(_, shape)| shape);
    for (position, &output) in model.outputs.iter().enumerate() {
        transform::write(
            &model.plan,
            &bound,
            output,
            response,
            position,
            shape,
            scratch,
        )?;
    }
    Ok(())
}

/// The elements of an input. Numbers are borrowed if they are in one buffer of the request.
enum Values<'r> {
    Int32(Cow<'r, [i32]>),
    Int64(Cow<'r, [i64]>),
    Float32(Cow<'r, [f32]>),
    Float64(Cow<'r, [f64]>),
    Bool(Cow<'r, [bool]>),
    String(Strings),
}

impl<'r> Values<'r> {
    fn read(tensor: &Tensor<'r>, dtype: DType) -> Result<Self, Error> {
        Ok(match dtype {
            DType::Int32 => Self::Int32(tensor.as_slice()?),
            DType::Int64 => Self::Int64(tensor.as_slice()?),
            DType::Float32 => Self::Float32(tensor.as_slice()?),
            DType::Float64 => Self::Float64(tensor.as_slice()?),
            DType::Bool => Self::Bool(tensor.as_slice()?),
            DType::String => Self::String(tensor.strings()?),
        })
    }

    fn strings(&self) -> Vec<&[u8]> {
        match self {
            Self::String(strings) => strings.iter().collect(),
            _ => Vec::new(),
        }
    }

    fn slice<'a>(&'a self, strings: &'a [&'a [u8]]) -> Slice<'a> {
        match self {
            Self::Int32(values) => Slice::Int32(values),
            Self::Int64(values) => Slice::Int64(values),
            Self::Float32(values) => Slice::Float32(values),
            Self::Float64(values) => Slice::Float64(values),
            Self::Bool(values) => Slice::Bool(values),
            Self::String(_) => Slice::String(strings),
        }
    }
}

triton_backend::export!(FeatureTransform);
