//! The C functions.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use triton_rs_sys::*;

use super::failure::{Failure, Statistic};
use super::objects::{
    BackendObject, Buffer, InputObject, InstanceObject, MessageObject, ModelObject, OutputObject,
    RequestObject, ResponseObject, c_string,
};
use super::process::{self, FamilyEntry, families};

type Error = *mut TRITONSERVER_Error;

const OK: Error = ptr::null_mut();

/// Behind `TRITONSERVER_Error`.
struct ErrorObject {
    code: TRITONSERVER_Error_Code,
    message: CString,
}

/// Behind `TRITONSERVER_Parameter`.
struct ParameterObject {
    name: String,
    value: String,
}

/// Behind `TRITONSERVER_MetricFamily`.
struct FamilyObject(String);

/// Behind `TRITONSERVER_Metric`.
struct MetricObject {
    family: String,
    labels: BTreeMap<String, String>,
}

fn error(code: TRITONSERVER_Error_Code, message: &str) -> Error {
    Box::into_raw(Box::new(ErrorObject {
        code,
        message: c_string(message),
    }))
    .cast()
}

/// Takes an error of which the caller gives up ownership.
///
/// # Safety
/// `raw` is NULL, or was made by `TRITONSERVER_ErrorNew` and not deleted.
pub(super) unsafe fn take(raw: Error) -> Result<(), Failure> {
    if raw.is_null() {
        return Ok(());
    }
    // SAFETY: per the contract.
    let error = unsafe { Box::from_raw(raw.cast::<ErrorObject>()) };
    Err(failure(&error))
}

fn failure(error: &ErrorObject) -> Failure {
    Failure {
        code: error.code,
        message: error.message.to_string_lossy().into_owned(),
    }
}

unsafe fn string(text: *const c_char) -> String {
    // SAFETY: callers pass what the C API says is NUL-terminated.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Defines the functions of the C API. All are `unsafe extern "C"`: pointers are those that
/// the functions of this file or a [`super::Server`] gave out, alive as the C API says.
macro_rules! c_api {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty $body:block)*) => {$(
        #[allow(unused_unsafe, reason = "not every body needs it")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            // SAFETY: see the macro.
            unsafe { $body }
        }
    )*};
}

