//! `GET /`, `/operators`, `/assets/{name}`, `/openapi.json`: files compiled into the program.

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::openapi;
use crate::problem::Problem;
use crate::query::shortened;

/// Files under `/assets/`: name, type, content.
const ASSETS: [(&str, &str, &[u8]); 4] = [
    (
        "style.css",
        "text/css; charset=utf-8",
        include_bytes!("../../assets/style.css"),
    ),
    (
        "shared.js",
        SCRIPT,
        include_bytes!("../../assets/shared.js"),
    ),
    (
        "storefront.js",
        SCRIPT,
        include_bytes!("../../assets/storefront.js"),
    ),
    (
        "operators.js",
        SCRIPT,
        include_bytes!("../../assets/operators.js"),
    ),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(super) async fn shop() -> Response {
    page(include_bytes!("../../assets/index.html"))
}

pub(super) async fn operators() -> Response {
    page(include_bytes!("../../assets/operators.html"))
}

pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    let found = ASSETS.iter().find(|(known, _, _)| *known == name);
    let (_, kind, content) = found.ok_or_else(|| {
        Problem::missing(
            "name",
            format!("asset '{}' does not exist", shortened(&name)),
        )
    })?;
    Ok(fixed(kind, content, "no-cache"))
}

pub(super) async fn openapi() -> Response {
    super::json(openapi::DOCUMENT)
}

fn page(content: &'static [u8]) -> Response {
    fixed("text/html; charset=utf-8", content, "no-cache")
}

fn fixed(kind: &'static str, content: &'static [u8], caching: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, caching),
        // Pages may not load content from other origins, run inline code, or be shown in a frame.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, content).into_response()
}
