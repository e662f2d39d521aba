//! The index of the items' vectors, and retrieval as in serving, without a server.

use anyhow::{Context, Result};
use saker_index::{Index, NO_NEIGHBOUR};
use saker_pipeline::{Metric, Pipeline, Retrieval};
use saker_prepare::table;
use saker_serving::layout::Layout;
use saker_store::seen::bitmap::{self, Filter, Geometry, HEADER};
use saker_train::Error;
use saker_train::data::Dataset;
use saker_train::evaluate::{Case, Serving};
use saker_train::towers::Towers;

/// Builds the index that `[retrieval]` describes.
///
/// # Shapes
/// - `rows`: `[ids, dim]`
///
/// # Errors
/// Returns an error if FAISS does not know the index type or its search parameters.
pub fn build(retrieval: &Retrieval, dim: usize, rows: &[f32], ids: &[i64]) -> Result<Index> {
    let metric = match retrieval.metric {
        Metric::InnerProduct => saker_index::Metric::InnerProduct,
        Metric::L2 => saker_index::Metric::L2,
    };
    let mut index = Index::build(&retrieval.index, dim, metric, rows, ids)
        .with_context(|| format!("retrieval.index = \"{}\"", retrieval.index))?;
    if !retrieval.search_parameters.is_empty() {
        index
            .set_search_parameters(&retrieval.search_parameters)
            .with_context(|| {
                format!(
                    "retrieval.search_parameters = \"{}\"",
                    retrieval.search_parameters
                )
            })?;
    }
    Ok(index)
}

/// The index of given towers, as `saker index` builds it, and Bloom filters of the store's size.
pub struct Served {
    /// The index; its ids are item rows.
    index: Index,
    /// Item ids, by row.
    ids: Vec<i64>,
    filter: Geometry,
}

impl Served {
    /// Builds the index.
    ///
    /// # Errors
    /// Returns an error as [`build`] does, or if the prepared items cannot be read.
    pub fn new(
        pipeline: &Pipeline,
        layout: &Layout,
        towers: &Towers,
        data: &Dataset,
    ) -> Result<Self> {
        let items = table::read(&layout.data("items"))?;
        let ids = table::int32s(&items, &pipeline.item.id)?;
        let vectors = towers.item_vectors(data);
        let dim = vectors.len() / data.items.rows.max(1);
        let known = data.in_vocabulary();
        let known: Vec<usize> = (0..known.len()).filter(|&row| known[row]).collect();
        let of = |row: &usize| vectors[row * dim..(row + 1) * dim].to_vec();
        let rows: Vec<f32> = known.iter().flat_map(of).collect();
        let numbers: Vec<i64> = known.iter().map(|&row| row as i64).collect();
        let bloom = &pipeline.store.bloom;
        Ok(Self {
            index: build(&pipeline.retrieval, dim, &rows, &numbers)?,
            ids: ids.iter().map(|&id| i64::from(id)).collect(),
            filter: Geometry::new(bloom.capacity, bloom.error_rate)?,
        })
    }
}

impl Serving for Served {
    fn candidates(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<u32>>, Error> {
        let count = queries.len() / self.index.dimension().max(1);
        let (mut scores, mut rows) = (vec![0.0; count * k], vec![NO_NEIGHBOUR; count * k]);
        self.index
            .search(queries, k, &mut scores, &mut rows)
            .map_err(|error| Error::Data(format!("the index cannot be searched: {error}")))?;
        let found = |rows: &[i64]| {
            let found = rows.iter().filter(|&&row| row != NO_NEIGHBOUR);
            found.filter_map(|&row| u32::try_from(row).ok()).collect()
        };
        Ok(rows.chunks(k.max(1)).map(found).collect())
    }

    fn unseen(&self, candidates: &[u32], case: &Case) -> Result<Vec<u32>, Error> {
        let failed = |error| Error::Data(format!("the filter of seen items: {error}"));
        let id = |&row: &u32| self.ids[row as usize];
        let seen: Vec<i64> = case.seen.iter().map(id).collect();
        let change = bitmap::insert(None, self.filter, &seen).map_err(failed)?;
        let mut bytes = change.geometry.header().to_vec();
        for position in change.bits {
            let byte = (position / 8) as usize;
            bytes.resize(bytes.len().max(byte + 1).max(HEADER), 0);
            bytes[byte] |= 0x80 >> (position % 8);
        }
        let filter = Filter::read(&bytes).map_err(failed)?;
        let unseen = candidates.iter().filter(|row| !filter.contains(id(row)));
        Ok(unseen.copied().collect())
    }
}
