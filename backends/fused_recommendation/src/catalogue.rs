//! Maps raw item ids to rows of the ranker's tables.

use std::path::Path;

use hashbrown::HashMap;
use ndarray::Array1;
use triton_backend::Error;

/// The dense table is used up to this number of entries per item.
const PLACES: usize = 16;

/// The rows by raw item id.
pub(crate) enum Catalogue {
    /// The row at index `id - first`; -1 if no item has the id.
    Dense { first: i64, rows: Vec<i32> },
    /// For ids with large gaps.
    Sparse(HashMap<i64, i32>),
}

impl Catalogue {
    /// Reads `items.npy`: the raw id of each row, INT64 `[items]`.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let ids: Array1<i64> = ndarray_npy::read_npy(path).map_err(|error| {
            Error::invalid_argument(format!("cannot read {}: {error}", path.display()))
        })?;
        Self::new(ids.iter().copied())
            .map_err(|why| Error::invalid_argument(format!("{}: {why}", path.display())))
    }

    fn new(ids: impl ExactSizeIterator<Item = i64> + Clone) -> Result<Self, String> {
        if i32::try_from(ids.len()).is_err() {
            return Err(format!(
                "{} items; accepted: {} at most",
                ids.len(),
                i32::MAX
            ));
        }
        let rows = || ids.clone().zip(0_i32..);
        let (first, last) = (
            ids.clone().min().unwrap_or(0),
            ids.clone().max().unwrap_or(-1),
        );
        let places = last.checked_sub(first).and_then(|span| span.checked_add(1));
        let places = places.and_then(|places| usize::try_from(places).ok());
        let dense = places.filter(|&places| places <= ids.len().saturating_mul(PLACES));
        let twice = |id: i64| format!("the item {id} comes twice");
        match dense {
            Some(places) => {
                let mut dense = vec![-1; places];
                for (id, row) in rows() {
                    let place = usize::try_from(id - first).ok();
                    let place = place.and_then(|place| dense.get_mut(place));
                    let place = place
                        .ok_or_else(|| format!("the item {id} is not in {first} to {last}"))?;
                    if *place >= 0 {
                        return Err(twice(id));
                    }
                    *place = row;
                }
                Ok(Self::Dense { first, rows: dense })
            }
            None => {
                let mut sparse = HashMap::with_capacity(ids.len());
                for (id, row) in rows() {
                    if sparse.insert(id, row).is_some() {
                        return Err(twice(id));
                    }
                }
                Ok(Self::Sparse(sparse))
            }
        }
    }

    /// The row of an item; `None` if the catalogue lacks the item.
    pub(crate) fn row(&self, id: i64) -> Option<i32> {
        match self {
            Self::Dense { first, rows } => {
                let place = usize::try_from(id.checked_sub(*first)?).ok()?;
                rows.get(place).copied().filter(|&row| row >= 0)
            }
            Self::Sparse(rows) => rows.get(&id).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(ids: &[i64]) -> Result<Catalogue, String> {
        Catalogue::new(ids.iter().copied())
    }

    #[test]
    fn ids_near_and_far_have_their_rows() {
        let far = [7, i64::MIN, i64::MAX, 0, -5];
        let near = [12, 10, 15, 11];
        for (ids, dense) in [(&far[..], false), (&near, true), (&[], true)] {
            let catalogue = catalogue(ids).unwrap();
            assert_eq!(matches!(catalogue, Catalogue::Dense { .. }), dense);
            for (row, id) in ids.iter().enumerate() {
                assert_eq!(catalogue.row(*id), Some(row as i32));
            }
            for id in [13, -1, 16, i64::MAX - 1, i64::MIN + 1, 9] {
                assert_eq!(catalogue.row(id), None, "{id}");
            }
        }
    }

    #[test]
    fn an_item_comes_once() {
        for ids in [[3, 4, 3], [3, i64::MAX, 3]] {
            assert_eq!(catalogue(&ids).err().unwrap(), "the item 3 comes twice");
        }
    }
}
