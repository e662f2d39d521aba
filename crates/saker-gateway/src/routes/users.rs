//! `GET /users`, `/users/{id}`, `DELETE /users/{id}/seen`

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use saker_store::feast::{FeatureView, Value as Stored};
use saker_store::seen::{Method, Prefixes};
use saker_store::{Client, Pipeline, StoreError, recent};
use serde_json::{Map, Value, json};

use super::json;
use crate::problem::Problem;
use crate::query::{Query, number};
use crate::state::State;
use crate::store::replies;

/// Maximum number of a user's recent items shown.
const RECENT: usize = 50;

/// A sample of known users, for the storefront's list.
pub(super) async fn some(
    Shared(state): Shared<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let k = Query::read(query.as_deref(), &["k"])?.k(20)?;
    let catalogue = state.catalogue();
    let mut text = String::from("{\"users\":[");
    for (place, (id, features)) in catalogue.users(k).enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{{\"user_id\":{id},\"features\":{features}}}");
    }
    text.push_str("]}");
    Ok(json(text))
}

/// The stored data of a user.
pub(super) async fn user(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::read(query.as_deref(), &[])?;
    let id = number("id", &id, i32::MIN..=i32::MAX)?;
    let catalogue = state.catalogue();
    let features = match state.settings.users.clone() {
        Some(view) => {
            let read = move |client: &mut Client| read_features(client, &view, id);
            state.features.run(read).await.map_err(down)?
        }
        None => None,
    };
    let activity = state.activity.run(move |client| read_activity(client, id));
    let (items, seen) = activity.await.map_err(down)?;
    let recent: Vec<Value> = items
        .into_iter()
        .map(|(item, time_us)| {
            let title = i32::try_from(item)
                .ok()
                .and_then(|item| catalogue.title(item));
            json!({ "id": item, "title": title, "timestamp": time_us as f64 / 1e6 })
        })
        .collect();
    let known = features.is_some() || catalogue.knows_user(id);
    let answer = json!({
        "user_id": id,
        "known": known,
        "features": features.map(|features| catalogue.named(features)),
        "recent_items": recent,
        "has_seen_items": seen,
    });
    Ok(json(answer.to_string()))
}

/// Deletes a user's seen and recent items, and the features derived from them.
pub(super) async fn forget(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    Query::read(query.as_deref(), &[])?;
    // All guests share one id below 0, so their data cannot be deleted.
    let id = number("id", &id, 0..=i32::MAX)?;
    let delete = move |client: &mut Client| {
        let mut keys = seen_keys(id).to_vec();
        keys.push(recent::key(i64::from(id)));
        replies(client, &on_each(&keys, "DEL")).map(drop)
    };
    state.activity.run(delete).await.map_err(down)?;
    let views = state.settings.activity.clone();
    if !views.is_empty() {
        let delete = move |client: &mut Client| {
            let mut pipeline = Pipeline::new();
            for view in &views {
                let entity = view.id(id);
                let words = view.remove(&entity);
                pipeline.command(&view.key(&entity), |cmd| {
                    words.iter().for_each(|word| {
                        cmd.arg(word);
                    });
                });
            }
            replies(client, &pipeline).map(drop)
        };
        state.features.run(delete).await.map_err(down)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

fn down(error: StoreError) -> Problem {
    tracing::debug!("users: {error}");
    Problem::unavailable("the store does not answer")
}

/// The keys of a user's seen items, for both modes of the filter.
fn seen_keys(user: i32) -> [String; 2] {
    let prefixes = Prefixes::default();
    [Method::Server, Method::Plain].map(|method| prefixes.key(method, i64::from(user)))
}

/// A pipeline with one command per key.
fn on_each(keys: &[String], command: &str) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for key in keys {
        pipeline.command(key.as_bytes(), |cmd| {
            cmd.arg(command).arg(key);
        });
    }
    pipeline
}

fn read_features(
    client: &mut Client,
    view: &FeatureView,
    user: i32,
) -> Result<Option<Map<String, Value>>, StoreError> {
    let mut pipeline = Pipeline::new();
    view.read(&view.id(user), &mut pipeline);
    let replies = replies(client, &pipeline)?;
    let Some(row) = replies
        .first()
        .map(|reply| view.row(reply))
        .transpose()?
        .flatten()
    else {
        return Ok(None);
    };
    let mut features = Map::new();
    for (position, name) in view.features().iter().enumerate() {
        features.insert(name.clone(), row.value(position)?.map_or(Value::Null, said));
    }
    Ok(Some(features))
}

/// A stored value as JSON. A list, which no step reads, is shown as the name of its type.
fn said(value: Stored) -> Value {
    match value {
        Stored::String(text) => text.into(),
        Stored::Int32(number) => number.into(),
        Stored::Int64(number) | Stored::UnixTimestamp(number) => number.into(),
        Stored::Double(number) => number.into(),
        Stored::Float(number) => number.into(),
        Stored::Bool(flag) => flag.into(),
        other => format!("{other:?}").into(),
    }
}

/// Reads the recent items with their times, and whether seen items exist for the user.
fn read_activity(client: &mut Client, user: i32) -> Result<(Vec<(i64, i64)>, bool), StoreError> {
    let user_id = i64::from(user);
    let mut pipeline = on_each(&seen_keys(user), "EXISTS");
    recent::latest(&mut pipeline, user_id, RECENT);
    let mut replies = replies(client, &pipeline)?;
    let latest = replies.pop();
    let items = latest.map(|reply| recent::latest_of(user_id, reply));
    let seen = replies.contains(&saker_store::Reply::Int(1));
    Ok((items.transpose()?.unwrap_or_default(), seen))
}
