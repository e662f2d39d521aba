//! Parameters that `lookup` and `seen` share, and how both read the store in one round trip.

use saker_store::feast::EntityType;
use saker_store::{CommandResult, Pipeline, StoreError};
use triton_backend::{DataType, Error};

/// Reads more about the entities of a lookup, in the lookup's round trip.
pub trait Alongside {
    /// Adds commands for the entities `ids`. `has_bloom` says whether the server has filters of its own; `None` if it was not asked.
    fn ask(&mut self, has_bloom: Option<bool>, ids: &[i64], commands: &mut Pipeline);

    /// Takes the replies to these commands, or the error instead of replies.
    fn take(
        &mut self,
        replies: &mut dyn Iterator<Item = CommandResult>,
        failure: Option<&StoreError>,
    );
}

/// An error about the store that this parameter describes. It names `TLS_CA` too, if that is set.
pub(crate) fn wrong_store(parameter: &str, with_authority: bool, error: &StoreError) -> Error {
    Error::invalid_argument(if with_authority {
        format!("parameters '{parameter}' and 'TLS_CA': {error}")
    } else {
        format!("parameter '{parameter}': {error}")
    })
}

/// Parses the parameter `ENTITY_TYPE`.
pub(crate) fn entity_type(said: Option<&str>) -> Result<Option<EntityType>, Error> {
    said.map(|text| {
        text.parse()
            .map_err(|error| Error::invalid_argument(format!("parameter 'ENTITY_TYPE': {error}")))
    })
    .transpose()
}

/// The entity type for ids of this tensor type.
pub(crate) fn of_ids(id_type: DataType) -> EntityType {
    match id_type {
        DataType::Int64 => EntityType::Int64,
        _ => EntityType::Int32,
    }
}
