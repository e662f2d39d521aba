//! `POST /events`

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use saker_store::events::{Event, Kind, LONGEST_ID, Published, publish};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::catalogue::DisplayCatalogue;
use crate::context::unique_id;
use crate::problem::Problem;
use crate::query::{DEVICES, device, shortened};
use crate::state::{State, now_us};

/// Maximum number of events per request.
const MOST: usize = 1000;
/// Maximum time in microseconds by which an event may be ahead of the gateway's clock.
const AHEAD_US: i64 = 5 * 60 * 1_000_000;
/// The fields of an event.
const FIELDS: [&str; 6] = [
    "event_id",
    "user_id",
    "item_id",
    "type",
    "timestamp",
    "device_type",
];

pub(super) async fn take(
    Shared(state): Shared<Arc<State>>,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|error| {
        let detail = format!("{}; accepted is a body of at most 1 MiB", error.body_text());
        Problem::new(error.status(), detail)
    })?;
    check_content_type(&headers)?;
    let mut events = read(&body, &state.catalogue(), now_us())?;
    if call.trace.is_recorded() {
        for event in &mut events {
            event.traceparent = Some(call.trace.header().to_string());
        }
    }
    let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    let limits = state.settings.events;
    // The remaining memory is reserved for the updater, which frees memory by applying the waiting events.
    if state.store_is_full() {
        return Err(store_is_full(&state, events.len()));
    }
    let published = state
        .activity
        .run(move |client| {
            publish(&events, limits, |pipeline, replies| {
                client.run(pipeline, replies)
            })
        })
        .await;
    let published = published.map_err(|error| {
        tracing::debug!("events: {error}");
        if error.is_out_of_memory() {
            return store_is_full(&state, ids.len());
        }
        Problem::unavailable(
            "the store of events does not answer; you may send the same events again with the same event_id",
        )
    })?;
    let (mut accepted, mut duplicates, mut full) = (0, 0, 0);
    for outcome in &published {
        match outcome {
            Published::Stored(_) => accepted += 1,
            Published::Duplicate => duplicates += 1,
            Published::Full => full += 1,
        }
    }
    state.metrics.events(accepted, duplicates);
    if full > 0 {
        state.metrics.refused_events(full);
        return Err(Problem::unavailable(format!(
            "{full} of {} events were refused because {} are waiting already; send all again with the same event_id",
            published.len(),
            limits.backlog
        ))
        .retry_after(5));
    }
    let answer = json!({ "accepted": accepted, "duplicates": duplicates, "event_ids": ids });
    let mut response = super::json(answer.to_string()).into_response();
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn store_is_full(state: &State, events: usize) -> Problem {
    state.metrics.refused_events(events as u64);
    Problem::unavailable(
        "the store holds nearly as much as its maxmemory allows; send all again later with the same event_id",
    )
    .retry_after(5)
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.map_or("", |value| value.to_str().unwrap_or("?"));
    let kind = given.split(';').next().unwrap_or_default().trim();
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "the content type is '{}'; accepted is application/json",
                shortened(given)
            ),
        )),
    }
}

/// Parses one event or an array of events.
pub(crate) fn read(
    body: &[u8],
    catalogue: &DisplayCatalogue,
    now_us: i64,
) -> Result<Vec<Event>, Problem> {
    let body: Value = serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not JSON: {error}; accepted is an event, or an array of events"),
        )
    })?;
    match &body {
        Value::Object(event) => Ok(vec![read_one("", event, catalogue, now_us)?]),
        Value::Array(events) if events.is_empty() || events.len() > MOST => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!(
                "the array has {} events; accepted are 1 to {MOST}",
                events.len()
            ),
        )),
        Value::Array(events) => (0..)
            .zip(events)
            .map(|(place, event)| match event {
                Value::Object(event) => read_one(&format!("[{place}]."), event, catalogue, now_us),
                other => Err(Problem::field(
                    format!("[{place}]"),
                    format!("[{place}] is {}; accepted is an event", said(other)),
                )),
            })
            .collect(),
        other => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!(
                "the body is {}; accepted is an event, or an array of events",
                said(other)
            ),
        )),
    }
}

