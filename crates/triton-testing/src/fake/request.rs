//! A test's description of a model's config and of requests.

use serde_json::{Value, json};
use triton_rs_sys as sys;

use super::element::Element;

/// A model's config, in the JSON form that Triton passes to a backend.
///
/// ```
/// use triton_testing::fake::Config;
///
/// let config = Config::new()
///     .max_batch_size(8)
///     .input("x", "TYPE_FP32", &[64])
///     .optional_input("user_id", "TYPE_INT64", &[1])
///     .output("y", "TYPE_FP32", &[64])
///     .parameter("FACTOR", "2");
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) json: Value,
    pub(super) auto_complete: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// No tensors, no parameters, no batch dimension.
    pub fn new() -> Self {
        Self {
            json: json!({"max_batch_size": 0, "input": [], "output": [], "parameters": {}}),
            auto_complete: false,
        }
    }

    /// Adds an input; `data_type` as in config.pbtxt, `dims` without the batch dimension.
    pub fn input(self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.tensor(
            "input",
            json!({"name": name, "data_type": data_type, "dims": dims}),
        )
    }

    /// Adds an input that a request may omit.
    pub fn optional_input(self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.tensor(
            "input",
            json!({"name": name, "data_type": data_type, "dims": dims, "optional": true}),
        )
    }

    /// Adds an output; arguments as for [`input`](Self::input).
    pub fn output(self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.tensor(
            "output",
            json!({"name": name, "data_type": data_type, "dims": dims}),
        )
    }

    /// Adds a parameter, a string as in config.pbtxt.
    pub fn parameter(mut self, key: &str, value: &str) -> Self {
        self.json["parameters"][key] = json!({"string_value": value});
        self
    }

    /// Gives the tensors a batch dimension.
    pub fn max_batch_size(mut self, size: usize) -> Self {
        self.json["max_batch_size"] = size.into();
        self
    }

    /// Loads the model on a server that lets backends complete a config.
    pub fn auto_complete(mut self) -> Self {
        self.auto_complete = true;
        self
    }

    fn tensor(mut self, role: &str, tensor: Value) -> Self {
        if let Some(list) = self.json[role].as_array_mut() {
            list.push(tensor);
        }
        self
    }
}

/// The memory that a buffer claims to be in. A GPU buffer is host memory with that tag: copying it through CUDA fails on a machine without
/// a GPU, as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Host memory.
    Host,
    /// Page-locked host memory.
    Pinned,
    /// The memory of GPU 0.
    Gpu,
}

impl Memory {
    pub(super) fn raw(self) -> sys::TRITONSERVER_MemoryType {
        match self {
            Memory::Host => sys::TRITONSERVER_MEMORY_CPU,
            Memory::Pinned => sys::TRITONSERVER_MEMORY_CPU_PINNED,
            Memory::Gpu => sys::TRITONSERVER_MEMORY_GPU,
        }
    }
}

/// An input of a request.
///
/// ```
/// use triton_testing::fake::Input;
///
/// let matrix = Input::new("x", &[2, 2], &[1.0f32, 2.0, 3.0, 4.0]);
/// let names = Input::strings("name", &[2], &["a", "b"]).unaligned();
/// ```
#[derive(Debug, Clone)]
pub struct Input {
    pub(super) name: String,
    pub(super) data_type: sys::TRITONSERVER_DataType,
    pub(super) shape: Vec<i64>,
    pub(super) bytes: Vec<u8>,
    /// Positions at which one buffer ends and the next begins.
    pub(super) cuts: Vec<usize>,
    pub(super) aligned: bool,
    pub(super) memory: Memory,
}

impl Input {
    /// A tensor in one aligned host buffer.
    pub fn new<T: Element>(name: &str, shape: &[i64], elements: &[T]) -> Self {
        let mut bytes = Vec::new();
        elements.iter().for_each(|e| e.put(&mut bytes));
        Self::raw(name, T::DATA_TYPE, shape, bytes)
    }

    /// A BYTES tensor of these strings.
    pub fn strings(name: &str, shape: &[i64], elements: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for element in elements {
            (element.len() as u32).put(&mut bytes);
            bytes.extend(element.as_bytes());
        }
        Self::raw(name, sys::TRITONSERVER_TYPE_BYTES, shape, bytes)
    }

    /// Any bytes, whether they fit the type and shape or not.
    pub fn raw(
        name: &str,
        data_type: sys::TRITONSERVER_DataType,
        shape: &[i64],
        bytes: Vec<u8>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            data_type,
            shape: shape.to_vec(),
            bytes,
            cuts: Vec::new(),
            aligned: true,
            memory: Memory::Host,
        }
    }

    /// Splits the bytes into several buffers at these offsets, in ascending order.
    pub fn split(mut self, cuts: &[usize]) -> Self {
        self.cuts = cuts.to_vec();
        self
    }

    /// Puts every buffer at an odd address.
    pub fn unaligned(mut self) -> Self {
        self.aligned = false;
        self
    }

    /// Sets the memory that the buffers claim to be in.
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }
}

/// A request.
///
/// ```
/// use triton_testing::fake::{Input, Request};
///
/// let request = Request::new().id("7").input(Input::new("x", &[1], &[1.0f32])).output("y");
/// let given_up = request.clone().cancelled();
/// ```
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) id: String,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<String>,
    pub(super) cancelled: bool,
    pub(super) output_aligned: bool,
    pub(super) output_memory: Memory,
    pub(super) outputs_over: Option<(String, usize)>,
    pub(super) fail_response: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

impl Request {
    /// A request without inputs and requested outputs.
    pub fn new() -> Self {
        Self {
            id: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            cancelled: false,
            output_aligned: true,
            output_memory: Memory::Host,
            outputs_over: None,
            fail_response: false,
        }
    }

    /// Sets the id that the client gave the request.
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// Adds an input. A model's config need not declare it.
    pub fn input(mut self, input: Input) -> Self {
        self.inputs.push(input);
        self
    }

    /// Asks for an output. An output that no request asks for must not be written.
    pub fn output(mut self, name: &str) -> Self {
        self.outputs.push(name.to_owned());
        self
    }

    /// Lets the client cancel the request before its execution.
    pub fn cancelled(mut self) -> Self {
        self.cancelled = true;
        self
    }

    /// Gives output buffers at odd addresses.
    pub fn unaligned_outputs(mut self) -> Self {
        self.output_aligned = false;
        self
    }

    /// Gives output buffers with this tag.
    pub fn output_memory(mut self, memory: Memory) -> Self {
        self.output_memory = memory;
        self
    }

    /// Places every output in the memory of an input, this many bytes behind its start, as a client can do that shares
    /// memory with the server. The input lies in one buffer.
    pub fn outputs_over(mut self, input: &str, offset: usize) -> Self {
        self.outputs_over = Some((input.to_owned(), offset));
        self
    }

    /// The server cannot make a response to it.
    pub fn without_response(mut self) -> Self {
        self.fail_response = true;
        self
    }
}
