//! Small ONNX models, written by a test.
//!
//! ```
//! use saker_testing::onnx::{FLOAT, Graph, INT64};
//!
//! // The rows of a table, by number.
//! let model = Graph::new()
//!     .input("row", INT64, &["N"])
//!     .output("vector", FLOAT, &["N", "2"])
//!     .floats("table", &[3, 2], &[0.0, 0.1, 1.0, 1.1, 2.0, 2.1])
//!     .node("Gather", &["table", "row"], &["vector"], &[])
//!     .model();
//! assert!(!model.is_empty());
//! ```

/// ONNX's number of the type FLOAT.
pub const FLOAT: u64 = 1;
/// ONNX's number of the type INT32.
pub const INT32: u64 = 6;
/// ONNX's number of the type INT64.
pub const INT64: u64 = 7;
/// ONNX's number of the type STRING.
pub const STRING: u64 = 8;

/// A graph in ONNX's file format (protobuf; the numbers are the specification's field numbers).
#[derive(Debug, Clone, Default)]
pub struct Graph(Vec<u8>);

impl Graph {
    /// A graph without inputs, outputs and nodes.
    #[must_use]
    pub fn new() -> Self {
        Self(message(2, b"g"))
    }

    /// An input; a dimension is a number, a symbol, or empty for any size.
    #[must_use]
    pub fn input(self, name: &str, element: u64, dims: &[&str]) -> Self {
        self.with(message(11, &value(name, element, dims)))
    }

    /// An output; otherwise as [`input`](Self::input).
    #[must_use]
    pub fn output(self, name: &str, element: u64, dims: &[&str]) -> Self {
        self.with(message(12, &value(name, element, dims)))
    }

    /// A constant of FLOATs.
    #[must_use]
    pub fn floats(self, name: &str, dims: &[u64], elements: &[f32]) -> Self {
        let data: Vec<u8> = elements.iter().flat_map(|e| e.to_le_bytes()).collect();
        self.constant(name, FLOAT, dims, &data)
    }

    /// A constant of INT64s.
    #[must_use]
    pub fn integers(self, name: &str, dims: &[u64], elements: &[i64]) -> Self {
        let data: Vec<u8> = elements.iter().flat_map(|e| e.to_le_bytes()).collect();
        self.constant(name, INT64, dims, &data)
    }

    /// An operator with attributes of type INT.
    #[must_use]
    pub fn node(
        self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, u64)],
    ) -> Self {
        let mut node = Vec::new();
        for name in inputs {
            node.extend(message(1, name.as_bytes()));
        }
        for name in outputs {
            node.extend(message(2, name.as_bytes()));
        }
        node.extend(message(4, operator.as_bytes()));
        for (name, value) in attributes {
            let kind = number(20, 2);
            let parts = [message(1, name.as_bytes()), number(3, *value), kind];
            node.extend(message(5, &parts.concat()));
        }
        self.with(message(1, &node))
    }

    /// The bytes of `model.onnx`: IR version 8, operators of version 17.
    #[must_use]
    pub fn model(&self) -> Vec<u8> {
        let operators = message(8, &number(2, 17));
        [number(1, 8), message(7, &self.0), operators].concat()
    }

    fn constant(self, name: &str, element: u64, dims: &[u64], data: &[u8]) -> Self {
        let mut tensor: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
        tensor.extend(number(2, element));
        tensor.extend(message(8, name.as_bytes()));
        tensor.extend(message(9, data));
        self.with(message(5, &tensor))
    }

    fn with(mut self, part: Vec<u8>) -> Self {
        self.0.extend(part);
        self
    }
}

/// A ValueInfoProto: a tensor's name, element type and dimensions.
fn value(name: &str, element: u64, dims: &[&str]) -> Vec<u8> {
    let mut shape = Vec::new();
    for dim in dims {
        let dim = match (dim.is_empty(), dim.parse()) {
            (true, _) => Vec::new(),
            (false, Ok(size)) => number(1, size),
            (false, Err(_)) => message(2, dim.as_bytes()),
        };
        shape.extend(message(1, &dim));
    }
    let tensor = [number(1, element), message(2, &shape)].concat();
    [
        message(1, name.as_bytes()),
        message(2, &message(1, &tensor)),
    ]
    .concat()
}

/// A field that is a number.
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field that is a text, bytes or a message.
fn message(field: u64, content: &[u8]) -> Vec<u8> {
    let head = [varint(field << 3 | 2), varint(content.len() as u64)].concat();
    [&head[..], content].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
