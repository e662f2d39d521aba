//! `GET /explain`: the inputs and outputs of each step of the ensemble for one request.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use rustc_hash::FxHashSet;
use saker_contract::ensemble::ENSEMBLE;
use saker_contract::{RawId, Step, tensor};
use serde_json::{Map, Value, json};
use triton_client::steps::{self, Explained, explain as ask_steps};
use triton_client::{Tensor, Triton};

use super::recommendations::visit;
use crate::call::Call;
use crate::catalogue::DisplayCatalogue;
use crate::problem::Problem;
use crate::query::Query;
use crate::ranking::Visit;
use crate::state::State;

/// Maximum number of values shown per tensor.
const PREVIEW: usize = 20;

pub(super) async fn explain(
    Shared(state): Shared<Arc<State>>,
    Extension(call): Extension<Call>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let accepted = ["user_id", "device_type", "timestamp", "k", "item_id"];
    let query = Query::read(query.as_deref(), &accepted)?;
    let (visit, k) = (visit(&query)?, query.k(10)?);
    let item = query.number("item_id", i32::MIN..=i32::MAX)?;
    let catalogue = state.catalogue();
    let permit = Arc::clone(&state.explanations).try_acquire_owned();
    let permit = permit.map_err(|_| {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many explanations run at the moment; try again shortly",
        )
        .retry_after(1)
    })?;
    let asked = Arc::clone(&state);
    let explained = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let triton = Triton::new(&asked.settings.triton_http);
        let explained = ask_steps(&triton, ENSEMBLE, &asked.ranking.inputs(visit))?;
        let backends = explained.steps.iter().map(|step| {
            let config = triton.config(&step.model)?;
            let backend = config.get("backend").and_then(Value::as_str);
            Ok(backend.unwrap_or_default().to_owned())
        });
        let backends = backends.collect::<triton_client::Result<Vec<String>>>()?;
        Ok::<_, triton_client::Error>((explained, backends))
    });
    let (explained, backends) = match explained.await {
        Ok(Ok(explained)) => explained,
        Ok(Err(error)) => {
            tracing::warn!(request_id = &*call.id, "no explanation: {error}");
            return Err(Problem::unavailable("Triton does not answer"));
        }
        Err(_) => {
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal error of the gateway; its log has the details",
            ));
        }
    };
    let answer = Journey::of(&explained, &backends).answer(&catalogue, visit, k, item);
    Ok(super::json(answer.to_string()))
}

fn stage(step: &steps::Step, backend: &str) -> Value {
    let nanoseconds: u64 = step.nanoseconds.iter().sum();
    let of = |name: &str| find(step, name).map(items_in);
    let (items_in, items_out) = match Step::of_model(&step.model) {
        Some(Step::Retrieval) => (None, of(tensor::CANDIDATE_IDS)),
        Some(Step::SeenFilter) => (
            step.inputs
                .iter()
                .find(|tensor| tensor.name == tensor::CANDIDATE_IDS)
                .map(items_in),
            of(tensor::FILTERED_IDS),
        ),
        Some(Step::Ranking) => {
            let rows = of(tensor::SCORE);
            (rows, rows)
        }
        Some(
            Step::ContextPreprocessor
            | Step::UserLookup
            | Step::UserTransform
            | Step::ContextTransform
            | Step::QueryTower
            | Step::ItemLookup
            | Step::ItemTransform
            | Step::EmbeddingLookup
            | Step::Unroll
            | Step::Sampling
            | Step::Decoder
            | Step::Fused,
        )
        | None => (
            // Steps between retrieval and answer have one row per item.
            step.inputs.iter().map(rows).max().filter(|&rows| rows > 1),
            step.outputs.iter().map(rows).max().filter(|&rows| rows > 1),
        ),
    };
    json!({
        "step": step.model,
        "backend": backend,
        "version": step.version,
        "items_in": items_in,
        "items_out": items_out,
        "milliseconds": nanoseconds as f64 / 1e6,
        "inputs": step.inputs.iter().map(shown).collect::<Vec<_>>(),
        "outputs": step.outputs.iter().map(shown).collect::<Vec<_>>(),
    })
}

fn rows(tensor: &Tensor) -> usize {
    let rows = tensor.shape.first().copied().unwrap_or_default();
    usize::try_from(rows).unwrap_or_default()
}

/// Number of items in a tensor: the ids other than padding, or the rows of any other tensor.
fn items_in(tensor: &Tensor) -> usize {
    match tensor.int32s() {
        Ok(ids) => ids.into_iter().filter(|id| RawId::is_item(*id)).count(),
        Err(_) => rows(tensor),
    }
}

fn shown(tensor: &Tensor) -> Value {
    let mut values = values(tensor);
    values.truncate(PREVIEW);
    json!({ "name": tensor.name, "type": tensor.data_type, "shape": tensor.shape, "preview": values })
}

