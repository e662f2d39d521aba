//! The C API of FAISS behind an owned handle. Lengths are checked by the caller, [`crate::Index`].

use std::ffi::{CStr, CString};
use std::os::raw::c_int;
use std::ptr::NonNull;

use faiss_sys as ffi;

/// An index that FAISS allocated; freed on drop.
pub(crate) struct Handle(NonNull<ffi::FaissIndex>);

// SAFETY: a FAISS index on the CPU has no tie to the thread that made it.
unsafe impl Send for Handle {}
// SAFETY: the methods that take `&self` only read the index, and FAISS documents concurrent searches of a CPU index as
// safe; whatever changes the index takes `&mut self`.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the pointer came from FAISS, is owned by this handle alone and is not used again.
        unsafe { ffi::faiss_Index_free(self.0.as_ptr()) }
    }
}

impl Handle {
    /// An empty index by factory string.
    pub(crate) fn factory(
        description: &str,
        dimension: c_int,
        metric: ffi::FaissMetricType,
    ) -> Result<Self, String> {
        let description = c_string(description.as_bytes())?;
        let mut index = std::ptr::null_mut();
        // SAFETY: `index` is a valid place for the result and `description` is a C string that outlives the call.
        check(unsafe {
            ffi::faiss_index_factory(&mut index, dimension, description.as_ptr(), metric)
        })?;
        Self::own(index)
    }

    /// Reads an index from a file.
    pub(crate) fn read(path: &[u8]) -> Result<Self, String> {
        let path = c_string(path)?;
        let mut index = std::ptr::null_mut();
        // SAFETY: `index` is a valid place for the result and `path` is a C string that outlives the call.
        check(unsafe { ffi::faiss_read_index_fname(path.as_ptr(), 0, &mut index) })?;
        Self::own(index)
    }

    /// Writes the index to a file, over what was there.
    pub(crate) fn write(&self, path: &[u8]) -> Result<(), String> {
        let path = c_string(path)?;
        // SAFETY: the handle is alive and `path` is a C string that outlives the call.
        check(unsafe { ffi::faiss_write_index_fname(self.0.as_ptr(), path.as_ptr()) })
    }

    /// Wraps this empty index so that it keeps ids of the caller's.
    pub(crate) fn with_id_map(self) -> Result<Self, String> {
        let mut map = std::ptr::null_mut();
        // SAFETY: the inner index is alive; FAISS stores its pointer in the new map.
        check(unsafe { ffi::faiss_IndexIDMap_new(&mut map, self.0.as_ptr()) })?;
        let map = Self::own(map)?;
        // SAFETY: `map` is the IndexIDMap made above. From here on it frees the inner index, which is why the inner
        // handle is forgotten.
        unsafe { ffi::faiss_IndexIDMap_set_own_fields(map.0.as_ptr(), 1) };
        std::mem::forget(self);
        Ok(map)
    }

    pub(crate) fn dimension(&self) -> c_int {
        // SAFETY: the handle is alive; a plain read.
        unsafe { ffi::faiss_Index_d(self.0.as_ptr()) }
    }

    pub(crate) fn len(&self) -> i64 {
        // SAFETY: the handle is alive; a plain read.
        unsafe { ffi::faiss_Index_ntotal(self.0.as_ptr()) }
    }

    pub(crate) fn metric(&self) -> ffi::FaissMetricType {
        // SAFETY: the handle is alive; a plain read.
        unsafe { ffi::faiss_Index_metric_type(self.0.as_ptr()) }
    }

    pub(crate) fn is_trained(&self) -> bool {
        // SAFETY: the handle is alive; a plain read.
        unsafe { ffi::faiss_Index_is_trained(self.0.as_ptr()) != 0 }
    }

    /// Trains on `rows` vectors. `vectors` must hold `rows` times the dimension.
    pub(crate) fn train(&mut self, rows: i64, vectors: &[f32]) -> Result<(), String> {
        // SAFETY: the handle is alive and exclusively borrowed; the caller checked that `vectors` holds `rows` rows.
        check(unsafe { ffi::faiss_Index_train(self.0.as_ptr(), rows, vectors.as_ptr()) })
    }

    /// Adds vectors with their ids. `vectors` must hold `ids.len()` times the dimension.
    pub(crate) fn add_with_ids(&mut self, vectors: &[f32], ids: &[i64]) -> Result<(), String> {
        // SAFETY: the handle is alive and exclusively borrowed; the caller checked that both slices hold as many rows
        // as `ids` is long.
        check(unsafe {
            ffi::faiss_Index_add_with_ids(
                self.0.as_ptr(),
                ids.len() as i64,
                vectors.as_ptr(),
                ids.as_ptr(),
            )
        })
    }

    /// Sets one parameter by name.
    pub(crate) fn set_parameter(&mut self, name: &str, value: f64) -> Result<(), String> {
        let name = c_string(name.as_bytes())?;
        let mut space = std::ptr::null_mut();
        // SAFETY: `space` is a valid place for the result.
        check(unsafe { ffi::faiss_ParameterSpace_new(&mut space) })?;
        // SAFETY: space and handle are alive, the handle exclusively borrowed, the name a C string.
        let status = unsafe {
            ffi::faiss_ParameterSpace_set_index_parameter(
                space,
                self.0.as_ptr(),
                name.as_ptr(),
                value,
            )
        };
        let result = check(status);
        // SAFETY: made above and not used again.
        unsafe { ffi::faiss_ParameterSpace_free(space) };
        result
    }

    /// The `k` nearest of each of `rows` queries. `queries` must hold `rows` times the dimension, `scores` and `ids`
    /// `rows * k` each.
    pub(crate) fn search(
        &self,
        rows: i64,
        queries: &[f32],
        k: i64,
        scores: &mut [f32],
        ids: &mut [i64],
    ) -> Result<(), String> {
        // SAFETY: the handle is alive and searching does not change it; the caller checked that the queries hold `rows`
        // rows and that both result buffers hold `rows * k` values, which is all that FAISS reads and writes.
        check(unsafe {
            ffi::faiss_Index_search(
                self.0.as_ptr(),
                rows,
                queries.as_ptr(),
                k,
                scores.as_mut_ptr(),
                ids.as_mut_ptr(),
            )
        })
    }

    fn own(index: *mut ffi::FaissIndex) -> Result<Self, String> {
        NonNull::new(index)
            .map(Self)
            .ok_or_else(|| "FAISS returned no index".to_owned())
    }
}

/// Every fallible function of the C API catches C++ exceptions and returns a negative number for them.
fn check(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: no arguments; FAISS keeps the last exception of the calling thread, so its text stays valid until the
    // next call that fails on this thread, and it is copied before that.
    let text = unsafe {
        let text = ffi::faiss_get_last_error();
        if text.is_null() {
            return Err(format!("FAISS error {status}"));
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    };
    Err(shorten(&text))
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

fn c_string(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| "a zero byte in the name".to_owned())
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
