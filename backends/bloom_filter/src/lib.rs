//! `bloom_filter` removes the items that a user has seen from the candidates, and fills up with popular items. README.md has the tensors,
//! the parameters and the edge cases.

#![warn(clippy::indexing_slicing)]

mod batch;
mod rows;

use std::sync::Arc;

use saker_contract::tensor::DEGRADED;
use saker_steps::seen::{self, Filter};
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Error, Instance, Model, ModelContext, Signature, TensorConfig,
};

use crate::batch::Worker;

const ID_TYPES: &[DataType] = &[DataType::Int32, DataType::Int64];

/// Parameters in config.pbtxt, in addition to those that the fused ensemble shares.
#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    #[serde(default = "seen::redis_url")]
    redis_url: String,
    #[serde(default)]
    mode: Option<String>,
}

/// One loaded `bloom_filter` model.
pub struct BloomFilter {
    filter: Filter,
    users: Ids,
    items: Ids,
    categories: Option<Ids>,
    /// Index of the input mask of missing user data, and index of the output mask, which adds the seen items.
    degraded: Option<usize>,
    degraded_output: Option<usize>,
    /// Index of the output with the ids that pass.
    filtered: usize,
}

/// One input.
struct Ids {
    position: usize,
    name: String,
    data_type: DataType,
}

impl Model for BloomFilter {
    type Parameters = (Parameters, seen::Parameters);
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new()
            .other_inputs(ID_TYPES)
            .other_outputs(ID_TYPES)
    }

    fn load(context: &Arc<ModelContext>, (store, seen): Self::Parameters) -> Result<Self, Error> {
        let config = context.config();
        let (degraded, degraded_output) =
            (config.input_index(DEGRADED), config.output_index(DEGRADED));
        let (inputs, outputs) = (others(config.inputs()), others(config.outputs()));
        let ([(_, users), (items_at, items), categories @ ..], [(filtered_at, filtered)]) =
            (&inputs[..], &outputs[..])
        else {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares {} inputs and {} outputs; accepted: the user ids and the candidate ids, in this \
                 order, perhaps the users' top categories, and one output for the ids that pass",
                inputs.len(),
                outputs.len()
            )));
        };
        if filtered.data_type != items.data_type {
            return Err(Error::invalid_argument(format!(
                "output '{}' is {} and holds ids of input '{}'; accepted: {}",
                filtered.name, filtered.data_type, items.name, items.data_type
            )));
        }
        let tensors = config.inputs().iter().chain(config.outputs());
        for tensor in tensors.filter(|tensor| tensor.name == DEGRADED) {
            if tensor.data_type != DataType::Int32 {
                return Err(Error::invalid_argument(format!(
                    "tensor '{}' is {}; accepted: INT32",
                    tensor.name, tensor.data_type
                )));
            }
        }
        if let [_, (_, extra), ..] = categories {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares the input '{}'; accepted: three at most, user ids, candidate ids and top categories",
                extra.name
            )));
        }
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(format!(
                "max_batch_size is {}; accepted: 0, since a request carries its users in its tensors",
                config.max_batch_size()
            )));
        }
        let mode = seen::mode("MODE", store.mode.as_deref())?;
        let store = seen.settings("REDIS_URL", &store.redis_url)?;
        Ok(Self {
            filter: Filter::load(context, &seen, store, mode, users.data_type)?,
            users: Ids {
                position: 0,
                name: users.name.clone(),
                data_type: users.data_type,
            },
            items: Ids {
                position: *items_at,
                name: items.name.clone(),
                data_type: items.data_type,
            },
            categories: categories.first().map(|(position, input)| Ids {
                position: *position,
                name: input.name.clone(),
                data_type: input.data_type,
            }),
            degraded,
            degraded_output,
            filtered: *filtered_at,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker::new(self))
    }
}

/// The tensors whose meaning depends on their position, with their indices in the config.
fn others(tensors: &[TensorConfig]) -> Vec<(usize, &TensorConfig)> {
    let tensors = tensors.iter().enumerate();
    tensors
        .filter(|(_, tensor)| tensor.name != DEGRADED)
        .collect()
}

impl Instance<BloomFilter> for Worker {
    fn execute(&mut self, model: &BloomFilter, batch: &Batch<'_>) -> Result<(), Error> {
        Worker::execute(self, model, batch)
    }
}

triton_backend::export!(BloomFilter);