/// Parses one event; `at` is its place in the body.
fn read_one(
    at: &str,
    event: &Map<String, Value>,
    catalogue: &DisplayCatalogue,
    now_us: i64,
) -> Result<Event, Problem> {
    let refuse = |name: &str, accepted: &str| {
        let field = format!("{at}{name}");
        let value = event.get(name).map_or("missing".to_owned(), said);
        let detail = format!("{field} is {value}; accepted is {accepted}");
        Problem::field(field, detail)
    };
    if let Some(name) = event.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let field = format!("{at}{}", shortened(name));
        let detail = format!("{field} is unknown; accepted: {}", FIELDS.join(", "));
        return Err(Problem::field(field, detail));
    }
    let given = |name: &str| event.get(name).filter(|value| !value.is_null());
    let integer = |name: &str| {
        given(name)
            .and_then(whole)
            .and_then(|number| i32::try_from(number).ok())
    };
    let id = match given("event_id") {
        None => unique_id(),
        Some(Value::String(id)) if (1..=LONGEST_ID).contains(&id.chars().count()) => id.clone(),
        Some(_) => {
            return Err(refuse(
                "event_id",
                &format!("a text of 1 to {LONGEST_ID} characters"),
            ));
        }
    };
    let accepted_id = "a whole number of 32 bits";
    let user = integer("user_id").ok_or_else(|| refuse("user_id", accepted_id))?;
    let item = integer("item_id").ok_or_else(|| refuse("item_id", accepted_id))?;
    if catalogue.item(item).is_none() {
        return Err(refuse("item_id", "an item of the catalogue"));
    }
    let kind = given("type").and_then(Value::as_str);
    let kind: Kind = kind
        .and_then(|kind| kind.parse().ok())
        .ok_or_else(|| refuse("type", "one of view, click, cart, purchase"))?;
    let time_us = match given("timestamp") {
        None => now_us,
        Some(time) => micros(time)
            .filter(|&time| time <= now_us + AHEAD_US)
            .ok_or_else(|| {
                refuse(
                    "timestamp",
                    "Unix seconds, not more than 5 minutes ahead of the gateway's clock",
                )
            })?,
    };
    let device_type = match given("device_type") {
        None => None,
        Some(value) => {
            let text = match value {
                Value::String(text) => text.clone(),
                value => whole(value).map_or_else(String::new, |number| number.to_string()),
            };
            Some(device(&text).ok_or_else(|| refuse("device_type", &format!("one of {DEVICES}")))?)
        }
    };
    Ok(Event {
        id,
        user,
        item,
        kind,
        time_us,
        device_type,
        traceparent: None,
    })
}

/// A whole number, which JSON may write as `1` or `1.0`.
fn whole(value: &Value) -> Option<i64> {
    let exact = |number: f64| number.fract() == 0.0 && number.abs() < 9e15;
    value.as_i64().or_else(|| {
        value
            .as_f64()
            .filter(|&number| exact(number))
            .map(|number| number as i64)
    })
}

/// Converts Unix seconds to microseconds; `None` before 1970.
fn micros(value: &Value) -> Option<i64> {
    if let Some(seconds) = value.as_i64() {
        return seconds.checked_mul(1_000_000).filter(|&time| time >= 0);
    }
    let seconds = value.as_f64()?;
    // An f64 holds the microseconds of this millennium with an error below a quarter.
    (0.0..9e12)
        .contains(&seconds)
        .then(|| (seconds * 1e6).round() as i64)
}

/// Formats a value for an error message.
fn said(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        value => shortened(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Item;

    const NOW: i64 = 1_700_000_000_000_000;

    fn catalogue() -> DisplayCatalogue {
        let item = Item {
            id: 7,
            ..Item::default()
        };
        DisplayCatalogue::new(Vec::new(), [item], [], |_| Map::new())
    }

    fn one(body: &str) -> Result<Event, Problem> {
        read(body.as_bytes(), &catalogue(), NOW).map(|mut events| events.remove(0))
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let event = one(r#"{"user_id": 42, "item_id": 7.0, "type": "cart"}"#).unwrap();
        assert_eq!(event.id.len(), 36);
        assert_eq!((event.user, event.item, event.kind), (42, 7, Kind::Cart));
        assert_eq!((event.time_us, event.device_type), (NOW, None));
        let given = r#"{"event_id": "é", "user_id": -1, "item_id": 7, "type": "view", "timestamp": 1700000000.25,
            "device_type": "tablet"}"#;
        let event = one(given).unwrap();
        assert_eq!(event.id, "é");
        assert_eq!((event.time_us, event.device_type), (NOW + 250_000, Some(2)));
    }

    #[test]
    fn a_wrong_value_is_named() {
        let good = json!({"event_id": "a", "user_id": 42, "item_id": 7, "type": "view", "timestamp": 1_700_000_000});
        assert!(one(&good.to_string()).is_ok());
        for (field, value) in [
            ("event_id", json!("")),
            ("event_id", json!("x".repeat(65))),
            ("event_id", json!(7)),
            ("user_id", json!("42")),
            ("user_id", json!(2_147_483_648_i64)),
            ("user_id", json!(1.5)),
            ("user_id", Value::Null),
            ("item_id", json!(8)),
            ("item_id", json!([7])),
            ("type", json!("wish")),
            ("type", json!(1)),
            ("timestamp", json!(1_700_000_301)),
            ("timestamp", json!(-1)),
            ("timestamp", json!(1e300)),
            ("timestamp", json!("now")),
            ("timestamp", json!(i64::MAX)),
            ("device_type", json!(3)),
            ("device_type", json!({})),
            ("colour", json!("red")),
        ] {
            let mut event = good.clone();
            event[field] = value;
            let problem = format!("{:?}", one(&event.to_string()).unwrap_err());
            assert!(problem.contains(field), "{problem}");
        }
        for body in ["", "[]", "[1]", "7", "{", "null", "[[]]"] {
            assert!(one(body).is_err(), "{body}");
        }
        let many = format!("[{}]", vec!["{}"; MOST + 1].join(","));
        assert!(one(&many).is_err());
    }
}
