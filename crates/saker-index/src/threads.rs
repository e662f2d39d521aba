//! Limits the threads of one call into FAISS.

use std::num::NonZeroUsize;
use std::sync::Once;

use libc::c_int;

unsafe extern "C" {
    /// OpenMP; `faiss-sys` links libgomp.
    fn omp_set_num_threads(threads: c_int);
}

/// Sets the thread count of the FAISS calls that the current thread makes from here on.
///
/// OpenMP keeps the setting per calling thread, so one index does not disturb another. OpenBLAS, which FAISS calls for
/// batches of 20 queries and more, has one setting for the process.
pub(crate) fn limit(threads: NonZeroUsize) {
    let threads = c_int::try_from(threads.get()).unwrap_or(c_int::MAX);
    if threads > 1 {
        keep_openmp_loaded();
    }
    // SAFETY: takes a positive int by value and writes a control variable of the calling thread; nothing else.
    unsafe { omp_set_num_threads(threads) };
}

/// Sets OpenBLAS's thread count, when it is OpenBLAS that answers as BLAS.
pub(crate) fn limit_blas(threads: NonZeroUsize) {
    let threads = c_int::try_from(threads.get()).unwrap_or(c_int::MAX);
    // SAFETY: the name is a C string with its zero; dlsym only looks the symbol up.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"openblas_set_num_threads".as_ptr()) };
    if symbol.is_null() {
        return; // the reference BLAS has one thread anyway
    }
    // SAFETY: OpenBLAS declares `void openblas_set_num_threads(int)`; a null symbol was turned away above, and the
    // library stays loaded because FAISS, in this very object, is linked against it.
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
