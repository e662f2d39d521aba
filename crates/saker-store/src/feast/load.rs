//! Reads a whole view.

use std::time::Duration;

use super::{EntityId, FeatureView, Row};
use crate::{Connection, Pipeline, StoreError};

/// Calls `found` for every entity of a view, in no particular order. An entity can come twice.
///
/// SCAN finds the keys by the entity's key prefix and the project, on every node of a cluster. They are read a thousand or more at a time,
/// so the server is never blocked for long. Each round trip may take `timeout`.
///
/// # Errors
/// Returns the errors of the store and of `found`.
pub fn load(
    connection: &mut Connection,
    view: &FeatureView,
    timeout: Duration,
    found: &mut dyn FnMut(EntityId, Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut pipeline = Pipeline::new();
    connection.scan(&view.pattern(), timeout, &mut |connection, keys| {
        pipeline.clear();
        let mut ids = Vec::with_capacity(keys.len());
        for key in &keys {
            if let Some(id) = view.id_of(key) {
                ids.push(id);
                view.read_key(key, &mut pipeline);
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        for (id, reply) in ids.into_iter().zip(connection.run(&pipeline, timeout)?) {
            if let Some(row) = view.row(&reply)? {
                found(id, row)?;
            }
        }
        Ok(())
    })
}
