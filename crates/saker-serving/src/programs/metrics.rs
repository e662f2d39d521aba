//! The HTTP endpoints /metrics, /health/live and /health/ready of a program.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use serde_json::json;

/// Serves the results of `text` and `is_ready`, in its own thread. Returns the address. `option` is the argument that sets
/// the address.
///
/// # Errors
/// Returns an error if the address cannot be listened on.
pub fn serve(
    address: &str,
    option: &str,
    text: impl Fn() -> String + Send + Sync + 'static,
    is_ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Result<SocketAddr> {
    let cannot = || format!("cannot listen on {address} for the metrics; {option} names another");
    let listener = TcpListener::bind(address).with_context(cannot)?;
    listener.set_nonblocking(true).with_context(cannot)?;
    let bound = listener.local_addr().with_context(cannot)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no thread for the metrics")?;
    let (text, is_ready) = (Arc::new(text), Arc::new(is_ready));
    let routes = Router::new()
        .route(
            "/metrics",
            get(move || {
                let text = text();
                async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
            }),
        )
        .route(
            "/health/live",
            get(async || ([(CONTENT_TYPE, "application/json")], r#"{"live":true}"#)),
        )
        .route(
            "/health/ready",
            get(move || {
                let ready = is_ready();
                let status = match ready {
                    Ok(()) => StatusCode::OK,
                    Err(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                let answer = json!({ "ready": ready.is_ok(), "reason": ready.err() });
                let answer = (
                    status,
                    [(CONTENT_TYPE, "application/json")],
                    answer.to_string(),
                );
                async move { answer }
            }),
        );
    std::thread::spawn(move || {
        runtime.block_on(async {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => axum::serve(listener, routes).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::error!("the metrics are no longer served: {error}");
            }
        });
    });
    Ok(bound)
}
