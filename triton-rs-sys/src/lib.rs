#![doc = include_str!("../README.md")]

// `build.rs` says where the header comes from.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    unreachable_pub,
    clippy::all,
    unsafe_code,
    reason = "generated from C"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

/// The functions that a backend library exports; Triton finds them by name.
///
/// `triton_backend::entry_points` returns one for a model type. A test can thus run several models in one process, in which each exported
/// name exists only once.
#[derive(Debug, Clone, Copy)]
pub struct EntryPoints {
    /// `TRITONBACKEND_Initialize`
    pub initialize: unsafe extern "C" fn(*mut TRITONBACKEND_Backend) -> *mut TRITONSERVER_Error,
    /// `TRITONBACKEND_Finalize`
    pub finalize: unsafe extern "C" fn(*mut TRITONBACKEND_Backend) -> *mut TRITONSERVER_Error,
    /// `TRITONBACKEND_GetBackendAttribute`
    pub backend_attribute: unsafe extern "C" fn(
        *mut TRITONBACKEND_Backend,
        *mut TRITONBACKEND_BackendAttribute,
    ) -> *mut TRITONSERVER_Error,
    /// `TRITONBACKEND_ModelInitialize`
    pub model_initialize: unsafe extern "C" fn(*mut TRITONBACKEND_Model) -> *mut TRITONSERVER_Error,
    /// `TRITONBACKEND_ModelFinalize`
    pub model_finalize: unsafe extern "C" fn(*mut TRITONBACKEND_Model) -> *mut TRITONSERVER_Error,
    /// `TRITONBACKEND_ModelInstanceInitialize`
    pub instance_initialize:
        unsafe extern "C" fn(*mut TRITONBACKEND_ModelInstance) -> *mut TRITONSERVER_Error,
    /// `TRITONBACKEND_ModelInstanceFinalize`
    pub instance_finalize:
        unsafe extern "C" fn(*mut TRITONBACKEND_ModelInstance) -> *mut TRITONSERVER_Error,
    /// `TRITONBACKEND_ModelInstanceExecute`
    pub execute: unsafe extern "C" fn(
        *mut TRITONBACKEND_ModelInstance,
        *mut *mut TRITONBACKEND_Request,
        u32,
    ) -> *mut TRITONSERVER_Error,
}