/// The elements as JSON; empty for a type that no step uses.
fn values(tensor: &Tensor) -> Vec<Value> {
    match tensor.data_type.as_str() {
        "INT32" => tensor
            .int32s()
            .map(|values| values.into_iter().map(Value::from).collect()),
        "FP32" => tensor
            .float32s()
            .map(|values| values.into_iter().map(Value::from).collect()),
        "BYTES" => tensor
            .texts()
            .map(|values| values.into_iter().map(Value::from).collect()),
        _ => Ok(Vec::new()),
    }
    .unwrap_or_default()
}

fn find<'s>(step: &'s steps::Step, output: &str) -> Option<&'s Tensor> {
    step.outputs.iter().find(|tensor| tensor.name == output)
}

/// The items after each step of the request.
struct Journey {
    release: Option<String>,
    /// The description of each step, as JSON.
    stages: Vec<Value>,
    /// Items that the index returned, best first.
    retrieved: Vec<i32>,
    /// Items that the user has not seen.
    filtered: Vec<i32>,
    /// The filtered items with their scores, best first.
    ranked: Vec<(i32, f32)>,
    /// The answer.
    shown: Vec<(i32, f32)>,
    raw: Map<String, Value>,
    encoded: Map<String, Value>,
}

impl Journey {
    fn of(explained: &Explained, backends: &[String]) -> Self {
        let stages = explained.steps.iter().zip(backends);
        let step = |named: Step| {
            let mut steps = explained.steps.iter();
            steps.find(|step| step.model == named.model())
        };
        let ids = |named: Step, output: &str| {
            let tensor = step(named).and_then(|step| find(step, output));
            let ids = tensor.and_then(|tensor| tensor.int32s().ok());
            let ids = ids.unwrap_or_default().into_iter();
            ids.filter(|id| RawId::is_item(*id)).collect::<Vec<i32>>()
        };
        let floats = |named: Step, output: &str| {
            let tensor = step(named).and_then(|step| find(step, output));
            tensor
                .and_then(|tensor| tensor.float32s().ok())
                .unwrap_or_default()
        };
        let features = |named: Step| {
            let outputs = step(named).map(|step| step.outputs.as_slice());
            let outputs = outputs.unwrap_or_default().iter();
            outputs
                .map(|tensor| {
                    let first = values(tensor).into_iter().next();
                    (tensor.name.clone(), first.unwrap_or(Value::Null))
                })
                .collect()
        };
        let filtered = ids(Step::SeenFilter, tensor::FILTERED_IDS);
        let scores = floats(Step::Ranking, tensor::SCORE);
        let mut ranked: Vec<(i32, f32)> = filtered.iter().copied().zip(scores).collect();
        // NaN comes last, as in the ranking step itself; equal scores keep the order of the candidates.
        ranked.sort_by(|(_, left), (_, right)| {
            let key = |score: f32| {
                if score.is_nan() {
                    f32::NEG_INFINITY
                } else {
                    score
                }
            };
            key(*right).total_cmp(&key(*left))
        });
        let scores = floats(Step::Decoder, tensor::ORDERED_SCORES);
        let shown = ids(Step::Decoder, tensor::ORDERED_IDS);
        let shown = shown.into_iter().zip(scores);
        let release = step(Step::Decoder).and_then(|step| find(step, tensor::RELEASE));
        Self {
            release: release.and_then(|release| release.texts().ok()?.into_iter().next()),
            stages: stages.map(|(step, backend)| stage(step, backend)).collect(),
            retrieved: ids(Step::Retrieval, tensor::CANDIDATE_IDS),
            shown: shown.collect(),
            raw: features(Step::UserLookup),
            encoded: features(Step::UserTransform),
            filtered,
            ranked,
        }
    }

    fn answer(
        self,
        catalogue: &DisplayCatalogue,
        visit: Visit,
        k: usize,
        item: Option<i32>,
    ) -> Value {
        let retrieval_rank: HashMap<i32, usize> = self.retrieved.iter().copied().zip(1..).collect();
        let kept: FxHashSet<i32> = self.filtered.iter().copied().collect();
        let hidden: Vec<Value> = self
            .retrieved
            .iter()
            .filter(|id| !kept.contains(id))
            .map(|&id| json!({ "id": id, "title": catalogue.title(id) }))
            .collect();
        let items: Vec<Value> = (1..)
            .zip(self.shown.iter().take(k))
            .map(|(rank, (id, score))| {
                json!({
                    "rank": rank,
                    "id": id,
                    "title": catalogue.title(*id),
                    "score": score,
                    "retrieval_rank": retrieval_rank.get(id),
                })
            })
            .collect();
        let asked = item.map(|item| self.asked(catalogue, &retrieval_rank, item, k));
        json!({
            "release": self.release,
            "stages": self.stages,
            "request": {
                "user_id": visit.user,
                "device_type": visit.device_type,
                "timestamp": visit.timestamp,
                "k": k,
                "item_id": item,
            },
            "user_features": {
                "raw": self.raw,
                "named": catalogue.named(self.raw.clone()),
                "encoded": self.encoded,
            },
            "hidden_by_seen_filter": hidden,
            "items": items,
            "asked": asked,
        })
    }

