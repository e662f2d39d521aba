//! The routes, in one file per group.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use rustc_hash::FxHashMap;

use crate::Error;
use crate::access::Right;
use crate::context::{self, API_KEY, Around, REQUEST_ID, TRACE_PARENT};
use crate::door::Door;
use crate::problem::Problem;
use crate::state::State;

pub(crate) mod events;
mod explain;
mod health;
mod items;
mod pages;
mod recommendations;
mod users;

/// Maximum size of a request body, in bytes.
const LARGEST_BODY: usize = 1 << 20;

/// A route, the right it needs, and whether only operators have it.
struct Route {
    path: &'static str,
    right: Right,
    operators: bool,
    method: MethodRouter<Arc<State>>,
}

impl Route {
    fn new(path: &'static str, right: Right, method: MethodRouter<Arc<State>>) -> Self {
        Self {
            path,
            right,
            operators: false,
            method,
        }
    }

    fn operators(self) -> Self {
        Self {
            operators: true,
            ..self
        }
    }
}

/// All routes. The OpenAPI document lists the same ones.
fn all() -> Vec<Route> {
    use Right::{Admin, Events, Forget, Open, Read, Users};
    vec![
        Route::new("/recommendations", Read, get(recommendations::recommend)),
        Route::new("/explain", Admin, get(explain::explain)).operators(),
        Route::new("/events", Events, post(events::take)),
        Route::new("/items", Read, get(items::of_category)),
        Route::new("/items/{id}", Read, get(items::item)),
        Route::new("/popular", Read, get(items::popular)),
        Route::new("/categories", Read, get(items::categories)),
        Route::new("/users", Users, get(users::some)),
        Route::new("/users/{id}", Users, get(users::user)),
        Route::new("/users/{id}/seen", Forget, delete(users::forget)),
        Route::new("/pictures/{name}", Open, get(items::picture)),
        Route::new("/health/live", Open, get(health::live)),
        Route::new("/health/ready", Open, get(health::ready)),
        Route::new("/metrics", Open, get(health::metrics)).operators(),
        Route::new("/status.json", Admin, get(health::status)).operators(),
        Route::new("/openapi.json", Open, get(pages::openapi)),
        Route::new("/", Open, get(pages::shop)),
        Route::new("/operators", Open, get(pages::operators)).operators(),
        Route::new("/assets/{name}", Open, get(pages::asset)),
    ]
}

/// Paths of all routes.
#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    all().into_iter().map(|route| route.path).collect()
}

/// Builds the router of a listener with these rules.
pub(crate) fn router(state: &Arc<State>, door: Door, origins: &[String]) -> Router {
    let mut rights = FxHashMap::default();
    let mut router = Router::new();
    for route in all() {
        if door.operators || !route.operators {
            rights.insert(route.path, route.right);
            router = router.route(route.path, route.method);
        }
    }
    let around = Around {
        state: Arc::clone(state),
        door: Arc::new(door),
        rights: Arc::new(rights),
    };
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(CatchPanicLayer::custom(broken))
        .layer(middleware::from_fn_with_state(around, context::around))
        // The outermost layer, because a browser's preflight request has no key.
        .layer(cors(origins))
        .with_state(Arc::clone(state))
}

async fn nothing_here() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "the path does not exist; /openapi.json lists the existing ones",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not accept this method; /openapi.json lists the accepted ones",
    )
}

/// Turns a panic, which is a bug, into an error answer for one request.
fn broken(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!("a request's handler panicked: {}", text.unwrap_or("?"));
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal error of the gateway; its log has the details",
    )
    .into_response()
}

/// Checks that the texts are origins.
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

/// An answer with JSON that is already serialised.
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
