//! `GET /health/live`, `/health/ready`, `/metrics`, `/status.json`

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use saker_contract::Step;
use saker_contract::ensemble::ENSEMBLE;
use saker_contract::tensor::ORDERED_IDS;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use triton_client::Tensor;
use triton_client::balance::ServerState;
use triton_client::grpc::Call;
use triton_client::grpc::messages::{ModelStatistics, StatisticDuration};

use crate::state::State;

/// Maximum time for the health check of a service.
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

/// The status of one service.
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

/// Requests recommendations for an anonymous visitor. A Triton server that hangs still reports its models as ready.
async fn triton(state: &State) -> Result<(), String> {
    let visitor = || vec![Tensor::int32(&state.settings.user_input, &[-1])];
    let servers = state.ranking.servers();
    // If one of several servers hangs, another one still answers.
    let attempts = match servers.servers().len() {
        0 | 1 => 1,
        _ => 2,
    };
    let call = Call {
        deadline: Some(PATIENCE / attempts),
        ..Call::default()
    };
    let mut asked = Ok(());
    for _ in 0..attempts {
        let answer = servers.infer(ENSEMBLE, visitor, &[ORDERED_IDS], call);
        asked = answer.await.map(drop).map_err(|error| error.to_string());
        if asked.is_ok() {
            break;
        }
    }
    asked
}

/// Statistics of all Triton servers: the sums for each version of a model.
async fn statistics(state: &State) -> Vec<ModelStatistics> {
    let mut asked = JoinSet::new();
    for client in state.ranking.servers().clients() {
        asked.spawn(async move { client.statistics(PATIENCE).await });
    }
    let answers = asked.join_all().await;
    together(answers.into_iter().flatten().flatten())
}

fn together(all: impl Iterator<Item = ModelStatistics>) -> Vec<ModelStatistics> {
    let mut models: BTreeMap<(String, String), ModelStatistics> = BTreeMap::new();
    for model in all {
        match models.entry((model.name.clone(), model.version.clone())) {
            Entry::Vacant(entry) => drop(entry.insert(model)),
            Entry::Occupied(mut entry) => entry.get_mut().add(&model),
        }
    }
    models.into_values().collect()
}

pub(super) async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let kind = HeaderValue::from_static(kind);
    ([(header::CONTENT_TYPE, kind)], state.metrics.page()).into_response()
}

/// The data of the operators' page.
pub(super) async fn status(Shared(state): Shared<Arc<State>>) -> Response {
    let operations = Arc::clone(&state.operations);
    let operation = tokio::task::spawn_blocking(move || operations());
    let (triton, valkey, operation, models, waiting) = tokio::join!(
        triton(&state),
        state.ping(),
        operation,
        statistics(&state),
        state.waiting_events()
    );
    let operation = operation.unwrap_or_default();
    let servers: Vec<Value> = state
        .ranking
        .servers()
        .servers()
        .iter()
        .map(server)
        .collect();
    let steps: Vec<Value> = models.iter().map(step).collect();
    let filters = models
        .iter()
        .filter(|model| model.name == Step::SeenFilter.model());
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
        "triton": {
            "ready": triton.is_ok(),
            "reason": triton.err(),
            "address": state.settings.triton,
            "servers": servers,
        },
        "valkey": { "ready": valkey.is_ok(), "reason": valkey.err().map(|error| error.to_string()) },
        "gateway": state.metrics.summary(),
    });
    super::json(answer.to_string())
}

fn server(server: &ServerState) -> Value {
    json!({
        "address": server.address,
        "state": if server.is_ready { "ready" } else { "left" },
        "in_flight": server.in_flight,
        "requests": server.requests,
        "failures": server.failures,
    })
}

fn step(model: &ModelStatistics) -> Value {
    let spent = model.inference_stats.unwrap_or_default();
    // The mean per request.
    let mean_us = |spent: Option<StatisticDuration>| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use triton_client::grpc::messages::InferStatistics;

    #[test]
    fn statistics_of_several_servers_are_summed() {
        let model = |name: &str, version: &str, count: u64, ns: u64| ModelStatistics {
            name: name.to_owned(),
            version: version.to_owned(),
            inference_count: count,
            execution_count: count,
            inference_stats: Some(InferStatistics {
                success: Some(StatisticDuration { count, ns }),
                ..InferStatistics::default()
            }),
        };
        let none = ModelStatistics {
            inference_stats: None,
            ..model("a", "1", 0, 0)
        };
        let all = [
            model("b", "1", 1, 5),
            model("a", "1", 2, 10),
            none,
            model("a", "2", 7, 70),
            model("a", "1", 3, 30),
        ];
        let summed = together(all.into_iter());
        let wanted = [
            model("a", "1", 5, 40),
            model("a", "2", 7, 70),
            model("b", "1", 1, 5),
        ];
        assert_eq!(summed, wanted);
    }
}
