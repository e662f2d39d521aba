//! `GET /recommendations`

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use saker_contract::ids::UNKNOWN;
use saker_contract::{RawId, degraded};
use saker_store::popularity::Set;
use serde_json::json;

use super::json;
use crate::call::Call;
use crate::catalogue::DisplayCatalogue;
use crate::popular::in_catalogue;
use crate::problem::Problem;
use crate::query::{DEVICES, Query, device, shortened};
use crate::ranking::{Unranked, Visit};
use crate::state::{State, now_us};

/// The reason reported for answers that Triton computed without data from the store.
const STORE: &str = "store_unreachable";

pub(super) async fn recommend(
    Shared(state): Shared<Arc<State>>,
    Extension(call): Extension<Call>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::read(
        query.as_deref(),
        &["user_id", "device_type", "timestamp", "k"],
    )?;
    let visit = visit(&query)?;
    let k = query.k(10)?;
    let catalogue = state.catalogue();
    let (release, items, degraded) = match state.ranking.ask(visit, &call, &state.metrics).await {
        Ok(ranked) => {
            let degraded = match ranked.degraded {
                Some(mask) => lacks(mask),
                None => (!state.store_answers()).then_some(STORE),
            };
            (ranked.release, ranked.items, degraded)
        }
        Err(Unranked::Shed) => {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "the limit of concurrent requests to Triton is reached; try again shortly",
            )
            .retry_after(1));
        }
        Err(Unranked::Failed(reason)) => (None, popular(&state, &catalogue, k), Some(reason)),
    };
    state.metrics.recommended(call.start.elapsed(), degraded);

    let mut text = String::with_capacity(256 + 200 * k.min(items.len()));
    let _ = write!(
        text,
        "{{\"request_id\":{},\"release\":{},\"degraded\":{},\"reason\":{},\"user_id\":{},\"device_type\":{},\
         \"timestamp\":{},\"items\":",
        json!(&*call.id),
        json!(release),
        degraded.is_some(),
        json!(degraded),
        visit.user,
        visit.device_type,
        visit.timestamp,
    );
    catalogue.write_all(items.into_iter().take(k), &mut text);
    text.push('}');
    Ok(json(text))
}

/// The reason for each bit of the mask `degraded`; `None` if no bit is set.
fn lacks(mask: i32) -> Option<&'static str> {
    match (
        mask & degraded::USER_FEATURES != 0,
        mask & degraded::SEEN_ITEMS != 0,
    ) {
        (true, true) => Some(STORE),
        (true, false) => Some("user_features_unknown"),
        (false, true) => Some("seen_items_unknown"),
        (false, false) => None,
    }
}

/// Reads user, device and time from the parameters.
pub(super) fn visit(query: &Query) -> Result<Visit, Problem> {
    let user = query.number("user_id", i32::MIN..=i32::MAX)?;
    let device_type = match query.text("device_type") {
        None => UNKNOWN,
        Some(text) => device(text).ok_or_else(|| {
            Problem::field(
                "device_type",
                format!("device_type is '{}'; accepted: {DEVICES}", shortened(text)),
            )
        })?,
    };
    // Unix seconds fit into i32 until 2038; the contract's tensor is no wider.
    let now = || i32::try_from(now_us() / 1_000_000).unwrap_or(i32::MAX);
    Ok(Visit {
        // No user has this id, so the cold-start path applies.
        user: user.unwrap_or(RawId::NONE_INT32),
        device_type,
        timestamp: query.number("timestamp", 1..=i32::MAX)?.unwrap_or_else(now),
    })
}

/// Popular items. The score of an item is its number of interactions, as a share of the most popular item's.
fn popular(state: &State, catalogue: &DisplayCatalogue, count: usize) -> Vec<(i32, f32)> {
    let ranking = state.popular.last_known(Set::Global);
    let ranking = in_catalogue(&ranking, Set::Global, catalogue, count);
    let most = ranking.first().map_or(0.0, |(_, count)| *count).max(1.0);
    ranking
        .iter()
        .map(|(id, count)| (*id, (count / most) as f32))
        .collect()
}
