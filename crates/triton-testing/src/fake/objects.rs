//! The objects behind the opaque pointers of the C API.
//!
//! Objects live as long as their server, so that a pointer that is used too late still finds the flag that marks it as invalid. The buffers
//! inside are freed when a real server would free them.

use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use triton_rs_sys as sys;

use super::failure::{Failure, Statistic};
use super::request::{Input, Memory, Request};

/// Violations of the API's contract, shared by the objects of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    pub(super) fn add(&self, what: impl Into<String>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what.into());
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Behind `TRITONBACKEND_Backend`.
#[derive(Debug)]
pub(super) struct BackendObject {
    pub(super) name: CString,
    pub(super) config: MessageObject,
}

/// Behind `TRITONSERVER_Message`.
#[derive(Debug)]
pub(super) struct MessageObject {
    pub(super) text: String,
    /// Whether the backend owns it.
    pub(super) given: bool,
}

impl MessageObject {
    /// A message that the backend must delete.
    pub(super) fn given(text: String) -> Self {
        Self { text, given: true }
    }

    /// A message that the server keeps.
    pub(super) fn kept(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            given: false,
        }
    }
}

/// Behind `TRITONBACKEND_Model`.
#[derive(Debug)]
pub(super) struct ModelObject {
    pub(super) name: CString,
    pub(super) version: u64,
    pub(super) location: CString,
    pub(super) artifact_type: sys::TRITONBACKEND_ArtifactType,
    pub(super) config: String,
    pub(super) auto_complete: bool,
    pub(super) backend: *mut BackendObject,
    pub(super) state: *mut c_void,
}

/// Behind `TRITONBACKEND_ModelInstance`.
#[derive(Debug)]
pub(super) struct InstanceObject {
    pub(super) model: *mut ModelObject,
    pub(super) state: *mut c_void,
    pub(super) batch_statistics: Vec<u64>,
}

/// Behind `TRITONBACKEND_Request`.
#[derive(Debug)]
pub(super) struct RequestObject {
    pub(super) id: CString,
    pub(super) inputs: Vec<InputObject>,
    pub(super) outputs: Vec<CString>,
    pub(super) cancelled: bool,
    pub(super) output_aligned: bool,
    pub(super) output_memory: Memory,
    pub(super) outputs_over: Option<(CString, usize)>,
    pub(super) fail_response: bool,
    pub(super) releases: usize,
    pub(super) responses: Vec<Box<ResponseObject>>,
    pub(super) statistics: Vec<Statistic>,
    pub(super) violations: Violations,
}

/// Behind `TRITONBACKEND_Input`.
#[derive(Debug)]
pub(super) struct InputObject {
    pub(super) name: CString,
    pub(super) data_type: sys::TRITONSERVER_DataType,
    pub(super) shape: Vec<i64>,
    pub(super) byte_size: usize,
    pub(super) buffers: Vec<Buffer>,
    pub(super) memory: Memory,
    /// Freed with the request's release.
    pub(super) released: bool,
    pub(super) violations: Violations,
}

/// Behind `TRITONBACKEND_Response`.
#[derive(Debug)]
pub(super) struct ResponseObject {
    pub(super) outputs: Vec<Box<OutputObject>>,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) aligned: bool,
    pub(super) memory: Memory,
    /// Shared memory: where each output begins, and how many bytes are there.
    pub(super) shared: Option<(*mut u8, usize)>,
    pub(super) sent: bool,
    pub(super) error: Option<Failure>,
    pub(super) requested: Vec<CString>,
    pub(super) violations: Violations,
}

/// Behind `TRITONBACKEND_Output`.
#[derive(Debug)]
pub(super) struct OutputObject {
    pub(super) name: String,
    pub(super) data_type: sys::TRITONSERVER_DataType,
    pub(super) shape: Vec<i64>,
    pub(super) buffer: Option<Buffer>,
    /// As in the response, once the buffer is asked for: then as many bytes as were asked for.
    pub(super) shared: Option<(*mut u8, usize)>,
    pub(super) aligned: bool,
    pub(super) memory: Memory,
    /// The contents, once the response is sent and the buffer freed.
    pub(super) sent: Vec<u8>,
}

