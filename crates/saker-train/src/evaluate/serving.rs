//! Retrieval as in serving: the index may be approximate, and the seen filter may have false positives.

use super::Case;
use crate::Error;

/// How serving finds candidates and removes seen items.
pub trait Serving: Sync {
    /// Item rows that the index returns for each query, best first, at most `k` each.
    ///
    /// # Shapes
    /// - `queries`: `[queries, dim]`
    ///
    /// # Errors
    /// Returns an error if the index cannot be searched.
    fn candidates(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<u32>>, Error>;

    /// The candidates that the seen filter returns for this request. Seen candidates are removed after the search, so the list becomes
    /// shorter.
    ///
    /// # Errors
    /// Returns an error if the filter cannot be created.
    fn unseen(&self, candidates: &[u32], case: &Case) -> Result<Vec<u32>, Error>;
}
