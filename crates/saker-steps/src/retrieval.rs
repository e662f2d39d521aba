//! Finds the nearest items to a query. Used by `faiss_retrieval` and the fused step.

use std::borrow::Cow;
use std::num::NonZeroUsize;

use saker_contract::artefact::INDEX;
use saker_index::{Index, NO_NEIGHBOUR};
use serde::Deserialize;
use triton_backend::{Error, ModelContext, Request, log};

/// The parameters of `faiss_retrieval` in config.pbtxt. Its README describes each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// Number of candidates per query.
    #[serde(default = "three_hundred")]
    retrieval_topk: usize,
    /// FAISS's search parameters, such as `nprobe=8`.
    #[serde(default)]
    search_parameters: String,
    /// Number of threads per search.
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
    /// Reads the index of the model's version folder. `queries` describes the source of the queries and the number of values of each; -1 if
    /// that number is unknown.
    ///
    /// # Errors
    /// Returns an error if the index is missing, has another dimension, or refuses the search parameters.
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
        let path = context.version_dir().join(INDEX);
        let mut index = Index::read(&path).map_err(|error| Error::not_found(error.to_string()))?;
        if values > 0 && values != index.dimension() as i64 {
            return Err(Error::invalid_argument(format!(
                "{queries} has {values} values per query, but the vectors in {} have {}",
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

    /// Number of candidates per query: RETRIEVAL_TOPK, or the number of vectors if the index has fewer.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of values per query.
    pub fn dimension(&self) -> usize {
        self.index.dimension()
    }

    /// The queries of a request, `[queries, dimension]`, at this index of its inputs.
    ///
    /// # Errors
    /// Returns an error if the queries are missing, have another shape, or are not finite.
    pub fn queries<'r>(
        &self,
        request: &'r Request<'_>,
        position: usize,
    ) -> Result<Cow<'r, [f32]>, Error> {
        let input = request
            .input_at(position)?
            .ok_or_else(|| Error::invalid_argument("the queries are missing from the request"))?;
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

    /// Checks that all queries of the tensor `name` are finite.
    ///
    /// # Errors
    /// Returns an error if a value is NaN or infinite.
    pub fn check(&self, name: &str, queries: &[f32]) -> Result<(), Error> {
        match first_odd_row(queries, self.index.dimension()) {
            None => Ok(()),
            Some((row, value)) => Err(Error::invalid_argument(format!(
                "tensor '{name}' holds {value} in row {row}; accepted: finite numbers"
            ))),
        }
    }

    /// The ids of the [`k`](Self::k) nearest items of each query, best first; -1 pads a row with fewer.
    ///
    /// # Errors
    /// Returns an error if FAISS fails.
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
