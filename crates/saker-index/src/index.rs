use std::num::NonZeroUsize;
use std::path::Path;

use crate::native::Handle;
use crate::{Error, Metric, parameters, threads};

/// The id in a search result where the index had no further neighbour to give.
pub const NO_NEIGHBOUR: i64 = saker_contract::RawId::NONE;

/// A FAISS index on the CPU: flat, IVF, HNSW, PQ or any other that FAISS's factory builds and its reader reads.
///
/// Searches take `&self` and may run from several threads at once. A search uses one thread unless
/// [`set_threads`](Self::set_threads) says otherwise.
pub struct Index {
    native: Handle,
    dimension: usize,
    threads: NonZeroUsize,
}

impl Index {
    /// Builds an index of `ids.len()` vectors from FAISS's factory string, trains it on the vectors if its kind needs training, and adds
    /// the vectors under their ids.
    ///
    /// Kinds that number their vectors themselves (flat, HNSW, PQ) are wrapped in FAISS's `IDMap`. The build uses all cores; see
    /// [`build_with_threads`](Self::build_with_threads) for fewer. Training uses a fixed seed, so the same vectors give the same index,
    /// except for HNSW on several threads.
    ///
    /// # Shapes
    ///
    /// - `vectors`: `[ids.len(), dimension]` f32, rows one after the other, finite
    /// - `ids`: `[rows]` i64, 0 or more
    ///
    /// # Errors
    ///
    /// Returns an error for an unknown factory string, for lengths that do not match, for a vector that is not finite, for a negative id,
    /// and for too few training vectors.
    ///
    /// # Source
    ///
    /// The factory strings are described in FAISS's wiki, page "The index factory".
    pub fn build(
        factory: &str,
        dimension: usize,
        metric: Metric,
        vectors: &[f32],
        ids: &[i64],
    ) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self::build_with_threads(cores, factory, dimension, metric, vectors, ids)
    }

    /// Like [`build`](Self::build), with this number of threads. On a busy machine, one thread is the fastest, because OpenMP's threads
    /// wait for each other in busy loops.
    ///
    /// # Errors
    ///
    /// Returns an error as [`build`](Self::build) does.
    pub fn build_with_threads(
        threads: NonZeroUsize,
        factory: &str,
        dimension: usize,
        metric: Metric,
        vectors: &[f32],
        ids: &[i64],
    ) -> Result<Self, Error> {
        check_vectors(dimension, vectors, ids)?;
        let not_made = |reason| Error::Factory {
            factory: factory.to_owned(),
            dimension,
            reason,
        };
        // FAISS counts dimensions in a C int.
        let native_dimension = i32::try_from(dimension)
            .ok()
            .filter(|dimension| *dimension > 0)
            .ok_or_else(|| not_made("the dimension must be 1 or more".to_owned()))?
            .unsigned_abs();
        let native_metric = metric.to_native().ok_or_else(|| {
            not_made(format!(
                "the metric is {metric}; accepted are {} and {}",
                Metric::InnerProduct,
                Metric::L2
            ))
        })?;
        let make = || Handle::factory(factory, native_dimension, native_metric).map_err(not_made);

        threads::limit(threads);
        let native = make()?;
        let native = threads::with_blas(threads, || fill(native, factory, vectors, ids));
        Self::own(native?)
    }

    /// Reads an index that this crate, or FAISS in any language, has written.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is missing, unreadable, truncated or not a FAISS index, and for an index of dimension 0.
    pub fn read(path: &Path) -> Result<Self, Error> {
        // Opened here first because the reason reads better than what FAISS makes of it.
        std::fs::File::open(path).map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })?;
        let damaged = |reason| Error::Read {
            path: path.to_owned(),
            reason,
        };
        let native = Handle::read(path).map_err(damaged)?;
        if i32::try_from(native.dimension()).map_or(true, |dimension| dimension == 0)
            || i64::try_from(native.len()).is_err()
        {
            return Err(damaged(format!(
                "its header says {} vectors of dimension {}",
                native.len(),
                native.dimension()
            )));
        }
        if !native.is_trained() {
            return Err(damaged("the index in it was never trained".to_owned()));
        }
        Self::own(native)
    }

    /// Writes the index in FAISS's file format to a temporary file and renames it, so that readers never see a partial file.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder is missing or not writable, or if the disk is full.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |reason| Error::Write {
            path: path.to_owned(),
            reason,
        };
        let mut beside = path.as_os_str().to_owned();
        beside.push(".partial");
        self.native.write(beside.as_ref()).map_err(failed)?;
        std::fs::rename(&beside, path).map_err(|error| failed(error.to_string()))
    }

    /// Number of values in a vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of vectors in the index.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.native.len()).unwrap_or(0)
    }

    /// Whether the index holds no vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the index compares vectors; it decides whether a search puts high or low scores first.
    #[must_use]
    pub fn metric(&self) -> Metric {
        Metric::from_native(self.native.metric())
    }

    /// Sets search parameters by FAISS's names: `nprobe=8` for IVF, `efSearch=64` for HNSW; separate several by commas.
    ///
    /// # Errors
    ///
    /// Returns an error for a name that this kind of index lacks, for a value that is not a number of 0 or more, and for a value with which
    /// a search fails (`nprobe=0`).
    pub fn set_search_parameters(&mut self, parameters: &str) -> Result<(), Error> {
        for (name, value) in parameters::parse(parameters)? {
            let wrong = |reason| Error::Parameter {
                parameter: format!("{name}={value}"),
                reason,
            };
            self.native
                .set_parameter(name, value)
                .map_err(|_| wrong("this kind of index does not have it".to_owned()))?;
            // FAISS checks some values only when it searches. Better now than at the first request.
            let query = vec![0.0; self.dimension];
            self.search(&query, 1, &mut [0.0], &mut [NO_NEIGHBOUR])
                .map_err(|error| wrong(error.to_string()))?;
        }
        Ok(())
    }

    /// Sets how many threads one search may use; 1 unless set. More pay off for batches of queries only.
    ///
    /// The part that OpenBLAS computes (flat and coarse search of 20 queries and more) has one thread count in the whole
    /// process: the largest that an index asked for.
    pub fn set_threads(&mut self, count: NonZeroUsize) {
        self.threads = count;
        threads::blas_at_least(count);
    }

    /// Finds the `k` nearest vectors of each query, nearest first.
    ///
    /// If fewer than `k` vectors are found, because the index or the probed lists are smaller, the rest of that query's row has the id
    /// [`NO_NEIGHBOUR`]. The same applies to a query with a NaN. FAISS does not define its result, so callers should refuse such queries.
    ///
    /// # Shapes
    ///
    /// - `queries`: `[queries, dimension]` f32
    /// - `scores`: `[queries, k]` f32, written: inner products or squared distances, by [`metric`](Self::metric)
    /// - `ids`: `[queries, k]` i64, written
    ///
    /// # Errors
    ///
    /// Returns an error if lengths do not match. A search without queries, or with `k` 0, is valid and finds nothing.
    pub fn search(
        &self,
        queries: &[f32],
        k: usize,
        scores: &mut [f32],
        ids: &mut [i64],
    ) -> Result<(), Error> {
        let rows = queries.len() / self.dimension;
        if rows * self.dimension != queries.len() {
            return Err(Error::Length {
                what: "queries",
                got: queries.len(),
                need: format!("a multiple of the index's dimension {}", self.dimension),
            });
        }
        for (what, got) in [("scores", scores.len()), ("ids", ids.len())] {
            if rows.checked_mul(k) != Some(got) {
                return Err(Error::Length {
                    what,
                    got,
                    need: format!("{rows} queries x {k}"),
                });
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        threads::limit(self.threads);
        self.native
            .search(rows as i64, queries, k as i64, scores, ids)
            .map_err(Error::Search)
    }

    fn own(native: Handle) -> Result<Self, Error> {
        let dimension = usize::try_from(native.dimension()).unwrap_or(0);
        threads::blas_at_least(NonZeroUsize::MIN);
        Ok(Self {
            native,
            dimension,
            threads: NonZeroUsize::MIN,
        })
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Index")
            .field("dimension", &self.dimension)
            .field("len", &self.len())
            .field("metric", &self.metric())
            .field("threads", &self.threads)
            .finish()
    }
}

fn check_vectors(dimension: usize, vectors: &[f32], ids: &[i64]) -> Result<(), Error> {
    if ids.len().checked_mul(dimension) != Some(vectors.len()) {
        return Err(Error::Length {
            what: "vectors",
            got: vectors.len(),
            need: format!("{} ids x dimension {dimension}", ids.len()),
        });
    }
    if let Some((row, &id)) = ids.iter().enumerate().find(|(_, id)| **id < 0) {
        return Err(Error::NegativeId { row, id });
    }
    let vectors = vectors.chunks_exact(dimension.max(1));
    for (row, (&id, vector)) in ids.iter().zip(vectors).enumerate() {
        if let Some(&value) = vector.iter().find(|value| !value.is_finite()) {
            return Err(Error::NotFinite { row, id, value });
        }
    }
    Ok(())
}

/// Trains the empty index where it needs that and adds the vectors, through an id map when it keeps no ids of its own.
fn fill(mut native: Handle, factory: &str, vectors: &[f32], ids: &[i64]) -> Result<Handle, Error> {
    if !native.is_trained() {
        native.train(vectors).map_err(|reason| Error::Train {
            factory: factory.to_owned(),
            vectors: ids.len(),
            reason,
        })?;
    }
    let not_added = |reason| Error::Add {
        factory: factory.to_owned(),
        vectors: ids.len(),
        reason,
    };
    match native.add_with_ids(vectors, ids) {
        Ok(()) => Ok(native),
        // The base class of FAISS says this before anything was added.
        Err(reason) if reason.contains("add_with_ids not implemented") => {
            let mut mapped = native.with_id_map().map_err(not_added)?;
            mapped.add_with_ids(vectors, ids).map_err(not_added)?;
            Ok(mapped)
        }
        Err(reason) => Err(not_added(reason)),
    }
}
