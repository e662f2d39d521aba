//! `GET /items`, `/items/{id}`, `/popular`, `/categories`, `/pictures/{name}`

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustc_hash::FxHashSet;
use saker_store::popularity::Set;

use super::json;
use crate::catalogue::DisplayCatalogue;
use crate::popular::in_catalogue;
use crate::problem::Problem;
use crate::query::{Query, number, shortened};
use crate::state::State;

/// An existing category.
#[derive(Clone, Copy)]
struct Category {
    column: usize,
    value: i32,
}

impl Category {
    /// Reads the parameter `category`, in the form `<column>:<value>`.
    fn read(query: &Query, catalogue: &DisplayCatalogue) -> Result<Option<Self>, Problem> {
        let Some(text) = query.text("category") else {
            return Ok(None);
        };
        let refuse = || {
            let columns = catalogue.column_names().join(", ");
            Problem::field(
                "category",
                format!(
                    "category is '{}'; accepted is <column>:<value> as /categories lists them, of the columns {columns}",
                    shortened(text)
                ),
            )
        };
        let (column, value) = text.split_once(':').ok_or_else(refuse)?;
        let column = catalogue.column(column).ok_or_else(refuse)?;
        let value = value.parse().map_err(|_| refuse())?;
        match catalogue.members(column, value) {
            Some(_) => Ok(Some(Self { column, value })),
            None => Err(refuse()),
        }
    }

    /// The set in the store that ranks the category's items. Only two columns have such sets.
    fn set(self) -> Option<Set> {
        let value = i64::from(self.value);
        match self.column {
            0 => Some(Set::CategoryL1(value)),
            1 => Some(Set::CategoryL2(value)),
            _ => None,
        }
    }
}

/// The items of a category: the popular ones first, then the others.
pub(super) async fn of_category(
    Shared(state): Shared<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::read(query.as_deref(), &["category", "k"])?;
    let k = query.k(20)?;
    let catalogue = state.catalogue();
    let Some(category) = Category::read(&query, &catalogue)? else {
        return Err(Problem::field(
            "category",
            "category is missing; accepted is <column>:<value> as /categories lists them",
        ));
    };
    let mut items = ranked(&state, &catalogue, category.set(), k).await;
    let ranked: FxHashSet<i32> = items.iter().map(|(id, _)| *id).collect();
    let others = catalogue.members(category.column, category.value);
    let others = others
        .into_iter()
        .flatten()
        .filter(|id| !ranked.contains(id));
    let missing = k - items.len();
    items.extend(others.take(missing).map(|id| (id, 0.0)));
    Ok(listed(&catalogue, &items))
}

pub(super) async fn popular(
    Shared(state): Shared<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::read(query.as_deref(), &["category", "k"])?;
    let k = query.k(20)?;
    let catalogue = state.catalogue();
    let set = match Category::read(&query, &catalogue)? {
        Some(category) => category.set(),
        None => Some(Set::Global),
    };
    let items = ranked(&state, &catalogue, set, k).await;
    Ok(listed(&catalogue, &items))
}

/// The first items of a set that exist in the catalogue.
async fn ranked(
    state: &State,
    catalogue: &DisplayCatalogue,
    set: Option<Set>,
    count: usize,
) -> Vec<(i32, f32)> {
    let Some(set) = set else {
        return Vec::new();
    };
    let ranking = state.popular.of(set).await;
    let known = in_catalogue(&ranking, set, catalogue, count).into_iter();
    known.map(|(id, count)| (id, count as f32)).collect()
}

fn listed(catalogue: &DisplayCatalogue, items: &[(i32, f32)]) -> Response {
    let mut text = String::from("{\"items\":");
    catalogue.write_all(items.iter().copied(), &mut text);
    text.push('}');
    json(text)
}

pub(super) async fn item(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::read(query.as_deref(), &[])?;
    let id = number("id", &id, i32::MIN..=i32::MAX)?;
    let catalogue = state.catalogue();
    let item = catalogue
        .item(id)
        .ok_or_else(|| Problem::missing("id", format!("the catalogue has no item {id}")))?;
    let mut text = String::new();
    let _ = write!(
        text,
        "{{\"id\":{id},{},\"features\":{}}}",
        item.shown, item.known
    );
    Ok(json(text))
}

pub(super) async fn categories(
    Shared(state): Shared<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::read(query.as_deref(), &[])?;
    Ok(json(state.catalogue().categories().to_string()))
}

/// The picture of an item. The extension only tells the image format.
pub(super) async fn picture(
    Shared(state): Shared<Arc<State>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let missing = || {
        Problem::missing(
            "name",
            format!("picture '{}' does not exist", shortened(&name)),
        )
    };
    let id = name.split('.').next().unwrap_or_default();
    let id: i32 = id.parse().map_err(|_| missing())?;
    // Only files that the catalogue names are read. No part of the request becomes part of a path.
    let catalogue = state.catalogue();
    let file = catalogue
        .item(id)
        .and_then(|item| item.picture.as_deref())
        .ok_or_else(missing)?;
    let bytes = tokio::fs::read(file).await.map_err(|error| {
        tracing::debug!("{}: {error}", file.display());
        missing()
    })?;
    let kind = match file.extension().and_then(|extension| extension.to_str()) {
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=86400"),
        ),
        // The pages of a shop have another origin.
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("cross-origin"),
        ),
        // An SVG image may contain a script.
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            ),
        ),
    ];
    Ok((StatusCode::OK, headers, bytes).into_response())
}
