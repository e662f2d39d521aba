//! Builds a graph node by node; a value is known by its name.

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
        self.graph.input.push(value_info(name, element, columns));
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
            .push(value_info(name, FLOAT, Some(columns)));
    }

    pub(super) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Value {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, FLOAT, dims, bytes)
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

fn value_info(name: &str, element: i32, columns: Option<usize>) -> proto::ValueInfo {
    let rows = proto::Dimension {
        value: None,
        parameter: Some("N".to_owned()),
    };
    let columns = columns.map(|columns| proto::Dimension {
        value: Some(columns as i64),
        parameter: None,
    });
    let shape = proto::Shape {
        dim: std::iter::once(rows).chain(columns).collect(),
    };
    proto::ValueInfo {
        name: Some(name.to_owned()),
        kind: Some(proto::Type {
            tensor: Some(proto::TensorType {
                element: Some(element),
                shape: Some(shape),
            }),
        }),
    }
}
