//! Adds an output to an ONNX file, so that an inner layer of the graph can be read.

use prost::{DecodeError, Message};

/// The fields of `onnx.proto`'s ModelProto that this module writes, by their field numbers.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
}

/// Names of the outputs of the model in `bytes`.
pub(crate) fn outputs(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    let graph = Model::decode(bytes)?.graph.unwrap_or_default();
    Ok(graph.output.into_iter().map(|value| value.name).collect())
}

/// Adds the tensor `name` to the outputs of the model in `bytes`; ONNX Runtime infers its type.
///
/// A protobuf parser merges a message that occurs twice (protobuf.dev, "Last One Wins"). So the appended output joins the outputs of the
/// graph, and this function need not parse the rest of the file.
pub(crate) fn expose(bytes: &mut Vec<u8>, name: &str) {
    let graph = Graph {
        output: vec![ValueInfo {
            name: name.to_owned(),
        }],
    };
    bytes.extend(Model { graph: Some(graph) }.encode_to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposed_tensor_joins_the_outputs() {
        let mut bytes = Vec::new();
        expose(&mut bytes, "logits");
        // An unknown field: ir_version, field 1 of a ModelProto.
        bytes.extend([0x08, 0x09]);
        expose(&mut bytes, "layer");
        assert_eq!(outputs(&bytes).unwrap(), ["logits", "layer"]);
        assert!(outputs(b"no model").is_err());
    }
}
