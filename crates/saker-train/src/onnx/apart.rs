//! Large constants of a model in a file of their own, which ONNX Runtime maps into memory instead of reading it: a table of embeddings then
//! costs memory only where it is asked for, and once for all sessions.

use prost::Message;

use super::graph::external;
use super::proto;

/// What is smaller stays in the model.
const LARGE: usize = 1 << 20;
/// Constants begin at multiples of a page, so that they can be mapped into memory.
pub(super) const PAGE: usize = 4096;

/// The model without its large constants, and the file of this name beside it that holds them. `None` where there are none, and where the
/// model has what this crate's exports never have, which would be lost.
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
