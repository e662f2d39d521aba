//! The context of a request: its id, its trace, its caller; and the log line and metrics written after the answer.

use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustc_hash::FxHashMap;
use saker_traces::Span;

use crate::access::{Right, Verdict};
use crate::call::Call;
use crate::door::Door;
use crate::problem::Problem;
use crate::state::State;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Maximum length of a client's request id, in bytes.
const LONGEST_ID: usize = 128;

/// Maximum duration of a request, including the transfer of its body.
const LONGEST: Duration = Duration::from_secs(30);

/// State of the middleware around every route of a listener.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) state: Arc<State>,
    pub(crate) door: Arc<Door>,
    pub(crate) rights: Arc<FxHashMap<&'static str, Right>>,
}

/// Middleware around every route.
pub(crate) async fn around(
    Shared(around): Shared<Around>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let state = &around.state;
    let header = request.headers().get(TRACE_PARENT);
    let header = header.and_then(|value| value.to_str().ok());
    let mut span = state.settings.traces.serve(header, around.door.private);
    let call = Call {
        id: request_id(request.headers()).into(),
        trace: span.link().clone(),
        start,
    };
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", MatchedPath::as_str)
        .to_owned();
    let method = request.method().clone();
    request.extensions_mut().insert(call.clone());
    let (request, unread) = Unread::watch(request);
    let admitted = around.door.check_host(&request);
    let admitted = admitted.and_then(|()| around.admit(&route, request.headers()));
    let mut response = match admitted {
        Ok(()) => match tokio::time::timeout(LONGEST, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::unavailable(format!(
                "the request took longer than {} s",
                LONGEST.as_secs()
            ))
            .into_response(),
        },
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&call.id) {
        headers.insert(REQUEST_ID, id);
    }
    // An unread body blocks the connection, so it is closed. When the gateway stops, closing makes the client send its next request to
    // another gateway.
    if unread.is_left() || state.is_stopping() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    secure(headers);
    note(state, &call, &route, &method, response.status());
    describe(&mut span, &call, &route, &method, response.status());
    response
}

/// Whether part of a request's body is still unread.
struct Unread(Option<Arc<AtomicBool>>);

impl Unread {
    fn watch(request: Request) -> (Request, Self) {
        if request.body().is_end_stream() {
            return (request, Self(None));
        }
        let read = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&read);
        let request = request.map(|body| {
            Body::new(Watched {
                body,
                read: watched,
            })
        });
        (request, Self(Some(read)))
    }

    fn is_left(&self) -> bool {
        let read = self.0.as_ref();
        read.is_some_and(|read| !read.load(Ordering::Relaxed))
    }
}

/// A body that records when it has been read to its end.
struct Watched {
    body: Body,
    read: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.body.is_end_stream() || frame.is_none() {
            self.read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Default security headers of every answer; a route may override them. They forbid caching, content sniffing, framing and use by pages of
/// other origins.
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
    /// Checks that the caller may use the route: the key, its rights, its rate.
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
                    "this gateway has no API keys and does not listen on loopback, so this route is closed; \
                     start it with --api-key-file",
                )),
            };
        };
        let refused = |why: &str| Problem::new(StatusCode::UNAUTHORIZED, why);
        let key = headers.get(API_KEY).ok_or_else(|| {
            refused("the header x-api-key is missing; accepted: one of the shop's keys")
        })?;
        let key = key.to_str().map_err(|_| {
            refused("the header x-api-key is not text; accepted: one of the shop's keys")
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
                    "the key '{name}' lacks the right '{}'; add it to the key's line in the file of keys",
                    right.word()
                ),
            )),
            Verdict::Unknown => Err(refused(
                "the header x-api-key holds an unknown key; accepted: one of the shop's keys",
            )),
        }
    }
}

fn note(state: &State, call: &Call, route: &str, method: &Method, status: StatusCode) {
    let took = call.start.elapsed();
    // Clients can invent methods, and a label for each would exhaust memory.
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
        trace = call.trace.header(),
        method,
        route,
        status = status.as_u16(),
        took_us,
        "answered"
    );
}

/// Adds OpenTelemetry's attributes of the request to its span.
fn describe(span: &mut Span, call: &Call, route: &str, method: &Method, status: StatusCode) {
    span.name(|| format!("{method} {route}"));
    span.set("http.request.method", || method.to_string());
    span.set("http.route", || route.to_owned());
    span.set("http.response.status_code", || i64::from(status.as_u16()));
    span.set("saker.request_id", || call.id.to_string());
    if status.is_server_error() {
        span.fail(|| status.to_string());
    }
}

/// Returns the client's request id if a header and a log line can hold it, otherwise a new one.
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
