//! Write backends for NVIDIA Triton Inference Server in safe Rust.
//!
//! A backend consists of a type that implements [`Model`] (shared by all instances), a type that implements [`Instance`] (exclusive), and
//! one line, [`export!`]. `docs/writing-a-backend.md` leads from an empty folder to a model that Triton serves. `examples/backends/scale`
//! is a complete small backend.
//!
//! ```no_run
//! use std::sync::Arc;
//! use triton_backend::{Batch, DataType, Error, Instance, Model, ModelContext, Signature};
//!
//! /// Doubles the FP32 vector `x` into `y`.
//! struct Double;
//! struct Worker;
//!
//! impl Model for Double {
//!     type Parameters = ();
//!     type Instance = Worker;
//!
//!     fn signature(_: &()) -> Signature {
//!         Signature::new().input("x", &[DataType::Fp32]).output("y", &[DataType::Fp32])
//!     }
//!     fn load(_: &Arc<ModelContext>, _: ()) -> Result<Self, Error> {
//!         Ok(Double)
//!     }
//!     fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
//!         Ok(Worker)
//!     }
//! }
//!
//! impl Instance<Double> for Worker {
//!     fn execute(&mut self, _: &Double, batch: &Batch<'_>) -> Result<(), Error> {
//!         batch.respond_each(|request, response| {
//!             let x = request.input("x")?;
//!             let elements = x.as_slice::<f32>()?;
//!             if let Some(y) = response.output::<f32>("y", x.shape())? {
//!                 for (y, x) in y.iter_mut().zip(elements.iter()) {
//!                     *y = 2.0 * x;
//!                 }
//!             }
//!             Ok(())
//!         });
//!         Ok(())
//!     }
//! }
//!
//! triton_backend::export!(Double);
//! ```
//!
//! The SDK answers and releases each request exactly once, whatever the backend does. It turns a panic into an error. At load, it checks
//! parameters, tensors, server version and release. It reports statistics, and copies inputs from a GPU to the host.

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
pub use release::Release;
pub use response::Response;
pub use signature::{ANY_TYPE, FIXED_SIZE_TYPES, Signature};
pub use tensor::{Strings, Tensor};

/// For use by [`export!`] only.
#[doc(hidden)]
pub mod __private {
    pub use triton_rs_sys as sys;
}

/// Exports a [`Model`] as the backend of this library: defines the functions that Triton looks up.
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
