//! Fills in what a request leaves out: every output is the optional input of its name, or that tensor's default.
//! See the README beside this crate.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
    tensor_names,
};

use saker_steps::defaults::{self, Default, Number};

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
}

/// A loaded model.
pub struct RequestDefaults {
    tensors: Vec<Filled>,
}

/// One output and where it comes from.
struct Filled {
    name: String,
    data_type: DataType,
    input: usize,
    default: Default,
}

/// Nothing is kept between batches.
pub struct Worker;

impl Model for RequestDefaults {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        Signature::new()
            .other_inputs(NUMBERS)
            .other_outputs(NUMBERS)
    }

    fn load(context: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        let config = context.config();
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: requests may leave all tensors out, and then none says how long a batch is",
            ));
        }
        let mut defaults = defaults::parse(parameters.defaults.as_deref())?;
        let tensors = config
            .outputs()
            .iter()
            .map(|output| {
                let input = config.input_index(&output.name).ok_or_else(|| {
                    Error::invalid_argument(format!(
                        "output '{}' needs an input of the same name",
                        output.name
                    ))
                })?;
                let input_type = config.inputs()[input].data_type;
                if input_type != output.data_type {
                    return Err(Error::invalid_argument(format!(
                        "output '{}' is {}, but the input of its name is {input_type}",
                        output.name, output.data_type
                    )));
                }
                Ok(Filled {
                    name: output.name.clone(),
                    data_type: output.data_type,
                    input,
                    default: defaults
                        .remove(&output.name)
                        .unwrap_or(Default::Value(-1.0)),
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if let Some(name) = defaults.keys().next() {
            return Err(Error::invalid_argument(format!(
                "parameter 'DEFAULTS' names '{name}'; accepted: outputs of config.pbtxt, which are {}",
                tensor_names(config.outputs())
            )));
        }
        Ok(Self { tensors })
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
    let length = defaults::rows(request, tensors)?;
    for (output, tensor) in model.tensors.iter().enumerate() {
        let write = match tensor.data_type {
            DataType::Int8 => write::<i8>,
            DataType::Int16 => write::<i16>,
            DataType::Int32 => write::<i32>,
            DataType::Int64 => write::<i64>,
            DataType::Uint8 => write::<u8>,
            DataType::Uint16 => write::<u16>,
            DataType::Uint32 => write::<u32>,
            DataType::Uint64 => write::<u64>,
            DataType::Fp32 => write::<f32>,
            _ => write::<f64>, // the signature lets no other type through
        };
        write(output, tensor, length, request, response, now_s)?;
    }
    Ok(())
}

fn write<T: Number + Element>(
    output: usize,
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
    if let Some(values) = response.output_at::<T>(output, &[length as i64])? {
        defaults::fill(values, given.as_deref(), tensor.default, now_s);
    }
    Ok(())
}

triton_backend::export!(RequestDefaults);
