//! Conversions between Triton's error pointers and [`Error`].

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use triton_rs_sys as sys;

use crate::error::{Code, Error};

/// Takes a returned error pointer; NULL is success.
///
/// # Safety
/// `error` is NULL or an error that the caller owns.
pub(crate) unsafe fn check(error: *mut sys::TRITONSERVER_Error) -> Result<(), Error> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null and owned by us, per the contract; deleted once, after the last use.
    unsafe {
        let code = Code::from_raw(sys::TRITONSERVER_ErrorCode(error));
        let message = text(sys::TRITONSERVER_ErrorMessage(error)).into_owned();
        sys::TRITONSERVER_ErrorDelete(error);
        Err(Error::new(code, message))
    }
}

/// The text of a C string of Triton; empty when NULL.
///
/// # Safety
/// `string` is NULL or a NUL-terminated string that lives as long as `'a`.
pub(crate) unsafe fn text<'a>(string: *const c_char) -> std::borrow::Cow<'a, str> {
    if string.is_null() {
        return "".into();
    }
    // SAFETY: per the contract.
    unsafe { CStr::from_ptr(string) }.to_string_lossy()
}

/// A C string of any text; a NUL inside, which a C string cannot contain, becomes a space.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// An owned Triton error; the message starts with the name `model`.
pub(crate) fn to_raw(error: &Error, model: Option<&str>) -> *mut sys::TRITONSERVER_Error {
    let message = match model {
        Some(model) => c_string(&format!("model '{model}': {}", error.message())),
        None => c_string(error.message()),
    };
    // SAFETY: the message is NUL-terminated, and Triton copies it.
    unsafe { sys::TRITONSERVER_ErrorNew(error.code().to_raw(), message.as_ptr()) }
}

/// Runs `body` and turns a panic into an error.
pub(crate) fn guard<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Callers answer with the error and do not use the state that `body` left.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(panic_error(payload)))
}

/// Runs an entry point: an error or a panic becomes the returned error.
pub(crate) fn entry(
    model: Option<&str>,
    body: impl FnOnce() -> Result<(), Error>,
) -> *mut sys::TRITONSERVER_Error {
    match guard(body) {
        Ok(()) => ptr::null_mut(),
        Err(error) => to_raw(&error, model),
    }
}

fn panic_error(payload: Box<dyn Any + Send>) -> Error {
    let message = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    discard(payload);
    Error::internal(format!("the backend panicked: {message}"))
}

/// Drops a panic's payload. Its drop may panic too, which must not cross the FFI. The second payload is leaked unless it is a string.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
        && !thrown.is::<&str>()
        && !thrown.is::<String>()
    {
        std::mem::forget(thrown);
    }
}
