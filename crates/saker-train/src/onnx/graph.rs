//! Builds a graph node by node. Values are identified by name.

use super::proto;

pub(super) const FLOAT: i32 = 1;
pub(super) const INT32: i32 = 6;
pub(super) const INT64: i32 = 7;
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// A value of the graph.
pub(super) type Value = String;

#[derive(Default)]
pub(super) struct GraphBuilder {
    graph: proto::Graph,
}

impl GraphBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            graph: proto::Graph {
                name: Some(name.to_owned()),
                ..Default::default()
            },
        }
    }

    /// An input `[N]`, or `[N, columns]`.
    pub(super) fn input(&mut self, name: &str, element: i32, columns: Option<usize>) -> Value {
        let shape = std::iter::once(None).chain(columns.map(Some)).collect();
        self.graph.input.push(value_info(name, element, shape));
        name.to_owned()
    }

    /// An input of exactly this shape.
    pub(super) fn fixed(&mut self, name: &str, element: i32, shape: &[usize]) -> Value {
        let shape = shape.iter().copied().map(Some).collect();
        self.graph.input.push(value_info(name, element, shape));
        name.to_owned()
    }

    /// Names the value an output `[N, columns]`.
    pub(super) fn output(&mut self, value: Value, name: &str, columns: usize) {
        if let Some(node) = self
            .graph
            .node
            .iter_mut()
            .find(|node| node.output.first() == Some(&value))
        {
            node.output = vec![name.to_owned()];
        }
        self.graph
            .output
            .push(value_info(name, FLOAT, vec![None, Some(columns)]));
    }

    pub(super) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Value {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, FLOAT, dims, bytes)
    }

    pub(super) fn int32s(&mut self, name: &str, values: &[i32]) -> Value {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, INT32, &[values.len()], bytes)
    }

    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> Value {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, INT64, &[values.len()], bytes)
    }

    fn constant(&mut self, name: &str, element: i32, dims: &[usize], bytes: Vec<u8>) -> Value {
        self.graph.initializer.push(proto::Tensor {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(element),
            name: Some(name.to_owned()),
            raw_data: Some(bytes),
            ..Default::default()
        });
        name.to_owned()
    }

    /// A constant whose floats are in a file beside the model, from this byte offset on.
    pub(super) fn floats_in_file(
        &mut self,
        name: &str,
        dims: [usize; 2],
        file: &str,
        offset: usize,
    ) -> Value {
        self.graph.initializer.push(proto::Tensor {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(FLOAT),
            name: Some(name.to_owned()),
            external_data: external(file, offset, dims[0] * dims[1] * size_of::<f32>()),
            data_location: Some(1),
            ..Default::default()
        });
        name.to_owned()
    }

    /// A node whose single output is named after it.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Value {
        let name = format!("{}_{}", op.to_lowercase(), self.graph.node.len());
        self.graph.node.push(proto::Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(op.to_owned()),
            attribute: attributes
                .iter()
                .map(|(name, value)| value.proto(name))
                .collect(),
        });
        name
    }

    pub(super) fn model(self) -> proto::Model {
        proto::Model {
            ir_version: Some(IR_VERSION),
            producer_name: Some("saker".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(self.graph),
            opset_import: vec![proto::OperatorSet {
                domain: Some(String::new()),
                version: Some(OPSET),
            }],
            metadata_props: Vec::new(),
        }
    }
}

/// Position of a constant in a file beside the model.
pub(super) fn external(file: &str, offset: usize, length: usize) -> Vec<proto::Property> {
    vec![
        super::property("location", file),
        super::property("offset", &offset.to_string()),
        super::property("length", &length.to_string()),
    ]
}

/// Value of an attribute.
pub(super) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
}

impl Attribute {
    fn proto(&self, name: &str) -> proto::Attribute {
        let name = Some(name.to_owned());
        match self {
            Self::Int(value) => proto::Attribute {
                name,
                i: Some(*value),
                ints: Vec::new(),
                kind: Some(2),
            },
            Self::Ints(values) => proto::Attribute {
                name,
                i: None,
                ints: values.clone(),
                kind: Some(7),
            },
        }
    }
}

/// Dimensions of a tensor. `None` is a variable length, the same for all tensors.
fn value_info(name: &str, element: i32, shape: Vec<Option<usize>>) -> proto::ValueInfo {
    let dimension = |size: Option<usize>| proto::Dimension {
        value: size.map(|size| size as i64),
        parameter: size.is_none().then(|| "N".to_owned()),
    };
    proto::ValueInfo {
        name: Some(name.to_owned()),
        kind: Some(proto::Type {
            tensor: Some(proto::TensorType {
                element: Some(element),
                shape: Some(proto::Shape {
                    dim: shape.into_iter().map(dimension).collect(),
                }),
            }),
        }),
    }
}
