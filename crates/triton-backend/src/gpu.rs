//! Copies between GPU and host memory. CUDA is loaded with the first tensor on a GPU, so builds and machines without a GPU do not need it.

use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cudarc::driver::{CudaContext, result, sys};

use crate::Error;

/// The primary context of each GPU, shared with the server.
static CONTEXTS: LazyLock<Mutex<HashMap<i64, Arc<CudaContext>>>> = LazyLock::new(Mutex::default);

/// Copies `byte_size` bytes from GPU `device` to the host and waits for the end of the copy.
///
/// # Safety
/// `from` holds `byte_size` bytes on that GPU, and `to` has room for them.
pub(crate) unsafe fn copy_to_host(
    to: *mut u8,
    from: *const u8,
    byte_size: usize,
    device: i64,
) -> Result<(), Error> {
    let _bound = bind(device)?;
    // SAFETY: per the contract; the context is current on this thread.
    let copied = unsafe { sys::cuMemcpyDtoH_v2(to.cast(), from.addr() as u64, byte_size) };
    copied
        .result()
        .map_err(|e| failed("copying from", device, e))
}

/// Copies `byte_size` bytes from the host to GPU `device` and waits for the end of the copy.
///
/// # Safety
/// `from` holds `byte_size` bytes, and `to` has room for them on that GPU.
pub(crate) unsafe fn copy_from_host(
    to: *mut u8,
    from: *const u8,
    byte_size: usize,
    device: i64,
) -> Result<(), Error> {
    let _bound = bind(device)?;
    // SAFETY: per the contract; the context is current on this thread.
    let copied = unsafe { sys::cuMemcpyHtoD_v2(to.addr() as u64, from.cast(), byte_size) };
    copied.result().map_err(|e| failed("copying to", device, e))
}

/// A GPU's context is current on this thread until this is dropped, which makes the earlier one current again: the thread is Triton's, and
/// another backend may rely on its current device.
struct Bound {
    /// NULL if the thread had none.
    earlier: sys::CUcontext,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // SAFETY: the context was current on this thread, and its owner does not destroy it during a call of ours. A failure leaves ours
        // current, which is the primary context of the GPU and stays alive.
        let _ = unsafe { result::ctx::set_current(self.earlier) };
    }
}

/// Makes the GPU's context the current one of this thread.
fn bind(device: i64) -> Result<Bound, Error> {
    // SAFETY: looks for the library and loads it; CUDA's driver library has no load-time effects
    // that matter here.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::unavailable(format!(
            "is in the memory of GPU {device}, but CUDA's driver library (libcuda.so) cannot be loaded"
        )));
    }
    let opening = |error| failed("opening", device, error);
    result::init().map_err(opening)?;
    let earlier = result::ctx::get_current().map_err(opening)?;
    // From here on, every way out restores it.
    let bound = Bound {
        earlier: earlier.unwrap_or(ptr::null_mut()),
    };
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let context = match contexts.get(&device) {
        Some(context) => context.clone(),
        None => {
            let ordinal = usize::try_from(device)
                .map_err(|_| Error::invalid_argument(format!("GPU {device} does not exist")))?;
            let context = CudaContext::new(ordinal).map_err(opening)?;
            contexts.insert(device, context.clone());
            context
        }
    };
    context
        .bind_to_thread()
        .map_err(|e| failed("binding", device, e))?;
    Ok(bound)
}

fn failed(what: &str, device: i64, error: result::DriverError) -> Error {
    Error::unavailable(format!("{what} GPU {device} failed: {error:?}"))
}
