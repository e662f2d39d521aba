//! Compares the users and items in the online store with the definition.
//!
//! The type of an id is part of its key in Feast's layout: a user stored as INT64 is not found as INT32. If the definition does not name
//! the type, it is taken from existing users and items in the store.

use std::time::Duration;

use anyhow::{Result, bail};
use saker_pipeline::{Column, ColumnType, Entity, EntityType, Pipeline};
use saker_store::feast::{FeatureView, Found, Stored, survey};
use saker_store::{Connection, RedactedUrl, Settings};

use crate::views::feature_view;

/// Time limit of the search for the entities of one view.
const SEARCH: Duration = Duration::from_secs(3);

/// Extent of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Only the types of the ids, if the definition does not name them.
    Types,
    /// Join keys, types of the ids, and types of the features, which the steps of a release depend on.
    All,
}

/// Sets `entity_type` and `item_entity_type` of `[store]` to the stored types, if the definition omits them and the store has another
/// type than the default, INT32. Returns messages about everything that could not be compared.
///
/// # Errors
/// Returns an error if the steps cannot read a stored view, or if its ids have several types and the definition does not name one.
pub fn settle(pipeline: &mut Pipeline, compare: Compare) -> Result<Vec<String>> {
    let store = &pipeline.store;
    let known = store.entity_type.is_some() && store.item_entity_type.is_some();
    if known && compare == Compare::Types {
        return Ok(Vec::new());
    }
    let settings = Settings::parse(&store.redis_url, None)?;
    let mut connection = match Connection::open(&settings) {
        Ok(connection) => connection,
        Err(error) => {
            return Ok(vec![format!(
                "{}: {error}; what it holds is not compared with the definition, and ids without an entity_type under \
                 [store] are taken for INT32",
                settings.url()
            )]);
        }
    };
    let mut notes = Vec::new();
    let of_users = of_entity(
        pipeline,
        &pipeline.user,
        compare,
        &mut connection,
        &mut notes,
    )?;
    let of_items = of_entity(
        pipeline,
        &pipeline.item,
        compare,
        &mut connection,
        &mut notes,
    )?;
    pipeline.store.entity_type = of_users;
    pipeline.store.item_entity_type = of_items;
    Ok(notes)
}

/// The type of an entity's ids: the definition's, or else the store's; `None` is the default.
fn of_entity(
    pipeline: &Pipeline,
    entity: &Entity,
    compare: Compare,
    connection: &mut Connection,
    notes: &mut Vec<String>,
) -> Result<Option<EntityType>> {
    let store = &pipeline.store;
    let (view, given, key) = if entity.id == pipeline.user.id {
        (&store.user_view, store.entity_type, "entity_type")
    } else {
        (&store.item_view, store.item_entity_type, "item_entity_type")
    };
    let columns: Vec<&Column> = entity.stored().collect();
    let names = columns.iter().map(|column| column.name.as_str());
    let view = feature_view(pipeline, entity, view, names);
    let found = match survey(connection, &view, SEARCH) {
        Ok(found) => found,
        Err(error) => {
            let url = connection.url();
            notes.push(format!(
                "{url}: view '{}' is not compared with the definition: {error}",
                view.name()
            ));
            return Ok(given);
        }
    };
    if found.is_empty() {
        if compare == Compare::All {
            notes.push(format!(
                "{}: no entity of view '{}' in project '{}' was found; ids are looked up as {}",
                connection.url(),
                view.name(),
                view.project(),
                given.unwrap_or(EntityType::Int32).as_str()
            ));
        }
        return Ok(given);
    }
    let own: Vec<&Found> = found.iter().filter(|found| is_of(found, &view)).collect();
    let url = connection.url();
    if own.is_empty() {
        let why = other_keys(&view, &found, store.entity_key_serialization);
        return refuse_or_note(format!("{url}: {why}"), compare, notes).map(|()| given);
    }
    let types: Vec<&str> = own.iter().map(|found| found.join_keys[0].1).collect();
    let held = format!(
        "view '{}' holds {} as {}",
        view.name(),
        entity.id,
        types.join(" and as ")
    );
    let chosen = match given {
        Some(given) => own
            .iter()
            .find(|found| found.join_keys[0].1 == given.as_str()),
        None if own.len() > 1 => bail!(
            "{url}: {held}; `{key} = \"…\"` under [store] says which counts; the others are left over from something else"
        ),
        None => own.first(),
    };
    let Some(chosen) = chosen else {
        let given_name = given.map_or("INT32", EntityType::as_str);
        let why = format!(
            "{url}: {held}, and `{key}` under [store] is {given_name}: nobody would be found"
        );
        return refuse_or_note(why, compare, notes).map(|()| given);
    };
    if compare == Compare::All {
        features(&view, &columns, chosen)?;
    }
    match given {
        Some(given) => Ok(Some(given)),
        None => type_of(chosen, &view, url),
    }
}

