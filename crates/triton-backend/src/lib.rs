#![doc = include_str!("../README.md")]
#![allow(
    unsafe_code,
    reason = "this crate is the safe side of a C API; every block says why it is sound"
)]
#![warn(clippy::indexing_slicing)]

mod artefacts;
mod batch;
mod borrows;
mod buffer;
mod clock;
mod config;
mod context;
mod data_type;
mod entry;
mod error;
mod ffi;
mod gpu;
pub mod log;
mod metrics;
mod model;
mod parameters;
mod periodic;
mod release;
mod response;
mod signature;
mod tensor;

pub use batch::{Batch, Request};
pub use config::{ModelConfig, TensorConfig, tensor_names};
pub use context::ModelContext;
pub use data_type::{DataType, Element};
pub use entry::{LOWEST_API, entry_points};
pub use error::{Code, Error};
pub use metrics::{Counter, Gauge};
pub use model::{Instance, Model};
pub use periodic::{Periodic, Stop};
pub use release::Release;
pub use response::Response;
pub use signature::{ANY_TYPE, FIXED_SIZE_TYPES, Signature};
pub use tensor::{Strings, Tensor};

/// For use by [`export!`] only.
#[doc(hidden)]
pub mod __private {
    pub use half;
    pub use triton_rs_sys as sys;
}

/// Exports a [`Model`] as the backend of this library: defines the functions that Triton looks up.
///
/// Once in a library, for the type that implements [`Model`]; the crate's example shows it. The library is a `cdylib` of the name
/// `triton_<backend>`.
#[macro_export]
macro_rules! export {
    ($model:ty) => {
        #[allow(unsafe_code, missing_docs, reason = "the C functions that Triton looks up by name")]
        const _: () = {
            use $crate::__private::sys;

            $crate::export!(@function TRITONBACKEND_Initialize, initialize, $model,
                (backend: *mut sys::TRITONBACKEND_Backend));
            $crate::export!(@function TRITONBACKEND_Finalize, finalize, $model,
                (backend: *mut sys::TRITONBACKEND_Backend));
            $crate::export!(@function TRITONBACKEND_GetBackendAttribute, backend_attribute, $model,
                (backend: *mut sys::TRITONBACKEND_Backend,
                 attributes: *mut sys::TRITONBACKEND_BackendAttribute));
            $crate::export!(@function TRITONBACKEND_ModelInitialize, model_initialize, $model,
                (model: *mut sys::TRITONBACKEND_Model));
            $crate::export!(@function TRITONBACKEND_ModelFinalize, model_finalize, $model,
                (model: *mut sys::TRITONBACKEND_Model));
            $crate::export!(@function TRITONBACKEND_ModelInstanceInitialize, instance_initialize, $model,
                (instance: *mut sys::TRITONBACKEND_ModelInstance));
            $crate::export!(@function TRITONBACKEND_ModelInstanceFinalize, instance_finalize, $model,
                (instance: *mut sys::TRITONBACKEND_ModelInstance));
            $crate::export!(@function TRITONBACKEND_ModelInstanceExecute, execute, $model,
                (instance: *mut sys::TRITONBACKEND_ModelInstance,
                 requests: *mut *mut sys::TRITONBACKEND_Request,
                 request_count: u32));
        };
    };
    (@function $name:ident, $entry:ident, $model:ty, ($($argument:ident: $type:ty),*)) => {
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> *mut sys::TRITONSERVER_Error {
            // SAFETY: Triton calls it with what the backend API promises.
            unsafe { ($crate::entry_points::<$model>().$entry)($($argument),*) }
        }
    };
}
