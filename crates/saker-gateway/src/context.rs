//! What travels with a request: its id, its trace, who asks; and what is written down when it is answered.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use rustc_hash::FxHashMap;

use crate::access::{Right, Verdict};
use crate::door::Door;
use crate::problem::Problem;
use crate::state::State;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How long a client's request id may be.
const LONGEST_ID: usize = 128;

/// How long a request may take in all, the sending of its body included.
const LONGEST: Duration = Duration::from_secs(30);

/// What handlers know of their request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: Arc<str>,
    /// A W3C `traceparent` whose parent is this request.
    pub(crate) trace: Arc<str>,
    pub(crate) start: Instant,
}

/// What is around every route of a listener.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) state: Arc<State>,
    pub(crate) door: Arc<Door>,
    pub(crate) rights: Arc<FxHashMap<&'static str, Right>>,
}

/// Around every route.
pub(crate) async fn around(
    Shared(around): Shared<Around>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let call = Call {
        id: request_id(request.headers()).into(),
        trace: trace(request.headers()).into(),
        start,
    };
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", MatchedPath::as_str)
        .to_owned();
    let method = request.method().clone();
    request.extensions_mut().insert(call.clone());
    let has_body = !request.body().is_end_stream();
    let state = &around.state;
    let admitted = around.door.check_host(&request);
    let admitted = admitted.and_then(|()| around.admit(&route, request.headers()));
    let mut response = match admitted {
        Ok(()) => match tokio::time::timeout(LONGEST, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::unavailable(format!(
                "the request was not done within {} s",
                LONGEST.as_secs()
            ))
            .into_response(),
        },
        Err(problem) => {
            let mut response = problem.into_response();
            if has_body {
                // Nobody reads the body, so nothing can follow it on this connection.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&call.id) {
        headers.insert(REQUEST_ID, id);
    }
    if state.is_stopping() {
        // A client that keeps its connection sends the next request to another gateway.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    secure(headers);
    note(state, &call, &route, &method, response.status());
    response
}

/// What every answer says, unless its route says otherwise: nobody keeps it, reads it as something else than it is, shows it in
/// a frame or in a page of another origin.
const SECURITY: [(HeaderName, &str); 7] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

fn secure(headers: &mut HeaderMap) {
    for (name, value) in SECURITY {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

impl Around {
    /// Whether whoever asks may do so.
    fn admit(&self, route: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let right = self.rights.get(route).copied().unwrap_or(Right::Open);
        if right == Right::Open {
            return Ok(());
        }
        let Some(keys) = &self.state.settings.keys else {
            return match self.door.private || right == Right::Read {
                true => Ok(()),
                false => Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "this gateway has no API keys and does not listen on loopback, so nobody may ask this; \
                     start it with --api-key-file",
                )),
            };
        };
        let refused = |why: &str| Problem::new(StatusCode::UNAUTHORIZED, why);
        let key = headers.get(API_KEY).ok_or_else(|| {
            refused("the header x-api-key is missing; accepted is one of the shop's keys")
        })?;
        let key = key.to_str().map_err(|_| {
            refused("the header x-api-key is no text; accepted is one of the shop's keys")
        })?;
        match keys.ask(key, right, Instant::now()) {
            Verdict::Allowed(name) => {
                self.state.metrics.key(&name);
                Ok(())
            }
            Verdict::Later(seconds) => Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("this key has used up its rate; ask again in {seconds} s"),
            )
            .retry_after(seconds)),
            Verdict::Denied(name) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "the key '{name}' has not the right '{}', which its line in the file of keys can give",
                    right.word()
                ),
            )),
            Verdict::Unknown => Err(refused(
                "the header x-api-key holds a key that is not known; accepted is one of the shop's keys",
            )),
        }
    }
}

fn note(state: &State, call: &Call, route: &str, method: &Method, status: StatusCode) {
    let took = call.start.elapsed();
    // Anybody can invent a method; a label for each would fill the memory.
    let method = match *method {
        Method::GET | Method::POST | Method::DELETE | Method::HEAD | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    };
    state.metrics.answered(route, method, status.as_u16(), took);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(
        request_id = &*call.id,
        trace = &*call.trace,
        method,
        route,
        status = status.as_u16(),
        took_us,
        "answered"
    );
}

/// The client's id where it is one that a header and a log line can hold, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let usable = |id: &&str| {
        !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    given.filter(usable).map_or_else(unique_id, str::to_owned)
}

/// A random UUID.
pub(crate) fn unique_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default();
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}

/// The client's trace with a parent of our own, or a new trace, which nobody has asked to record.
fn trace(headers: &HeaderMap) -> String {
    let parent = hex(&rand::random::<[u8; 8]>());
    let given = headers
        .get(TRACE_PARENT)
        .and_then(|value| value.to_str().ok());
    match given.and_then(trace_of) {
        Some((trace, flags)) => format!("00-{trace}-{parent}-{flags}"),
        None => format!("00-{}-{parent}-00", hex(&rand::random::<[u8; 16]>())),
    }
}

/// The trace's id and flags of a `traceparent`.
fn trace_of(value: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, parent, flags, ..] = parts[..] else {
        return None;
    };
    let is = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let sound = is(version, 2) && is(trace, 32) && is(parent, 16) && is(flags, 2);
    // A later version may have more parts; this one has four.
    let counted = parts.len() == 4 || version != "00";
    (sound && counted && version != "ff" && !zero(trace) && !zero(parent)).then_some((trace, flags))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_up() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            trace_of(given),
            Some(("4bf92f3577b34da6a3ce929d0e0e4736", "01"))
        );
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(trace_of(wrong), None, "{wrong}");
        }
        let mut headers = HeaderMap::new();
        assert!(trace_of(&trace(&headers)).is_some());
        headers.insert(TRACE_PARENT, HeaderValue::from_static(given));
        let ours = trace(&headers);
        assert!(ours.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && ours.ends_with("-01"));
        assert_ne!(ours, given);
    }

    #[test]
    fn a_request_id_is_taken_or_made() {
        let mut headers = HeaderMap::new();
        assert_eq!(request_id(&headers).len(), 36);
        assert_ne!(unique_id(), unique_id());
        headers.insert(REQUEST_ID, HeaderValue::from_static("order-7"));
        assert_eq!(request_id(&headers), "order-7");
        headers.insert(REQUEST_ID, HeaderValue::from_static("two words"));
        assert_ne!(request_id(&headers), "two words");
    }
}
