//! `bloom_filter`: takes the items that a user has seen out of the candidates, and tops up with popular ones. README.md has
//! the tensors, the parameters and what happens at the edges.

mod batch;
mod fallback;
mod parameters;
mod rows;

use std::sync::Arc;

use saker_store::Link;
use saker_store::seen::{Mode, Reader};
use triton_backend::log::{self, EveryMinute};
use triton_backend::{Batch, Counter, DataType, Error, Instance, Model, ModelContext, Signature};

use crate::batch::Worker;
use crate::fallback::Fallback;
use crate::parameters::Parameters;

const ID_TYPES: &[DataType] = &[DataType::Int32, DataType::Int64];

/// Stands for no item, and for no user.
const PADDING: i64 = -1;

/// One loaded `bloom_filter` model.
pub struct BloomFilter {
    link: Link,
    mode: Mode,
    reader: Reader,
    fallback: Option<Fallback>,
    users: Ids,
    items: Ids,
    categories: Option<Ids>,
    meters: Meters,
}

/// One input.
struct Ids {
    position: usize,
    name: String,
    data_type: DataType,
}

/// What is counted and said.
struct Meters {
    degraded: Counter,
    filtered: Counter,
    topped_up: Counter,
    line: EveryMinute,
    model: String,
}

impl Model for BloomFilter {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        Signature::new()
            .other_inputs(ID_TYPES)
            .other_outputs(ID_TYPES)
    }

    fn load(context: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        let config = context.config();
        let ([users, items, categories @ ..], [filtered]) = (config.inputs(), config.outputs())
        else {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares {} inputs and {} outputs; accepted: the user ids and the candidate ids, in this \
                 order, perhaps the users' top categories, and one output for the ids that pass",
                config.inputs().len(),
                config.outputs().len()
            )));
        };
        if filtered.data_type != items.data_type {
            return Err(Error::invalid_argument(format!(
                "output '{}' is {} and holds ids of input '{}'; accepted: {}",
                filtered.name, filtered.data_type, items.name, items.data_type
            )));
        }
        if let [_, extra, ..] = categories {
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
        parameters.check_sizes()?;
        let settings = parameters.settings()?.with_bloom_probe();
        let fallback = Fallback::load(context, &parameters, &settings)?;
        let link = Link::open(settings).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self {
            link,
            mode: parameters.mode()?,
            reader: parameters.reader(),
            fallback,
            users: Ids {
                position: 0,
                name: users.name.clone(),
                data_type: users.data_type,
            },
            items: Ids {
                position: 1,
                name: items.name.clone(),
                data_type: items.data_type,
            },
            categories: categories.first().map(|input| Ids {
                position: 2,
                name: input.name.clone(),
                data_type: input.data_type,
            }),
            meters: Meters::new(context)?,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker::new(self))
    }
}

impl Meters {
    fn new(context: &ModelContext) -> Result<Self, Error> {
        let counter = |name: &str, help: &str| context.counter(name, help, &[]);
        Ok(Self {
            degraded: counter(
                "saker_bloom_filter_degraded_total",
                "Requests with a user whose candidates were not filtered because the store was down or late",
            )?,
            filtered: counter(
                "saker_bloom_filter_filtered_total",
                "Candidates taken out as seen",
            )?,
            topped_up: counter("saker_bloom_filter_topped_up_total", "Popular items put in")?,
            line: EveryMinute::new(),
            model: context.name().to_owned(),
        })
    }

    fn degraded(&self, requests: usize, why: &dyn std::fmt::Display) {
        self.degraded.increment(requests as u64);
        if let Some(more) = self.line.due() {
            log::warn!(
                "model '{}': seen items are not known, letting candidates pass: {why} ({more} more such calls since \
                 the last line)",
                self.model
            );
        }
    }
}

impl Instance<BloomFilter> for Worker {
    fn execute(&mut self, model: &BloomFilter, batch: &Batch<'_>) -> Result<(), Error> {
        Worker::execute(self, model, batch)
    }
}

triton_backend::export!(BloomFilter);
