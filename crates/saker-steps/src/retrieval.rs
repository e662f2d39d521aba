//! The items nearest to a query: `faiss_retrieval`, and the fused step.

use std::borrow::Cow;
use std::num::NonZeroUsize;

use saker_index::{Index, NO_NEIGHBOUR};
use serde::Deserialize;
use triton_backend::{Error, ModelContext, Request, log};

const INDEX_FILE: &str = "index.faiss";

/// The parameters of `faiss_retrieval` in config.pbtxt; its README describes each.
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

/// The index of a model.
pub struct Retrieval {
    index: Index,
    k: usize,
}

impl Retrieval {
    /// Reads the index of the model's version folder; `queries` are where the queries come from and the values of each, -1 where
    /// that is not known.
    ///
    /// # Errors
    /// It is missing, of another dimension, or does not take the parameters.
    pub fn load(
        context: &ModelContext,
        (queries, values): (&str, i64),
        parameters: &Parameters,
    ) -> Result<Self, Error> {
        if parameters.retrieval_topk == 0 {
            return Err(Error::invalid_argument(
                "parameter RETRIEVAL_TOPK = '0'; accepted: 1 or more",
            ));
        }
        let path = context.version_dir().join(INDEX_FILE);
        let mut index = Index::read(&path).map_err(|error| Error::not_found(error.to_string()))?;
        if values > 0 && values != index.dimension() as i64 {
            return Err(Error::invalid_argument(format!(
                "{queries} has {values} values a query, but the vectors in {} have {}",
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
        })
    }

    /// Candidates of one query: RETRIEVAL_TOPK, or as many vectors as the index has.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Values of a query.
    pub fn dimension(&self) -> usize {
        self.index.dimension()
    }

    /// The queries of a request, `[queries, dimension]`, at this position of its inputs.
    ///
    /// # Errors
    /// They are missing, of another shape, or not finite.
    pub fn queries<'r>(
        &self,
        request: &'r Request<'_>,
        position: usize,
    ) -> Result<Cow<'r, [f32]>, Error> {
        let input = request
            .input_at(position)?
            .ok_or_else(|| Error::invalid_argument("the request leaves out the queries"))?;
        let dimension = self.index.dimension();
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
        self.check(input.name(), &queries)?;
        Ok(queries)
    }

    /// That all queries, which the tensor `name` holds, are finite.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self, name: &str, queries: &[f32]) -> Result<(), Error> {
        match first_odd_row(queries, self.index.dimension()) {
            None => Ok(()),
            Some((row, value)) => Err(Error::invalid_argument(format!(
                "tensor '{name}' holds {value} in row {row}; accepted: finite numbers"
            ))),
        }
    }

    /// The ids of the [`k`](Self::k) nearest items of each query, best first, -1 where there are fewer.
    ///
    /// # Errors
    /// FAISS fails.
    pub fn search(
        &self,
        queries: &[f32],
        scores: &mut Vec<f32>,
        ids: &mut Vec<i64>,
    ) -> Result<(), Error> {
        let found = queries.len() / self.index.dimension() * self.k;
        scores.resize(found, 0.0);
        ids.resize(found, NO_NEIGHBOUR);
        self.index
            .search(queries, self.k, scores, ids)
            .map_err(|error| Error::internal(error.to_string()))
    }
}

/// The row of the first value that is NaN or infinite.
fn first_odd_row(queries: &[f32], dimension: usize) -> Option<(usize, f32)> {
    let mut values = queries.iter().enumerate();
    let (at, &value) = values.find(|(_, value)| !value.is_finite())?;
    Some((at / dimension, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_queries_are_found() {
        assert_eq!(
            first_odd_row(&[1.0, 2.0, f32::INFINITY, 0.0], 2).unwrap().0,
            1
        );
        assert!(first_odd_row(&[f32::NAN], 1).unwrap().1.is_nan());
        assert_eq!(first_odd_row(&[f32::MAX, f32::MIN, -0.0], 1), None);
    }
}
