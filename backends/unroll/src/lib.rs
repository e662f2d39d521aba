//! Repeats user and context features for each candidate, so that the ranker's inputs have equal length. See the README beside this crate.

#![warn(clippy::indexing_slicing)]

use std::sync::Arc;

use saker_contract::tensor;
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, FIXED_SIZE_TYPES, Instance, Model, ModelContext, Request,
    Response, Signature, Tensor, with_element,
};

pub mod repeat;

/// Parameters in config.pbtxt.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// The input with one row per candidate.
    #[serde(default = "item_id")]
    item_input: String,
    /// The input with one row per user.
    #[serde(default = "user_id")]
    user_input: String,
}

fn item_id() -> String {
    tensor::ITEM_ID.to_owned()
}

fn user_id() -> String {
    tensor::USER_ID.to_owned()
}

/// A loaded model.
pub struct Unroll {
    item_input: usize,
    user_input: usize,
    /// For each output, the index of the input of its name, and its type.
    outputs: Vec<(usize, DataType)>,
}

/// An instance. It keeps no state between batches.
pub struct Worker;

impl Model for Unroll {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        Signature::new()
            .other_inputs(FIXED_SIZE_TYPES)
            .other_outputs(FIXED_SIZE_TYPES)
    }

    fn load(context: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        let config = context.config();
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: the tensors of one request differ in length",
            ));
        }
        let outputs = config.outputs().iter().map(|output| {
            let input = config.input(&output.name)?;
            if input.data_type != output.data_type {
                return Err(Error::invalid_argument(format!(
                    "output '{}' is {}, but the input of its name is {}",
                    output.name, output.data_type, input.data_type
                )));
            }
            let position = config.input_of_parameter("output", &output.name)?;
            Ok((position, output.data_type))
        });
        Ok(Self {
            item_input: config.input_of_parameter("ITEM_INPUT", &parameters.item_input)?,
            user_input: config.input_of_parameter("USER_INPUT", &parameters.user_input)?,
            outputs: outputs.collect::<Result<_, Error>>()?,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker)
    }
}

impl Instance<Unroll> for Worker {
    fn execute(&mut self, model: &Unroll, batch: &Batch<'_>) -> Result<(), Error> {
        batch.respond_each(|request, response| answer(model, request, response));
        Ok(())
    }
}

fn answer(model: &Unroll, request: &Request<'_>, response: &Response<'_>) -> Result<(), Error> {
    let items = tensor(request, model.item_input)?;
    let users = tensor(request, model.user_input)?;
    let (candidates, user_count) = (rows(&items)?, rows(&users)?);
    if candidates % user_count.max(1) != 0 || (user_count == 0 && candidates != 0) {
        return Err(Error::invalid_argument(format!(
            "tensor '{}' has {candidates} rows for the {user_count} users of '{}'; accepted: a multiple",
            items.name(),
            users.name()
        )));
    }
    for (output, (input, data_type)) in model.outputs.iter().enumerate() {
        let input = tensor(request, *input)?;
        with_element!(
            *data_type,
            T => write::<T>(output, &input, candidates, user_count, response),
            else Err(Error::unsupported(format!("tensor '{}' is BYTES", input.name())))
        )?;
    }
    Ok(())
}

fn write<T: Element>(
    output: usize,
    input: &Tensor<'_>,
    candidates: usize,
    users: usize,
    response: &Response<'_>,
) -> Result<(), Error> {
    let rows = rows(input)?;
    let spread = repeat::spread(rows, candidates, users).ok_or_else(|| {
        Error::invalid_argument(format!(
            "tensor '{}' has {rows} rows; accepted: {candidates} (one for each candidate), {users} (one for each user) or 1",
            input.name()
        ))
    })?;
    let row = input.shape().get(1..).unwrap_or_default();
    let width = row.iter().map(|dim| *dim as usize).product();
    let mut shape = vec![candidates as i64];
    shape.extend(row);
    let elements = input.as_slice::<T>()?;
    if let Some(values) = response.output_at::<T>(output, &shape)? {
        repeat::repeat(values, &elements, width, spread);
    }
    Ok(())
}

fn tensor<'r>(request: &'r Request<'_>, input: usize) -> Result<Tensor<'r>, Error> {
    request
        .input_at(input)?
        .ok_or_else(|| Error::invalid_argument("a required input is missing from the request"))
}

/// Size of the first dimension.
fn rows(tensor: &Tensor<'_>) -> Result<usize, Error> {
    match tensor.shape().first() {
        Some(rows) => Ok(*rows as usize),
        None => Err(Error::invalid_argument(format!(
            "tensor '{}' has no dimension; accepted: 1 or more",
            tensor.name()
        ))),
    }
}

triton_backend::export!(Unroll);
