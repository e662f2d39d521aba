//! The crate `faiss` with what a request path needs beside it: a search that borrows the index and writes into the
//! caller's buffers. Lengths are checked by the caller, [`crate::Index`].

use std::path::Path;

use faiss::error::Error as FaissError;
use faiss::index::autotune::ParameterSpace;
use faiss::index::id_map::IdMap;
use faiss::index::io::{read_index, write_index};
use faiss::index::{IndexImpl, UpcastIndex};
use faiss::{Idx, Index as _, MetricType, index_factory};
use faiss_sys as ffi;

/// An index in FAISS's memory.
///
/// Backends search one index from several threads, and drop it on another one than it was made on. `faiss` declares
/// `IndexImpl` as `Send` and `Sync`. That is sound here: an index on the CPU belongs to no thread, a search through `&self`
/// changes nothing that another one reads, and whatever changes the index takes `&mut self`.
pub(crate) struct Handle(IndexImpl);

const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Handle>();
};

impl Handle {
    /// An empty index by factory string.
    pub(crate) fn factory(
        description: &str,
        dimension: u32,
        metric: MetricType,
    ) -> Result<Self, String> {
        let index = index_factory(dimension, description, metric).map_err(reason)?;
        Ok(Self(index))
    }

    /// Reads an index from a file.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        Ok(Self(read_index(utf8(path)?).map_err(reason)?))
    }

    /// Writes the index to a file, over what was there.
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        write_index(&self.0, utf8(path)?).map_err(reason)
    }

    /// Wraps this empty index so that it keeps ids of the caller's.
    pub(crate) fn with_id_map(self) -> Result<Self, String> {
        Ok(Self(IdMap::new(self.0).map_err(reason)?.upcast()))
    }

    pub(crate) fn dimension(&self) -> u32 {
        self.0.d()
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.ntotal()
    }

    /// FAISS's number of the metric: `faiss` knows two of them and panics at the others.
    pub(crate) fn metric(&self) -> ffi::FaissMetricType {
        // SAFETY: the index is alive; a plain read.
        unsafe { ffi::faiss_Index_metric_type(self.0.inner_ptr()) }
    }

    pub(crate) fn is_trained(&self) -> bool {
        self.0.is_trained()
    }

    /// Trains on `vectors`, whole rows of the dimension.
    pub(crate) fn train(&mut self, vectors: &[f32]) -> Result<(), String> {
        self.0.train(vectors).map_err(reason)
    }

    /// Adds vectors with their ids. `vectors` must hold `ids.len()` times the dimension.
    pub(crate) fn add_with_ids(&mut self, vectors: &[f32], ids: &[i64]) -> Result<(), String> {
        let ids: Vec<Idx> = ids.iter().copied().map(Idx::from).collect();
        self.0.add_with_ids(vectors, &ids).map_err(reason)
    }

    /// Sets one parameter by name.
    pub(crate) fn set_parameter(&mut self, name: &str, value: f64) -> Result<(), String> {
        ParameterSpace::new()
            .and_then(|space| space.set_index_parameter(&self.0, name, value))
            .map_err(reason)
    }

    /// The `k` nearest of each of `rows` queries. `queries` must hold `rows` times the dimension, `scores` and `ids`
    /// `rows * k` each.
    ///
    /// `faiss` itself has this for an index of unknown kind with `&mut self` only, and allocates its answer.
    pub(crate) fn search(
        &self,
        rows: i64,
        queries: &[f32],
        k: i64,
        scores: &mut [f32],
        ids: &mut [i64],
    ) -> Result<(), String> {
        // SAFETY: the index is alive and on the CPU, where FAISS documents concurrent searches as safe; whatever
        // changes it takes `&mut self`. The caller checked that the queries hold `rows` rows and that both result
        // buffers hold `rows * k` values, which is all that FAISS reads and writes.
        let status = unsafe {
            ffi::faiss_Index_search(
                self.0.inner_ptr(),
                rows,
                queries.as_ptr(),
                k,
                scores.as_mut_ptr(),
                ids.as_mut_ptr(),
            )
        };
        if status == 0 {
            return Ok(());
        }
        Err(last_error().unwrap_or_else(|| format!("FAISS error {status}")))
    }
}

/// The text of the exception that the last call of this thread ended in.
fn last_error() -> Option<String> {
    // SAFETY: no arguments. FAISS keeps the last exception of the calling thread, so its text stays valid until the
    // next call that fails on this thread, and it is copied before that.
    let text = unsafe {
        let text = ffi::faiss_get_last_error();
        if text.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(text)
    };
    Some(shorten(&text.to_string_lossy()))
}

fn reason(error: FaissError) -> String {
    match &error {
        FaissError::Native(native) => shorten(native.msg()),
        other => other.to_string(),
    }
}

/// "Error in void faiss::f(..) at /build/…/X.cpp:12: Error: 'condition' failed: what happened" → its last part, which
/// is the one that says something to a user.
fn shorten(text: &str) -> String {
    let reason = text
        .split_once(".cpp:")
        .or_else(|| text.split_once(".h:"))
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(text, |(_, reason)| reason);
    match reason.trim() {
        // what() of an exception that the C API caught by its base class, such as std::bad_alloc
        "std::exception" => "out of memory, or another C++ exception".to_owned(),
        reason => reason.to_owned(),
    }
}

fn utf8(path: &Path) -> Result<&str, String> {
    path.to_str()
        .ok_or_else(|| "FAISS takes a path in UTF-8 only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn messages_lose_the_source_position() {
        assert_eq!(
            shorten(
                "Error in void faiss::f(int) at /a/b/Clustering.cpp:295: Error: 'x' failed: too few points"
            ),
            "Error: 'x' failed: too few points"
        );
        assert_eq!(shorten("plain"), "plain");
        assert!(shorten("std::exception").contains("memory"));
    }
}