    /// Explains in a sentence at which step an item was dropped, or at which place it is shown.
    fn asked(
        &self,
        catalogue: &DisplayCatalogue,
        retrieval_rank: &HashMap<i32, usize>,
        item: i32,
        k: usize,
    ) -> Value {
        let name = match catalogue.title(item) {
            Some(title) => format!("“{title}” ({item})"),
            None => format!("item {item}"),
        };
        let retrieved = self.retrieved.len();
        let place = |ranked: &[(i32, f32)]| {
            let found = (1..).zip(ranked).find(|(_, (id, _))| *id == item);
            found.map(|(rank, (_, score))| (rank, *score))
        };
        let at = retrieval_rank.get(&item).copied();
        let found = match at {
            Some(at) => format!("retrieval found it as number {at} of {retrieved}"),
            None => {
                "retrieval did not find it, it filled a short list as a popular item".to_owned()
            }
        };
        let (verdict, rank, score, sentence) = if let Some((rank, score)) =
            place(&self.shown).filter(|(rank, _)| *rank <= k)
        {
            let sentence = format!(
                "{name} is shown at place {rank}: {found}, and the ranker gives it {score:.4}."
            );
            ("shown", Some(rank), Some(score), sentence)
        } else if let Some((rank, score)) = place(&self.ranked) {
            let of = self.ranked.len();
            let shown = k.min(self.shown.len());
            let sentence = format!(
                "{name} was ranked and not shown: {found}, the ranker gives it {score:.4}, which is place {rank} of {of}, \
                 and the best {shown} are shown."
            );
            ("ranked", Some(rank), Some(score), sentence)
        } else if let Some(at) = at {
            let sentence = format!(
                "{name} is hidden because the user has seen it: retrieval found it as number {at} of {retrieved}."
            );
            ("seen", None, None, sentence)
        } else if catalogue.item(item).is_none() {
            let sentence = format!("Item {item} is not in the catalogue.");
            ("unknown item", None, None, sentence)
        } else {
            let sentence = format!(
                "{name} was not retrieved: it is not among the {retrieved} items that are closest to the user."
            );
            ("not retrieved", None, None, sentence)
        };
        json!({
            "item_id": item,
            "title": catalogue.title(item),
            "verdict": verdict,
            "rank": rank,
            "score": score,
            "retrieval_rank": at,
            "sentence": sentence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Item;

    fn journey() -> (Journey, DisplayCatalogue) {
        let items = (1..=6).map(|id| Item {
            id,
            title: Some(format!("Item {id}")),
            ..Item::default()
        });
        let journey = Journey {
            release: Some("r".to_owned()),
            stages: Vec::new(),
            retrieved: vec![1, 2, 3, 4],
            filtered: vec![1, 3, 4, 6],
            ranked: vec![(3, 0.9), (6, 0.8), (1, 0.7), (4, 0.1)],
            shown: vec![(3, 0.9), (6, 0.8)],
            raw: Map::new(),
            encoded: Map::new(),
        };
        (
            journey,
            DisplayCatalogue::new(Vec::new(), items, [], |_| Map::new()),
        )
    }

    #[test]
    fn every_item_has_a_verdict() {
        let visit = Visit {
            user: 42,
            device_type: 0,
            timestamp: 1,
        };
        for (item, verdict, rank) in [
            (3, "shown", Some(1)),
            (6, "shown", Some(2)),
            (1, "ranked", Some(3)),
            (2, "seen", None),
            (5, "not retrieved", None),
            (7, "unknown item", None),
        ] {
            let (journey, catalogue) = journey();
            let answer = journey.answer(&catalogue, visit, 10, Some(item));
            assert_eq!(answer["asked"]["verdict"], verdict, "{answer:#}");
            assert_eq!(answer["asked"]["rank"], json!(rank), "{answer:#}");
            assert_eq!(answer["hidden_by_seen_filter"][0]["id"], 2);
            assert_eq!(answer["items"][1]["retrieval_rank"], Value::Null);
        }
        let (journey, catalogue) = journey();
        let answer = journey.answer(&catalogue, visit, 1, Some(6));
        assert_eq!(answer["asked"]["verdict"], "ranked");
    }
}