/// Bytes at an address that is aligned to 8 or odd, as asked.
#[derive(Debug)]
pub(super) struct Buffer {
    words: Vec<u64>,
    offset: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn of(bytes: &[u8], aligned: bool) -> Self {
        let mut buffer = Self::filled(bytes.len(), 0, aligned);
        // SAFETY: the target has `len` bytes behind its offset, and is our own.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.as_mut_ptr(), bytes.len());
        }
        buffer
    }

    /// Filled with a byte that no test expects, as a stand-in for uninitialised memory.
    pub(super) fn filled(len: usize, byte: u8, aligned: bool) -> Self {
        let offset = usize::from(!aligned);
        let words = vec![u64::from_ne_bytes([byte; 8]); (offset + len).div_ceil(8)];
        Self { words, offset, len }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        if self.len == 0 {
            return std::ptr::null_mut();
        }
        // SAFETY: the offset is inside the allocation, which is at least one byte longer.
        unsafe { self.words.as_mut_ptr().cast::<u8>().add(self.offset) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn copied(&mut self) -> Vec<u8> {
        match self.len {
            0 => Vec::new(),
            // SAFETY: `len` initialised bytes at the pointer.
            len => unsafe { std::slice::from_raw_parts(self.as_mut_ptr(), len) }.to_vec(),
        }
    }
}

impl RequestObject {
    pub(super) fn new(request: Request, violations: &Violations) -> Self {
        Self {
            id: c_string(&request.id),
            inputs: request
                .inputs
                .into_iter()
                .map(|i| InputObject::new(i, violations))
                .collect(),
            outputs: request.outputs.iter().map(|name| c_string(name)).collect(),
            cancelled: request.cancelled,
            output_aligned: request.output_aligned,
            output_memory: request.output_memory,
            outputs_over: request
                .outputs_over
                .map(|(input, offset)| (c_string(&input), offset)),
            fail_response: request.fail_response,
            releases: 0,
            responses: Vec::new(),
            statistics: Vec::new(),
            violations: violations.clone(),
        }
    }

    /// Where outputs lie in the memory of an input, and how many bytes are there.
    pub(super) fn shared(&mut self) -> Option<(*mut u8, usize)> {
        let (name, offset) = self.outputs_over.clone()?;
        let input = self.inputs.iter_mut().find(|input| input.name == name);
        let buffer = input.and_then(|input| input.buffers.first_mut())?;
        let left = buffer.len().checked_sub(offset)?;
        // SAFETY: the offset is within the buffer.
        Some((unsafe { buffer.as_mut_ptr().add(offset) }, left))
    }

    /// Records a use of a released request.
    pub(super) fn used(&self, by: &str) {
        if self.releases > 0 {
            self.violations.add(format!("{by} on a released request"));
        }
    }

    pub(super) fn release(&mut self) {
        if self.releases > 0 {
            self.violations.add("a request was released twice");
        }
        if !self.responses.iter().any(|r| r.sent) && !self.fail_response {
            self.violations
                .add("a request was released without an answer");
        }
        self.releases += 1;
        for input in &mut self.inputs {
            input.buffers.clear();
            input.released = true;
        }
    }
}

impl InputObject {
    fn new(input: Input, violations: &Violations) -> Self {
        let mut edges = vec![0];
        edges.extend(&input.cuts);
        edges.push(input.bytes.len());
        let buffers = edges
            .windows(2)
            .map(|edge| Buffer::of(&input.bytes[edge[0]..edge[1]], input.aligned))
            .collect();
        Self {
            name: c_string(&input.name),
            data_type: input.data_type,
            shape: input.shape,
            byte_size: input.bytes.len(),
            buffers,
            memory: input.memory,
            released: false,
            violations: violations.clone(),
        }
    }
}

impl ResponseObject {
    /// Records a use of a sent response.
    pub(super) fn used(&self, by: &str) {
        if self.sent {
            self.violations
                .add(format!("{by} on a response that was sent"));
        }
    }

    pub(super) fn send(&mut self, error: Option<Failure>) {
        self.used("TRITONBACKEND_ResponseSend");
        self.sent = true;
        self.error = error;
        for output in &mut self.outputs {
            if let Some((start, len)) = output.shared.take() {
                // SAFETY: the input's buffer lives until the request is released, and `len` bytes of it were given.
                output.sent = unsafe { std::slice::from_raw_parts(start, len) }.to_vec();
                continue;
            }
            output.sent = output
                .buffer
                .take()
                .map(|mut b| b.copied())
                .unwrap_or_default();
        }
    }
}

pub(super) fn c_string(text: &str) -> CString {
    CString::new(text).expect("test strings hold no NUL")
}
