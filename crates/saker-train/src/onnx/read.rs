//! Reads exported models.

use std::collections::HashMap;

use prost::Message;

use super::graph::{FLOAT, INT32};
use super::proto;
use crate::Error;
use crate::layers::{Dense, Embedding};
use crate::parameter::Parameter;
use crate::ranker::Ranker;

/// Reads the ranker of an exported model. The result is exported again and compared, so a model of another origin is refused even if it is
/// similar.
///
/// # Errors
/// Returns [`Error::Foreign`].
pub(super) fn ranker(model: &[u8]) -> Result<Ranker, Error> {
    let foreign = |what: String| Error::Foreign(what);
    let model = proto::Model::decode(model).map_err(|error| foreign(error.to_string()))?;
    let graph = model
        .graph
        .ok_or_else(|| foreign("it has no graph".to_owned()))?;
    let constants: HashMap<&str, &proto::Tensor> = graph
        .initializer
        .iter()
        .filter_map(|tensor| Some((tensor.name.as_deref()?, tensor)))
        .collect();
    let parameter = |name: &str| {
        let tensor = constants.get(name);
        tensor
            .and_then(|tensor| matrix(tensor))
            .ok_or_else(|| foreign(format!("it has no matrix '{name}'")))
    };
    let dense = |name: &str| -> Result<Dense, Error> {
        Ok(Dense {
            weight: parameter(&format!("{name}_weight"))?,
            bias: parameter(&format!("{name}_bias"))?,
        })
    };
    let layers = |stack: &str| -> Result<Vec<Dense>, Error> {
        (0..)
            .map(|place| format!("{stack}_{place}"))
            .take_while(|name| constants.contains_key(format!("{name}_weight").as_str()))
            .map(|name| dense(&name))
            .collect()
    };
    let mut embeddings = Vec::new();
    let mut continuous = Vec::new();
    let mut pretrained = Vec::new();
    for input in &graph.input {
        let name = input.name.clone().unwrap_or_default();
        let tensor = input.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
        let rank = tensor
            .and_then(|tensor| tensor.shape.as_ref())
            .map_or(0, |shape| shape.dim.len());
        match (tensor.and_then(|tensor| tensor.element), rank) {
            (Some(INT32), 1) => {
                let table = parameter(&format!("{name}_embedding"))?;
                embeddings.push(Embedding { name, table });
            }
            (Some(FLOAT), 1) => continuous.push(name),
            (Some(FLOAT), 2) => {
                let projection = dense(&format!("{name}_projection"))?;
                pretrained.push((name, projection));
            }
            _ => {
                return Err(foreign(format!(
                    "its input '{name}' is not an input of a ranker"
                )));
            }
        }
    }
    let (bottom, top) = (layers("bottom")?, layers("top")?);
    if embeddings.is_empty() || top.is_empty() || continuous.is_empty() != bottom.is_empty() {
        return Err(foreign("it lacks embeddings or layers".to_owned()));
    }
    let ranker = Ranker::from_parts(embeddings, continuous, pretrained, bottom, top);
    let again = proto::Model::decode(super::ranker(&ranker).as_slice());
    match again.is_ok_and(|again| again.graph.as_ref() == Some(&graph)) {
        true => Ok(ranker),
        false => Err(foreign(
            "exported again, its parameters give another graph".to_owned(),
        )),
    }
}

/// A constant of floats: `[rows, columns]`; a vector is one row.
fn matrix(tensor: &proto::Tensor) -> Option<Parameter> {
    let (rows, columns) = match tensor.dims[..] {
        [columns] => (1, columns),
        [rows, columns] => (rows, columns),
        _ => return None,
    };
    let (rows, columns) = (rows.try_into().ok()?, columns.try_into().ok()?);
    let (numbers, rest) = tensor.raw_data.as_deref()?.as_chunks::<4>();
    let values: Vec<f32> = numbers.iter().copied().map(f32::from_le_bytes).collect();
    let fits = tensor.data_type == Some(FLOAT)
        && rest.is_empty()
        && values.len() == usize::checked_mul(rows, columns)?;
    fits.then(|| Parameter::new(rows, columns, values))
}
