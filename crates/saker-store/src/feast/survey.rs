//! Reports the content of a store for a view: its join keys, their types, and the types of its values. Feast's keys contain all of it. A
//! definition can thus be compared with a store that another program filled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{EntityKeyVersion, FeatureView, Value, read_entity_key};
use crate::{Connection, Pipeline, StoreError};

/// Maximum number of entities examined per kind.
const ENOUGH: usize = 100;
/// Number of keys after which the search ends if it has found an entity.
const KEYS: usize = 50_000;
/// Maximum duration of a round trip.
const ROUND_TRIP: Duration = Duration::from_secs(5);

/// Entities of a view with the same join keys of the same types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Version of the keys.
    pub version: EntityKeyVersion,
    /// Join keys and Feast's names of their types, sorted by name.
    pub join_keys: Vec<(String, &'static str)>,
    /// Number of entities examined.
    pub entities: usize,
    /// The stored values of each of the view's features, in their order.
    pub features: Vec<Stored>,
}

/// The values of one feature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Number of values per type, by Feast's name of the type. Nulls are not counted.
    pub types: BTreeMap<&'static str, usize>,
    /// An example of the texts.
    pub text: Option<String>,
}

/// Version, join keys and types of a key.
type Kind = (bool, Vec<(String, &'static str)>);

/// Searches the view's project for entities that have the view, with any join keys. Returns one kind for each set of join keys and types,
/// the kind with the most entities first. The search reads 50,000 keys. If it has found nothing by then, it goes on for at most `limit`. An
/// empty result therefore does not prove that no entity exists.
///
/// # Errors
/// Returns the errors of the store.
/// Those of the store.
pub fn survey(
    connection: &mut Connection,
    view: &FeatureView,
    limit: Duration,
) -> Result<Vec<Found>, StoreError> {
    let project = view.project();
    let begin = Instant::now();
    let mut found: BTreeMap<Kind, Found> = BTreeMap::new();
    let mut looked_at = 0;
    let mut ended = false;
    let mut pipeline = Pipeline::new();
    let searched = connection.scan(
        &view.project_pattern(),
        ROUND_TRIP,
        &mut |connection, keys| {
            pipeline.clear();
            looked_at += keys.len();
            let mut kinds = Vec::new();
            for key in &keys {
                let Some((version, join_keys)) = read_entity_key(key, &project) else {
                    continue;
                };
                let types = join_keys
                    .into_iter()
                    .map(|(name, id)| (name, id.type_name()));
                let kind = (version == EntityKeyVersion::V3, types.collect());
                if found.get(&kind).is_none_or(|found| found.entities < ENOUGH) {
                    view.read_key(key, &mut pipeline);
                    kinds.push((kind, version));
                }
            }
            if !kinds.is_empty() {
                let replies = connection.run(&pipeline, ROUND_TRIP)?;
                for ((kind, version), reply) in kinds.into_iter().zip(&replies) {
                    let Some(row) = view.row(reply)? else {
                        continue;
                    };
                    let found = found.entry(kind.clone()).or_insert_with(|| Found {
                        version,
                        join_keys: kind.1,
                        entities: 0,
                        features: vec![Stored::default(); view.features().len()],
                    });
                    found.entities += 1;
                    for (position, stored) in found.features.iter_mut().enumerate() {
                        if let Some(value) = row.value(position)? {
                            stored.add(&value);
                        }
                    }
                }
            }
            ended = begin.elapsed() > limit || (looked_at >= KEYS && !found.is_empty());
            match ended {
                // Ends the scan.
                true => Err(StoreError::Data("enough".into())),
                false => Ok(()),
            }
        },
    );
    if !ended {
        searched?;
    }
    let mut found: Vec<Found> = found.into_values().collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.entities));
    Ok(found)
}

impl Stored {
    fn add(&mut self, value: &Value) {
        *self.types.entry(value.type_name()).or_default() += 1;
        if let (Value::String(text), None) = (value, &self.text) {
            self.text = Some(text.clone());
        }
    }
}
