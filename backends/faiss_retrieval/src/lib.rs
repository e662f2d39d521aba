//! Finds the items with the nearest vectors to a query in a FAISS index. See the README beside this crate.

#![warn(clippy::indexing_slicing)]

use std::borrow::Cow;
use std::sync::Arc;

use saker_steps::retrieval::{Parameters, Retrieval};
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Response, Signature,
};

pub mod rows;

/// A loaded model.
pub struct FaissRetrieval {
    retrieval: Retrieval,
    id_type: DataType,
    /// Whether the tensors have a batch dimension. If so, the answer has rows; otherwise it is flat.
    batched: bool,
}

/// An instance with its reusable buffers.
#[derive(Default)]
pub struct Worker {
    queries: Vec<f32>,
    scores: Vec<f32>,
    ids: Vec<i64>,
}

impl Model for FaissRetrieval {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        Signature::new()
            .other_inputs(&[DataType::Fp32])
            .other_outputs(&[DataType::Int32, DataType::Int64])
    }

    fn load(context: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        let config = context.config();
        let ([input], [output]) = (config.inputs(), config.outputs()) else {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt must declare one input, the queries, and one output, the candidates; it declares {} and {}",
                config.inputs().len(),
                config.outputs().len()
            )));
        };
        let queries = format!("input '{}' in config.pbtxt", input.name);
        let values = input.dims.last().copied().unwrap_or(-1);
        let retrieval = Retrieval::load(context, (&queries, values), &parameters)?;
        Ok(Self {
            retrieval,
            id_type: output.data_type,
            batched: config.max_batch_size() > 0,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker::default())
    }
}

impl Instance<FaissRetrieval> for Worker {
    fn execute(&mut self, model: &FaissRetrieval, batch: &Batch<'_>) -> Result<(), Error> {
        // The queries of each valid request, in the order of the batch.
        let mut gathered: Vec<(usize, Cow<'_, [f32]>)> = Vec::with_capacity(batch.len());
        for (position, request) in batch.pending() {
            match model.retrieval.queries(request, 0) {
                Ok(queries) => gathered.push((position, queries)),
                Err(error) => batch.reject(position, error),
            }
        }
        self.queries.clear();
        let queries = match &gathered[..] {
            [(_, queries)] => queries, // no copy for a request on its own
            several => {
                for (_, queries) in several {
                    self.queries.extend_from_slice(queries);
                }
                &self.queries[..]
            }
        };
        batch.compute_starts();
        model
            .retrieval
            .search(queries, &mut self.scores, &mut self.ids)?;
        batch.compute_ends();
        let mut ids = &self.ids[..];
        for (position, queries) in &gathered {
            let count = queries.len() / model.retrieval.dimension();
            let (own, rest) = ids.split_at(count * model.retrieval.k());
            ids = rest;
            batch.respond(*position, |_, response| match model.id_type {
                DataType::Int64 => write::<i64>(model, own, count, response),
                _ => write::<i32>(model, own, count, response),
            });
        }
        Ok(())
    }
}

fn write<T: rows::Id + Element>(
    model: &FaissRetrieval,
    found: &[i64],
    queries: usize,
    response: &Response<'_>,
) -> Result<(), Error> {
    let kept = match model.batched {
        true => model.retrieval.k(),
        false => rows::kept(found, queries),
    };
    let (flat, batched) = ([(queries * kept) as i64], [queries as i64, kept as i64]);
    let shape = if model.batched { &batched[..] } else { &flat };
    if let Some(output) = response.output_at::<T>(0, shape)? {
        rows::copy(found, output).map_err(|id| {
            Error::internal(format!(
                "the index holds id {id}, too large for an output of type {}; accepted: declare the output as TYPE_INT64",
                T::DATA_TYPE
            ))
        })?;
    }
    Ok(())
}

triton_backend::export!(FaissRetrieval);
