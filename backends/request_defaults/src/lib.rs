//! Checks a request and fills in missing values. Each output holds the optional input of its name, or the default for that tensor. See the
//! README beside this crate.

#![warn(clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
    Tensor, tensor_names, with_element,
};

use saker_steps::defaults::{self, Default, Number};
use saker_steps::users;

const NUMBERS: &[DataType] = &[
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Uint8,
    DataType::Uint16,
    DataType::Uint32,
    DataType::Uint64,
    DataType::Fp32,
    DataType::Fp64,
];

/// Parameters in config.pbtxt.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// JSON object from tensor name to a number or `"now"`. Tensors not in it default to -1.
    #[serde(default)]
    defaults: Option<String>,
    /// The tensor of the user ids. A request must have it; the answer repeats it unchanged.
    #[serde(default)]
    user_input: Option<String>,
}

/// A loaded model.
pub struct RequestDefaults {
    tensors: Vec<Filled>,
    users: Option<Users>,
}

/// The tensor of the user ids.
struct Users {
    name: String,
    data_type: DataType,
    input: usize,
    output: usize,
    parameters: users::Parameters,
}

/// One output and its source.
struct Filled {
    name: String,
    output: usize,
    data_type: DataType,
    input: usize,
    default: Default,
}

/// An instance. It keeps no state between batches.
pub struct Worker;

impl Model for RequestDefaults {
    type Parameters = (Parameters, users::Parameters);
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new()
            .other_inputs(NUMBERS)
            .other_outputs(NUMBERS)
    }

    fn load(
        context: &Arc<ModelContext>,
        (parameters, bound): Self::Parameters,
    ) -> Result<Self, Error> {
        let config = context.config();
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: requests may omit all tensors, and then the batch size is unknown",
            ));
        }
        let mut defaults = defaults::parse("DEFAULTS", parameters.defaults.as_deref())?;
        let user_input = parameters.user_input.as_deref();
        if let Some(name) = user_input
            && config.output_index(name).is_none()
        {
            return Err(Error::invalid_argument(format!(
                "parameter 'USER_INPUT' is '{name}'; accepted: an output of config.pbtxt, which are {}",
                tensor_names(config.outputs())
            )));
        }
        let mut users = None;
        let mut tensors = Vec::new();
        for (position, output) in config.outputs().iter().enumerate() {
            let input = config.input_index(&output.name).ok_or_else(|| {
                Error::invalid_argument(format!(
                    "output '{}' needs an input of the same name",
                    output.name
                ))
            })?;
            let input_type = config.input(&output.name)?.data_type;
            if input_type != output.data_type {
                return Err(Error::invalid_argument(format!(
                    "output '{}' is {}, but the input of its name is {input_type}",
                    output.name, output.data_type
                )));
            }
            let (name, data_type) = (output.name.clone(), output.data_type);
            if user_input == Some(&output.name) {
                users = Some(Users {
                    name,
                    data_type,
                    input,
                    output: position,
                    parameters: bound,
                });
                continue;
            }
            tensors.push(Filled {
                default: defaults.remove(&name).unwrap_or(Default::UNKNOWN),
                name,
                output: position,
                data_type,
                input,
            });
        }
        if let Some(name) = defaults.keys().next() {
            let filled: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
            return Err(Error::invalid_argument(format!(
                "parameter 'DEFAULTS' names '{name}'; accepted: outputs of config.pbtxt that have a default, which are {}",
                filled.join(", ")
            )));
        }
        Ok(Self { tensors, users })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker)
    }
}

impl Instance<RequestDefaults> for Worker {
    fn execute(&mut self, model: &RequestDefaults, batch: &Batch<'_>) -> Result<(), Error> {
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        batch.respond_each(|request, response| answer(model, request, response, now_s));
        Ok(())
    }
}

/// Selects the function for elements of a type that the signature accepts.
macro_rules! of_type {
    ($data_type:expr, $function:ident) => {
        with_element!(
            $data_type,
            T of [Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64, Fp32] => $function::<T>,
            else $function::<f64> // the signature accepts no other type
        )
    };
}

fn answer(
    model: &RequestDefaults,
    request: &Request<'_>,
    response: &Response<'_>,
    now_s: u64,
) -> Result<(), Error> {
    let tensors = model
        .tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor.input));
    let users = match &model.users {
        Some(users) => {
            let place = (users.name.as_str(), users.input);
            Some((users, users::read(request, place, &users.parameters)?))
        }
        None => None,
    };
    let user_count = users.as_ref().map(|(_, ids)| ids.len());
    let length = defaults::rows(request, user_count, tensors)?;
    if let Some((users, ids)) = users {
        let echo = of_type!(users.data_type, echo);
        echo(users.output, &ids, response)?;
    }
    for tensor in &model.tensors {
        let write = of_type!(tensor.data_type, write);
        write(tensor, length, request, response, now_s)?;
    }
    Ok(())
}

/// Writes the user ids unchanged.
fn echo<T: Element>(output: usize, ids: &Tensor<'_>, response: &Response<'_>) -> Result<(), Error> {
    let ids = ids.as_slice::<T>()?;
    if let Some(values) = response.output_at::<T>(output, &[ids.len() as i64])? {
        values.copy_from_slice(&ids);
    }
    Ok(())
}

fn write<T: Number + Element>(
    tensor: &Filled,
    length: usize,
    request: &Request<'_>,
    response: &Response<'_>,
    now_s: u64,
) -> Result<(), Error> {
    let given = match request.input_at(tensor.input)? {
        Some(input) => Some(input.vector::<T>()?),
        None => None,
    };
    if let Some(values) = response.output_at::<T>(tensor.output, &[length as i64])? {
        defaults::fill(values, given.as_deref(), tensor.default, now_s);
    }
    Ok(())
}

triton_backend::export!(RequestDefaults);