/// Fails with the reason if everything is compared; otherwise adds it to the notes.
fn refuse_or_note(why: String, compare: Compare, notes: &mut Vec<String>) -> Result<()> {
    if compare == Compare::All {
        bail!("{why}");
    }
    notes.push(why);
    Ok(())
}

/// The entity type of a stored key; `None` for INT32, the default.
fn type_of(chosen: &Found, view: &FeatureView, url: &RedactedUrl) -> Result<Option<EntityType>> {
    match chosen.join_keys[0].1 {
        "INT32" => Ok(None),
        "INT64" => Ok(Some(EntityType::Int64)),
        "STRING" => Ok(Some(EntityType::String)),
        other => bail!(
            "{url}: view '{}' holds {} as {other}; accepted: INT32, INT64, STRING",
            view.name(),
            view.join_key()
        ),
    }
}

/// Whether the view's join key is the entities' only one, in the same serialization.
fn is_of(found: &Found, view: &FeatureView) -> bool {
    let same = matches!(&found.join_keys[..], [(name, _)] if name == view.join_key());
    same && found.version == view.version()
}

/// Why the lookups cannot find the stored entities of the view.
fn other_keys(view: &FeatureView, found: &[Found], serialization: u8) -> String {
    let first = &found[0];
    let keys: Vec<String> = first
        .join_keys
        .iter()
        .map(|(name, kind)| format!("{name} ({kind})"))
        .collect();
    let (name, key) = (view.name(), view.join_key());
    if first.join_keys.len() > 1 {
        return format!(
            "view '{name}' has entities of several join keys, {}; a request names {key} alone. Accepted: a feature view \
             whose one entity is {key}; materialize such a view with Feast and name it under [store]",
            keys.join(" and ")
        );
    }
    if first.join_keys[0].0 != key {
        return format!(
            "view '{name}' has the join key {}; the definition's id is {key}. Accepted: the same name in both",
            keys.join(" and ")
        );
    }
    format!(
        "view '{name}' has keys of serialization version {}; `entity_key_serialization` under [store] is {serialization}",
        first.version
    )
}

/// Whether the lookups can serve the stored features as the definition's columns.
fn features(view: &FeatureView, columns: &[&Column], found: &Found) -> Result<()> {
    for (column, stored) in columns.iter().zip(&found.features) {
        let wrong: Vec<&str> = stored
            .types
            .keys()
            .copied()
            .filter(|kind| !is_served(column, kind))
            .collect();
        // A lookup replaces a few wrong values by the default, counts and logs them. A column without any valid value is a
        // mistake.
        if wrong.is_empty() || wrong.len() < stored.types.len() {
            continue;
        }
        bail!(
            "view '{}': feature '{}' is {} in the store{}; the definition's column is {}. {}",
            view.name(),
            column.name,
            wrong.join(" and "),
            example(stored),
            match column.kind {
                ColumnType::Float32 => "float32",
                _ => "int32",
            },
            advice(column, &wrong)
        );
    }
    Ok(())
}

/// Whether values of a Feast type fit the output of a column.
fn is_served(column: &Column, kind: &str) -> bool {
    match kind {
        "INT32" | "INT64" | "BOOL" | "UNIX_TIMESTAMP" => true,
        "FLOAT" | "DOUBLE" => column.kind == ColumnType::Float32,
        // A release has the codes of these texts.
        "STRING" => column.codes.is_some(),
        _ => false,
    }
}

fn example(stored: &Stored) -> String {
    let text = stored.text.as_ref();
    text.map_or(String::new(), |text| format!(", such as {text:?}"))
}

fn advice(column: &Column, wrong: &[&str]) -> String {
    let accepted = match column.kind {
        ColumnType::Float32 => "any type of numbers",
        _ => "INT32, INT64, BOOL or UNIX_TIMESTAMP",
    };
    if wrong.contains(&"STRING") {
        return format!(
            "A lookup serves texts of a column with `codes`, which `saker prepare` numbers. Accepted here: {accepted}"
        );
    }
    format!("Accepted: {accepted}")
}
