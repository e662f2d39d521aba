//! The routes, a file per group.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::Error;
use crate::context::{self, API_KEY, REQUEST_ID, TRACE_PARENT};
use crate::problem::Problem;
use crate::state::State;

mod events;
mod explain;
mod health;
mod items;
mod pages;
mod recommendations;
mod users;

/// How large a body may be.
const LARGEST_BODY: usize = 1 << 20;

type Routed = MethodRouter<Arc<State>>;

/// Every route; the OpenAPI document holds the same.
fn all() -> Vec<(&'static str, Routed)> {
    vec![
        ("/recommendations", get(recommendations::recommend)),
        ("/explain", get(explain::explain)),
        ("/events", post(events::take)),
        ("/items", get(items::of_category)),
        ("/items/{id}", get(items::item)),
        ("/popular", get(items::popular)),
        ("/categories", get(items::categories)),
        ("/users", get(users::some)),
        ("/users/{id}", get(users::user)),
        ("/users/{id}/seen", delete(users::forget)),
        ("/pictures/{name}", get(items::picture)),
        ("/health/live", get(health::live)),
        ("/health/ready", get(health::ready)),
        ("/metrics", get(health::metrics)),
        ("/status.json", get(health::status)),
        ("/openapi.json", get(pages::openapi)),
        ("/", get(pages::shop)),
        ("/operators", get(pages::operators)),
        ("/assets/{name}", get(pages::asset)),
    ]
}

/// The paths of all routes.
#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    all().into_iter().map(|(path, _)| path).collect()
}

pub(crate) fn router(state: Arc<State>, origins: &[String]) -> Router {
    let routes = all();
    let router = routes
        .into_iter()
        .fold(Router::new(), |router, (path, route)| {
            router.route(path, route)
        });
    let around = middleware::from_fn_with_state(Arc::clone(&state), context::around);
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(CatchPanicLayer::custom(broken))
        .layer(around)
        // Outermost: a browser's question beforehand carries no key.
        .layer(cors(origins))
        .with_state(state)
}

async fn nothing_here() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is no such path; /openapi.json lists those there are",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path takes another method; /openapi.json lists them",
    )
}

/// A panic is a bug, and one request's.
fn broken(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!("a request's handler panicked: {}", text.unwrap_or("?"));
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the gateway made a mistake; its log says more",
    )
    .into_response()
}

/// Whether these are origins.
pub(crate) fn check_origins(origins: &[String]) -> Result<(), Error> {
    for origin in origins {
        let is_origin = origin == "*"
            || url::Url::parse(origin).is_ok_and(|url| {
                url.origin().is_tuple() && url.origin().ascii_serialization() == *origin
            });
        if !is_origin {
            return Err(Error::Origin(origin.clone()));
        }
    }
    Ok(())
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    let headers: [HeaderName; 4] = [header::CONTENT_TYPE, API_KEY, REQUEST_ID, TRACE_PARENT];
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(headers)
        .expose_headers([REQUEST_ID, header::RETRY_AFTER])
        .max_age(std::time::Duration::from_secs(3600))
}

/// An answer whose JSON is written already.
fn json(text: impl Into<axum::body::Body>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], text.into()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_checked() {
        let check = |origin: &str| check_origins(&[origin.to_owned()]);
        for right in ["*", "https://shop.example", "http://127.0.0.1:3000"] {
            assert!(check(right).is_ok(), "{right}");
        }
        for wrong in [
            "shop.example",
            "https://shop.example/",
            "https://shop.example/a",
            "null",
            "",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