c_api! {
    // Errors, messages, log

    fn TRITONSERVER_ErrorNew(code: TRITONSERVER_Error_Code, message: *const c_char) -> Error {
        error(code, &string(message))
    }

    fn TRITONSERVER_ErrorDelete(raw: Error) -> () {
        drop(Box::from_raw(raw.cast::<ErrorObject>()));
    }

    fn TRITONSERVER_ErrorCode(raw: Error) -> TRITONSERVER_Error_Code {
        (*raw.cast::<ErrorObject>()).code
    }

    fn TRITONSERVER_ErrorMessage(raw: Error) -> *const c_char {
        (*raw.cast::<ErrorObject>()).message.as_ptr()
    }

    fn TRITONSERVER_MessageNewFromSerializedJson(
        message: *mut *mut TRITONSERVER_Message,
        base: *const c_char,
        size: usize,
    ) -> Error {
        let bytes = std::slice::from_raw_parts(base.cast::<u8>(), size);
        let text = String::from_utf8_lossy(bytes).into_owned();
        *message = Box::into_raw(Box::new(MessageObject::given(text))).cast();
        OK
    }

    fn TRITONSERVER_MessageSerializeToJson(
        message: *mut TRITONSERVER_Message,
        base: *mut *const c_char,
        size: *mut usize,
    ) -> Error {
        let MessageObject { text, .. } = &*message.cast::<MessageObject>();
        *base = text.as_ptr().cast();
        *size = text.len();
        OK
    }

    fn TRITONSERVER_MessageDelete(message: *mut TRITONSERVER_Message) -> Error {
        let message = message.cast::<MessageObject>();
        assert!((*message).given, "a message that the server keeps was deleted");
        drop(Box::from_raw(message));
        OK
    }

    fn TRITONSERVER_LogIsEnabled(level: TRITONSERVER_LogLevel) -> bool {
        level != TRITONSERVER_LOG_VERBOSE
    }

    fn TRITONSERVER_LogMessage(
        level: TRITONSERVER_LogLevel,
        file: *const c_char,
        _line: c_int,
        message: *const c_char,
    ) -> Error {
        assert!(!file.is_null());
        process::log(level, string(message));
        OK
    }

    // Metrics

    fn TRITONSERVER_ParameterNew(
        name: *const c_char,
        kind: TRITONSERVER_ParameterType,
        value: *const c_void,
    ) -> *mut TRITONSERVER_Parameter {
        assert_eq!(kind, TRITONSERVER_PARAMETER_STRING, "the fake knows string parameters alone");
        let parameter = ParameterObject { name: string(name), value: string(value.cast()) };
        Box::into_raw(Box::new(parameter)).cast()
    }

    fn TRITONSERVER_ParameterDelete(parameter: *mut TRITONSERVER_Parameter) -> () {
        drop(Box::from_raw(parameter.cast::<ParameterObject>()));
    }

    fn TRITONSERVER_MetricFamilyNew(
        family: *mut *mut TRITONSERVER_MetricFamily,
        kind: TRITONSERVER_MetricKind,
        name: *const c_char,
        _description: *const c_char,
    ) -> Error {
        if !process::metrics_enabled() {
            return error(TRITONSERVER_ERROR_UNSUPPORTED, "metrics not supported");
        }
        let name = string(name);
        let known = families(|families| {
            let entry = families.entry(name.clone()).or_insert_with(|| FamilyEntry {
                kind,
                handles: 0,
                metrics: BTreeMap::new(),
            });
            entry.handles += usize::from(entry.kind == kind);
            entry.kind == kind
        });
        if !known {
            return error(TRITONSERVER_ERROR_INVALID_ARG, "a metric family of another kind has this name");
        }
        *family = Box::into_raw(Box::new(FamilyObject(name))).cast();
        OK
    }

    fn TRITONSERVER_MetricFamilyDelete(family: *mut TRITONSERVER_MetricFamily) -> Error {
        let FamilyObject(name) = *Box::from_raw(family.cast::<FamilyObject>());
        let empty = families(|families| {
            let entry = families.get_mut(&name).expect("a family that is deleted exists");
            entry.handles -= 1;
            let (unused, empty) = (entry.handles == 0, entry.metrics.is_empty());
            if unused && empty {
                families.remove(&name);
            }
            empty || !unused
        });
        assert!(empty, "metric family '{name}' was deleted before its metrics");
        OK
    }

    fn TRITONSERVER_MetricNew(
        metric: *mut *mut TRITONSERVER_Metric,
        family: *mut TRITONSERVER_MetricFamily,
        labels: *mut *const TRITONSERVER_Parameter,
        label_count: u64,
    ) -> Error {
        let FamilyObject(family) = &*family.cast::<FamilyObject>();
        let labels: BTreeMap<String, String> = (0..label_count as usize)
            .map(|index| {
                let label = &*(*labels.add(index)).cast::<ParameterObject>();
                (label.name.clone(), label.value.clone())
            })
            .collect();
        families(|families| {
            let entry = families.get_mut(family).expect("a family in use exists");
            entry.metrics.entry(labels.clone()).or_insert((0.0, 0)).1 += 1;
        });
        *metric = Box::into_raw(Box::new(MetricObject { family: family.clone(), labels })).cast();
        OK
    }

    fn TRITONSERVER_MetricDelete(metric: *mut TRITONSERVER_Metric) -> Error {
        let metric = Box::from_raw(metric.cast::<MetricObject>());
        families(|families| {
            let entry = families.get_mut(&metric.family).expect("a family outlives its metrics");
            let users = &mut entry.metrics.get_mut(&metric.labels).expect("a metric in use exists").1;
            *users -= 1;
            if *users == 0 {
                entry.metrics.remove(&metric.labels);
            }
        });
        OK
    }

    fn TRITONSERVER_MetricIncrement(metric: *mut TRITONSERVER_Metric, value: f64) -> Error {
        change(&*metric.cast::<MetricObject>(), |current| current + value)
    }

    fn TRITONSERVER_MetricSet(metric: *mut TRITONSERVER_Metric, value: f64) -> Error {
        change(&*metric.cast::<MetricObject>(), |_| value)
    }

    // Backend

    fn TRITONBACKEND_ApiVersion(major: *mut u32, minor: *mut u32) -> Error {
        (*major, *minor) = process::api_version();
        OK
    }

    fn TRITONBACKEND_BackendName(backend: *mut TRITONBACKEND_Backend, name: *mut *const c_char) -> Error {
        *name = (*backend.cast::<BackendObject>()).name.as_ptr();
        OK
    }

    fn TRITONBACKEND_BackendConfig(
        backend: *mut TRITONBACKEND_Backend,
        message: *mut *mut TRITONSERVER_Message,
    ) -> Error {
        // The server keeps this message.
        *message = ptr::from_mut(&mut (*backend.cast::<BackendObject>()).config).cast();
        OK
    }

    fn TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(
        _attribute: *mut TRITONBACKEND_BackendAttribute,
        _enabled: bool,
    ) -> Error {
        OK
    }

    // Model

    fn TRITONBACKEND_ModelName(model: *mut TRITONBACKEND_Model, name: *mut *const c_char) -> Error {
        *name = (*model.cast::<ModelObject>()).name.as_ptr();
        OK
    }

    fn TRITONBACKEND_ModelVersion(model: *mut TRITONBACKEND_Model, version: *mut u64) -> Error {
        *version = (*model.cast::<ModelObject>()).version;
        OK
    }

    fn TRITONBACKEND_ModelRepository(
        model: *mut TRITONBACKEND_Model,
        artifact_type: *mut TRITONBACKEND_ArtifactType,
        location: *mut *const c_char,
    ) -> Error {
        let model = &*model.cast::<ModelObject>();
        *artifact_type = model.artifact_type;
        *location = model.location.as_ptr();
        OK
    }

    fn TRITONBACKEND_ModelConfig(
        model: *mut TRITONBACKEND_Model,
        config_version: u32,
        message: *mut *mut TRITONSERVER_Message,
    ) -> Error {
        if config_version != 1 {
            return error(TRITONSERVER_ERROR_UNSUPPORTED, "model configuration version must be 1");
        }
        let config = (*model.cast::<ModelObject>()).config.clone();
        *message = Box::into_raw(Box::new(MessageObject::given(config))).cast();
        OK
    }

    fn TRITONBACKEND_ModelAutoCompleteConfig(model: *mut TRITONBACKEND_Model, allowed: *mut bool) -> Error {
        *allowed = (*model.cast::<ModelObject>()).auto_complete;
        OK
    }

    fn TRITONBACKEND_ModelSetConfig(
        model: *mut TRITONBACKEND_Model,
        config_version: u32,
        message: *mut TRITONSERVER_Message,
    ) -> Error {
        if config_version != 1 {
            return error(TRITONSERVER_ERROR_UNSUPPORTED, "model configuration version must be 1");
        }
        let model = &mut *model.cast::<ModelObject>();
        if !model.auto_complete {
            return error(TRITONSERVER_ERROR_UNSUPPORTED, "this server completes no model configuration");
        }
        let MessageObject { text, .. } = &*message.cast::<MessageObject>();
        model.config.clone_from(text);
        OK
    }

    fn TRITONBACKEND_ModelBackend(
        model: *mut TRITONBACKEND_Model,
        backend: *mut *mut TRITONBACKEND_Backend,
    ) -> Error {
        *backend = (*model.cast::<ModelObject>()).backend.cast();
        OK
    }

    fn TRITONBACKEND_ModelState(model: *mut TRITONBACKEND_Model, state: *mut *mut c_void) -> Error {
        *state = (*model.cast::<ModelObject>()).state;
        OK
    }

    fn TRITONBACKEND_ModelSetState(model: *mut TRITONBACKEND_Model, state: *mut c_void) -> Error {
        (*model.cast::<ModelObject>()).state = state;
        OK
    }

    // Instance

    fn TRITONBACKEND_ModelInstanceModel(
        instance: *mut TRITONBACKEND_ModelInstance,
        model: *mut *mut TRITONBACKEND_Model,
    ) -> Error {
        *model = (*instance.cast::<InstanceObject>()).model.cast();
        OK
    }

    fn TRITONBACKEND_ModelInstanceState(
        instance: *mut TRITONBACKEND_ModelInstance,
        state: *mut *mut c_void,
    ) -> Error {
        *state = (*instance.cast::<InstanceObject>()).state;
        OK
    }

    fn TRITONBACKEND_ModelInstanceSetState(
        instance: *mut TRITONBACKEND_ModelInstance,
        state: *mut c_void,
    ) -> Error {
        (*instance.cast::<InstanceObject>()).state = state;
        OK
    }

    fn TRITONBACKEND_ModelInstanceReportStatistics(
        _instance: *mut TRITONBACKEND_ModelInstance,
        request: *mut TRITONBACKEND_Request,
        success: bool,
        exec_start_ns: u64,
        compute_start_ns: u64,
        compute_end_ns: u64,
        exec_end_ns: u64,
    ) -> Error {
        let request = &mut *request.cast::<RequestObject>();
        request.used("TRITONBACKEND_ModelInstanceReportStatistics");
        let times_ns = [exec_start_ns, compute_start_ns, compute_end_ns, exec_end_ns];
        request.statistics.push(Statistic { success, times_ns });
        OK
    }

    fn TRITONBACKEND_ModelInstanceReportBatchStatistics(
        instance: *mut TRITONBACKEND_ModelInstance,
        batch_size: u64,
        _exec_start_ns: u64,
        _compute_start_ns: u64,
        _compute_end_ns: u64,
        _exec_end_ns: u64,
    ) -> Error {
        (*instance.cast::<InstanceObject>()).batch_statistics.push(batch_size);
        OK
    }

    // Request

    fn TRITONBACKEND_RequestId(request: *mut TRITONBACKEND_Request, id: *mut *const c_char) -> Error {
        let request = &*request.cast::<RequestObject>();
        request.used("TRITONBACKEND_RequestId");
        *id = request.id.as_ptr();
        OK
    }

    fn TRITONBACKEND_RequestIsCancelled(request: *mut TRITONBACKEND_Request, cancelled: *mut bool) -> Error {
        let request = &*request.cast::<RequestObject>();
        request.used("TRITONBACKEND_RequestIsCancelled");
        *cancelled = request.cancelled;
        OK
    }

    fn TRITONBACKEND_RequestInputCount(request: *mut TRITONBACKEND_Request, count: *mut u32) -> Error {
        let request = &*request.cast::<RequestObject>();
        request.used("TRITONBACKEND_RequestInputCount");
        *count = request.inputs.len() as u32;
        OK
    }

    fn TRITONBACKEND_RequestInput(
        request: *mut TRITONBACKEND_Request,
        name: *const c_char,
        input: *mut *mut TRITONBACKEND_Input,
    ) -> Error {
        let request = &mut *request.cast::<RequestObject>();
        request.used("TRITONBACKEND_RequestInput");
        let name = CStr::from_ptr(name);
        match request.inputs.iter_mut().find(|input| input.name.as_c_str() == name) {
            Some(found) => {
                *input = ptr::from_mut(found).cast();
                OK
            }
            None => error(TRITONSERVER_ERROR_INVALID_ARG, "unknown request input name"),
        }
    }

    fn TRITONBACKEND_RequestInputByIndex(
        request: *mut TRITONBACKEND_Request,
        index: u32,
        input: *mut *mut TRITONBACKEND_Input,
    ) -> Error {
        let request = &mut *request.cast::<RequestObject>();
        request.used("TRITONBACKEND_RequestInputByIndex");
        match request.inputs.get_mut(index as usize) {
            Some(found) => {
                *input = ptr::from_mut(found).cast();
                OK
            }
            None => error(TRITONSERVER_ERROR_INVALID_ARG, "out of bounds index"),
        }
    }

    fn TRITONBACKEND_RequestOutputCount(request: *mut TRITONBACKEND_Request, count: *mut u32) -> Error {
        let request = &*request.cast::<RequestObject>();
        request.used("TRITONBACKEND_RequestOutputCount");
        *count = request.outputs.len() as u32;
        OK
    }

    fn TRITONBACKEND_RequestOutputName(
        request: *mut TRITONBACKEND_Request,
        index: u32,
        name: *mut *const c_char,
    ) -> Error {
        let request = &*request.cast::<RequestObject>();
        request.used("TRITONBACKEND_RequestOutputName");
        match request.outputs.get(index as usize) {
            Some(output) => {
                *name = output.as_ptr();
                OK
            }
            None => error(TRITONSERVER_ERROR_INVALID_ARG, "out of bounds index"),
        }
    }

    fn TRITONBACKEND_RequestRelease(request: *mut TRITONBACKEND_Request, flags: u32) -> Error {
        let request = &mut *request.cast::<RequestObject>();
        if flags != TRITONSERVER_REQUEST_RELEASE_ALL {
            request.violations.add(format!("a request was released with flags {flags}"));
        }
        request.release();
        OK
    }

    // Input

    fn TRITONBACKEND_InputProperties(
        input: *mut TRITONBACKEND_Input,
        name: *mut *const c_char,
        data_type: *mut TRITONSERVER_DataType,
        shape: *mut *const i64,
        dims_count: *mut u32,
        byte_size: *mut u64,
        buffer_count: *mut u32,
    ) -> Error {
        let input = &*input.cast::<InputObject>();
        if input.released {
            input.violations.add("TRITONBACKEND_InputProperties on a released request");
        }
        *name = input.name.as_ptr();
        *data_type = input.data_type;
        *shape = input.shape.as_ptr();
        *dims_count = input.shape.len() as u32;
        *byte_size = input.byte_size as u64;
        *buffer_count = input.buffers.len() as u32;
        OK
    }

    fn TRITONBACKEND_InputBuffer(
        input: *mut TRITONBACKEND_Input,
        index: u32,
        buffer: *mut *const c_void,
        byte_size: *mut u64,
        memory_type: *mut TRITONSERVER_MemoryType,
        memory_type_id: *mut i64,
    ) -> Error {
        let input = &mut *input.cast::<InputObject>();
        if input.released {
            input.violations.add("TRITONBACKEND_InputBuffer on a released request");
        }
        let Some(found) = input.buffers.get_mut(index as usize) else {
            return error(TRITONSERVER_ERROR_INVALID_ARG, "out of bounds index");
        };
        *buffer = found.as_mut_ptr().cast();
        *byte_size = found.len() as u64;
        *memory_type = input.memory.raw();
        *memory_type_id = 0;
        OK
    }

    // Response

    fn TRITONBACKEND_ResponseNew(
        response: *mut *mut TRITONBACKEND_Response,
        request: *mut TRITONBACKEND_Request,
    ) -> Error {
        let request = &mut *request.cast::<RequestObject>();
        request.used("TRITONBACKEND_ResponseNew");
        if request.fail_response {
            return error(TRITONSERVER_ERROR_INTERNAL, "no response for this request");
        }
        if !request.responses.is_empty() {
            request.violations.add("a request got a second response");
        }
        let mut made = Box::new(ResponseObject {
            outputs: Vec::new(),
            parameters: Vec::new(),
            aligned: request.output_aligned,
            memory: request.output_memory,
            shared: request.shared(),
            sent: false,
            error: None,
            requested: request.outputs.clone(),
            violations: request.violations.clone(),
        });
        *response = ptr::from_mut(&mut *made).cast();
        request.responses.push(made);
        OK
    }

    fn TRITONBACKEND_ResponseSetStringParameter(
        response: *mut TRITONBACKEND_Response,
        name: *const c_char,
        value: *const c_char,
    ) -> Error {
        let response = &mut *response.cast::<ResponseObject>();
        response.used("TRITONBACKEND_ResponseSetStringParameter");
        response.parameters.push((string(name), string(value)));
        OK
    }

    fn TRITONBACKEND_ResponseOutput(
        response: *mut TRITONBACKEND_Response,
        output: *mut *mut TRITONBACKEND_Output,
        name: *const c_char,
        data_type: TRITONSERVER_DataType,
        shape: *const i64,
        dims_count: u32,
    ) -> Error {
        let response = &mut *response.cast::<ResponseObject>();
        response.used("TRITONBACKEND_ResponseOutput");
        let c_name = CStr::from_ptr(name);
        let name = string(name);
        if !response.requested.iter().any(|requested| requested.as_c_str() == c_name) {
            response.violations.add(format!("output '{name}' was made but not requested"));
        }
        if response.outputs.iter().any(|output| output.name == name) {
            response.violations.add(format!("output '{name}' was made twice"));
        }
        let shape = match dims_count {
            0 => Vec::new(),
            n => std::slice::from_raw_parts(shape, n as usize).to_vec(),
        };
        let (aligned, memory, shared) = (response.aligned, response.memory, response.shared);
        let mut made = Box::new(OutputObject {
            name, data_type, shape, buffer: None, shared, aligned, memory, sent: Vec::new(),
        });
        *output = ptr::from_mut(&mut *made).cast();
        response.outputs.push(made);
        OK
    }

    fn TRITONBACKEND_OutputBuffer(
        output: *mut TRITONBACKEND_Output,
        buffer: *mut *mut c_void,
        byte_size: u64,
        memory_type: *mut TRITONSERVER_MemoryType,
        memory_type_id: *mut i64,
    ) -> Error {
        let output = &mut *output.cast::<OutputObject>();
        let Ok(len) = usize::try_from(byte_size).and_then(isize::try_from).map(isize::unsigned_abs) else {
            return error(TRITONSERVER_ERROR_UNAVAILABLE, "no memory");
        };
        *memory_type = output.memory.raw();
        *memory_type_id = 0;
        if let Some((start, left)) = &mut output.shared {
            if *left < len {
                return error(TRITONSERVER_ERROR_INVALID_ARG, "the shared memory is too small for the output");
            }
            *left = len;
            *buffer = start.cast();
            return OK;
        }
        *buffer = output.buffer.insert(Buffer::filled(len, 0xA5, output.aligned)).as_mut_ptr().cast();
        OK
    }

    fn TRITONBACKEND_ResponseSend(
        response: *mut TRITONBACKEND_Response,
        flags: u32,
        raw: Error,
    ) -> Error {
        let response = &mut *response.cast::<ResponseObject>();
        if flags != TRITONSERVER_RESPONSE_COMPLETE_FINAL {
            response.violations.add(format!("a response was sent with flags {flags}"));
        }
        let error = (!raw.is_null()).then(|| failure(&*raw.cast::<ErrorObject>()));
        response.send(error);
        OK
    }
}

fn change(metric: &MetricObject, to: impl FnOnce(f64) -> f64) -> Error {
    families(|families| {
        let entry = families
            .get_mut(&metric.family)
            .expect("a family outlives its metrics");
        let value = &mut entry
            .metrics
            .get_mut(&metric.labels)
            .expect("a metric in use exists")
            .0;
        *value = to(*value);
    });
    OK
}
