//! Finds the items whose vectors are nearest to a query in a FAISS index. See the README beside this crate.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;

use saker_index::Index;
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
    log,
};

pub mod rows;

const INDEX_FILE: &str = "index.faiss";

/// Parameters in config.pbtxt.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// How many candidates each query gets.
    #[serde(default = "three_hundred")]
    retrieval_topk: usize,
    /// FAISS's search parameters, such as `nprobe=8`.
    #[serde(default)]
    search_parameters: String,
    /// Threads of one search.
    #[serde(default = "one")]
    threads: NonZeroUsize,
}

fn three_hundred() -> usize {
    300
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// A loaded model.
pub struct FaissRetrieval {
    index: Index,
    /// Candidates of one query: RETRIEVAL_TOPK, or as many vectors as the index has.
    k: usize,
    id_type: DataType,
    /// Whether the tensors have a batch dimension, so that answers are rows and not flat.
    batched: bool,
}

/// Buffers that are used again.
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
        if parameters.retrieval_topk == 0 {
            return Err(Error::invalid_argument(
                "parameter RETRIEVAL_TOPK = '0'; accepted: 1 or more",
            ));
        }
        let path = context.version_dir().join(INDEX_FILE);
        let mut index = Index::read(&path).map_err(|error| Error::not_found(error.to_string()))?;
        if let Some(dim) = input.dims.last()
            && *dim > 0
            && *dim != index.dimension() as i64
        {
            return Err(Error::invalid_argument(format!(
                "input '{}' has {dim} values a query in config.pbtxt, but the vectors in {} have {}",
                input.name,
                path.display(),
                index.dimension()
            )));
        }
        index
            .set_search_parameters(&parameters.search_parameters)
            .map_err(|error| {
                Error::invalid_argument(format!("parameter SEARCH_PARAMETERS: {error}"))
            })?;
        index.set_threads(parameters.threads);
        log::info!(
            "model '{}': {} vectors of {} values, {}",
            context.name(),
            index.len(),
            index.dimension(),
            index.metric()
        );
        Ok(Self {
            k: parameters.retrieval_topk.min(index.len()),
            index,
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
        // The queries of each request that can be served, in the order of the batch.
        let mut gathered: Vec<(usize, Cow<'_, [f32]>)> = Vec::with_capacity(batch.len());
        for (position, request) in batch.pending() {
            match queries(model, request) {
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
        let found = queries.len() / model.index.dimension() * model.k;
        self.scores.resize(found, 0.0);
        self.ids.resize(found, saker_index::NO_NEIGHBOUR);
        model
            .index
            .search(queries, model.k, &mut self.scores, &mut self.ids)
            .map_err(|error| Error::internal(error.to_string()))?;
        batch.compute_ends();
        let mut ids = &self.ids[..];
        for (position, queries) in &gathered {
            let count = queries.len() / model.index.dimension();
            let (own, rest) = ids.split_at(count * model.k);
            ids = rest;
            batch.respond(*position, |_, response| match model.id_type {
                DataType::Int64 => write::<i64>(model, own, count, response),
                _ => write::<i32>(model, own, count, response),
            });
        }
        Ok(())
    }
}

fn queries<'r>(model: &FaissRetrieval, request: &'r Request<'_>) -> Result<Cow<'r, [f32]>, Error> {
    let input = request
        .input_at(0)?
        .ok_or_else(|| Error::invalid_argument("the request leaves out the queries"))?;
    let dimension = model.index.dimension();
    match input.shape() {
        [_, values] if *values == dimension as i64 => {}
        shape => {
            return Err(Error::invalid_argument(format!(
                "tensor '{}' has shape {shape:?}; accepted: [queries, {dimension}]",
                input.name()
            )));
        }
    }
    let queries = input.as_slice::<f32>()?;
    if let Some((row, value)) = rows::first_odd_row(&queries, dimension) {
        return Err(Error::invalid_argument(format!(
            "tensor '{}' holds {value} in row {row}; accepted: finite numbers",
            input.name()
        )));
    }
    Ok(queries)
}

fn write<T: rows::Id + Element>(
    model: &FaissRetrieval,
    found: &[i64],
    queries: usize,
    response: &Response<'_>,
) -> Result<(), Error> {
    let kept = match model.batched {
        true => model.k,
        false => rows::kept(found, queries),
    };
    let (flat, batched) = ([(queries * kept) as i64], [queries as i64, kept as i64]);
    let shape = if model.batched { &batched[..] } else { &flat };
    if let Some(output) = response.output_at::<T>(0, shape)? {
        rows::copy(found, output).map_err(|id| {
            Error::invalid_argument(format!(
                "the index holds id {id}, too large for an output of type {}; accepted: declare the output as TYPE_INT64",
                T::DATA_TYPE
            ))
        })?;
    }
    Ok(())
}

triton_backend::export!(FaissRetrieval);
