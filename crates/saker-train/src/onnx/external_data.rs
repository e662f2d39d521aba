//! Moves large constants of a model to a separate file, which ONNX Runtime maps into memory. Only the used parts of an embedding table then
//! take memory, and all sessions share them.

use prost::Message;

use super::graph::external;
use super::proto;

/// Smaller constants stay in the model.
const LARGE: usize = 1 << 20;
/// Constants begin at page boundaries, so that they can be mapped into memory.
pub(super) const PAGE: usize = 4096;

/// Returns the model without its large constants, and the content of the file of this name that holds them. Returns `None` if the model has
/// no large constants. It also returns `None` for features that this crate never exports, because they would be lost.
pub fn tables_apart(model: &[u8], file: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut read = proto::Model::decode(model).ok()?;
    let is_large = |tensor: &proto::Tensor| {
        let bytes = tensor.raw_data.as_ref().map_or(0, Vec::len);
        bytes >= LARGE
    };
    if !read.graph.as_ref()?.initializer.iter().any(is_large) || read.encode_to_vec() != model {
        return None;
    }
    let mut tables = Vec::new();
    for tensor in &mut read.graph.as_mut()?.initializer {
        if is_large(tensor) {
            let bytes = tensor.raw_data.take()?;
            tables.resize(tables.len().next_multiple_of(PAGE), 0);
            tensor.external_data = external(file, tables.len(), bytes.len());
            tensor.data_location = Some(1);
            tables.extend(bytes);
        }
    }
    Some((read.encode_to_vec(), tables))
}
