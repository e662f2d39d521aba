//! `GET /health/live`, `/health/ready`, `/metrics`, `/status.json`

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use triton_client::Tensor;
use triton_client::grpc::Call;
use triton_client::grpc::messages::{ModelStatistics, Spent};

use crate::ranking::ENSEMBLE;
use crate::state::State;

/// The step that hides what was seen: a name of the wire contract.
const FILTER: &str = "filter_seen_items";
/// How long the parts may take to say that they are there.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer of `/health/ready`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    triton: Part,
    valkey: Part,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stopping: bool,
}

/// What it says of a part.
#[derive(Serialize)]
struct Part {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) async fn live() -> Response {
    super::json(json!({ "live": true }).to_string())
}

pub(super) async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let (triton, valkey) = tokio::join!(triton(&state), state.ping());
    let valkey = valkey.map_err(|error| error.to_string());
    let stopping = state.is_stopping();
    let ready = triton.is_ok() && valkey.is_ok() && !stopping;
    let part = |part: Result<(), String>| Part {
        ready: part.is_ok(),
        reason: part.err(),
    };
    let answer = json!(Readiness {
        ready,
        triton: part(triton),
        valkey: part(valkey),
        stopping,
    });
    let mut response = super::json(answer.to_string());
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let after = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    response
}

/// Asks for an anonymous visitor's recommendations: a Triton that hangs still says that its models are ready.
async fn triton(state: &State) -> Result<(), String> {
    let visitor = Tensor::int32(&state.settings.user_input, &[-1]);
    let call = Call {
        deadline: Some(PATIENCE),
        ..Call::default()
    };
    let client = state.ranking.client();
    let asked = client.infer(ENSEMBLE, vec![visitor], &["ordered_ids"], call);
    asked.await.map(drop).map_err(|error| error.to_string())
}

pub(super) async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let kind = HeaderValue::from_static(kind);
    ([(header::CONTENT_TYPE, kind)], state.metrics.page()).into_response()
}

/// What the operators' page shows.
pub(super) async fn status(Shared(state): Shared<Arc<State>>) -> Response {
    let operations = Arc::clone(&state.operations);
    let operation = tokio::task::spawn_blocking(move || operations());
    let client = state.ranking.client();
    let statistics = tokio::time::timeout(PATIENCE, client.statistics(PATIENCE));
    let (triton, valkey, operation, statistics, waiting) = tokio::join!(
        triton(&state),
        state.ping(),
        operation,
        statistics,
        state.waiting_events()
    );
    let operation = operation.unwrap_or_default();
    let models = match statistics {
        Ok(Ok(models)) => models,
        _ => Vec::new(),
    };
    let steps: Vec<Value> = models.iter().map(step).collect();
    let filters = models.iter().filter(|model| model.name == FILTER);
    let filtered: u64 = filters.map(|model| model.inference_count).sum();
    let candidates = filtered as f64 * state.settings.candidates as f64;
    let seen_filter = operation
        .hidden
        .map(|hidden| json!({ "candidates": candidates, "hidden": hidden }));
    let answer = json!({
        "releases": operation.releases,
        "seen_filter": seen_filter,
        "events": { "accepted": state.metrics.accepted_events(), "waiting": waiting.ok() },
        "steps": steps,
        "triton": { "ready": triton.is_ok(), "reason": triton.err(), "address": state.settings.triton },
        "valkey": { "ready": valkey.is_ok(), "reason": valkey.err().map(|error| error.to_string()) },
        "gateway": state.metrics.summary(),
    });
    super::json(answer.to_string())
}

fn step(model: &ModelStatistics) -> Value {
    let spent = model.inference_stats.unwrap_or_default();
    // The mean of a request.
    let mean_us = |spent: Option<Spent>| {
        let spent = spent.unwrap_or_default();
        spent.ns as f64 / 1e3 / spent.count.max(1) as f64
    };
    json!({
        "model": model.name,
        "version": model.version,
        "requests": model.inference_count,
        "executions": model.execution_count,
        "failed": spent.fail.unwrap_or_default().count,
        "queue_us": mean_us(spent.queue),
        "input_us": mean_us(spent.compute_input),
        "infer_us": mean_us(spent.compute_infer),
        "output_us": mean_us(spent.compute_output),
        "total_us": mean_us(spent.success),
    })
}
