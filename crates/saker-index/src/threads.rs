//! Limits the threads of one call into FAISS.

use std::num::NonZeroUsize;
use std::sync::{Mutex, Once, PoisonError};

use libc::c_int;

unsafe extern "C" {
    /// OpenMP; `faiss-sys` links libgomp.
    fn omp_set_num_threads(threads: c_int);
}

/// Sets the thread count of the FAISS calls that the current thread makes from here on.
///
/// OpenMP keeps the setting per calling thread, so one index does not disturb another.
pub(crate) fn limit(threads: NonZeroUsize) {
    let threads = c_int::try_from(threads.get()).unwrap_or(c_int::MAX);
    if threads > 1 {
        keep_openmp_loaded();
    }
    // SAFETY: takes a positive int by value and writes a control variable of the calling thread; nothing else.
    unsafe { omp_set_num_threads(threads) };
}

/// The thread count that the loaded indexes need of OpenBLAS; 0 before the first one.
static BLAS: Mutex<c_int> = Mutex::new(0);

/// Lets OpenBLAS use at least this many threads. Before the first call, it uses all cores.
///
/// FAISS calls OpenBLAS for batches of 20 queries and more. It has one setting for the process: the largest that an index asked for. An
/// index that is loaded later leaves it alone, unless it needs more.
pub(crate) fn blas_at_least(threads: NonZeroUsize) {
    let threads = c_int::try_from(threads.get()).unwrap_or(c_int::MAX);
    let mut needed = BLAS.lock().unwrap_or_else(PoisonError::into_inner);
    if threads > *needed {
        *needed = threads;
        set_blas(threads);
    }
}

/// Runs `build` with this many threads of OpenBLAS, and then sets the earlier count again.
pub(crate) fn with_blas<T>(threads: NonZeroUsize, build: impl FnOnce() -> T) -> T {
    let needed = BLAS.lock().unwrap_or_else(PoisonError::into_inner);
    set_blas(c_int::try_from(threads.get()).unwrap_or(c_int::MAX));
    let built = build();
    set_blas((*needed).max(1));
    built
}

/// Sets OpenBLAS's thread count, when it is OpenBLAS that answers as BLAS. Callers hold the lock of [`BLAS`].
fn set_blas(threads: c_int) {
    // SAFETY: the name is a C string with its zero; dlsym only looks the symbol up.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"openblas_set_num_threads".as_ptr()) };
    if symbol.is_null() {
        return; // the reference BLAS has one thread anyway
    }
    // SAFETY: OpenBLAS declares `void openblas_set_num_threads(int)`; a null symbol was turned away above, and the
    // library stays loaded because FAISS, in this very object, is linked against it. It resizes its pool of threads under
    // its own lock; two callers at once are excluded by ours.
    unsafe {
        let set: unsafe extern "C" fn(c_int) = std::mem::transmute(symbol);
        set(threads);
    }
}

/// OpenMP parks its workers for the next parallel call. A server that unloads a backend would unmap the code they wait
/// in, so the first call with several threads keeps libgomp mapped for good.
fn keep_openmp_loaded() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // SAFETY: the name is a C string with its zero. The library is loaded already (RTLD_NOLOAD), so no
        // initialisation code runs; the handle is left open on purpose.
        unsafe { libc::dlopen(c"libgomp.so.1".as_ptr(), flags) };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenBLAS's thread count; `None` for another BLAS.
    fn blas() -> Option<c_int> {
        // SAFETY: the name is a C string with its zero; dlsym only looks the symbol up.
        let symbol =
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"openblas_get_num_threads".as_ptr()) };
        if symbol.is_null() {
            return None;
        }
        // SAFETY: OpenBLAS declares `int openblas_get_num_threads(void)`, and the symbol is not null.
        let get: unsafe extern "C" fn() -> c_int = unsafe { std::mem::transmute(symbol) };
        // SAFETY: a plain read.
        Some(unsafe { get() })
    }

    #[test]
    fn a_later_index_takes_no_threads_from_an_earlier_one() {
        let (one, two) = (NonZeroUsize::MIN, NonZeroUsize::MIN.saturating_add(1));
        blas_at_least(two);
        blas_at_least(one);
        assert!(blas().is_none_or(|count| count >= 2), "{:?}", blas());
    }
}
