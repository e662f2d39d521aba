//! The parsers of client input, without a gateway around them, for the fuzz targets.

use saker_store::events::Event;

use crate::catalogue::DisplayCatalogue;
use crate::query::{Query, device, number};
use crate::routes::events;

/// Parses the parameters of `GET /recommendations` and similar routes: `k`, a user and a device.
///
/// # Errors
/// Returns the problem document's fields as text.
pub fn query(text: &str) -> Result<(usize, Option<i32>, Option<i32>), String> {
    let problem = |problem| format!("{problem:?}");
    let query = Query::read(Some(text), &["k", "user", "device"]).map_err(problem)?;
    let user = query.text("user");
    let user = user.map(|text| number("user", text, i32::MIN..=i32::MAX));
    Ok((
        query.k(10).map_err(problem)?,
        user.transpose().map_err(problem)?,
        query.text("device").and_then(device),
    ))
}

/// Parses the events in the body of `POST /events`.
///
/// # Errors
/// Returns the problem document's fields as text.
pub fn events(
    body: &[u8],
    catalogue: &DisplayCatalogue,
    now_us: i64,
) -> Result<Vec<Event>, String> {
    events::read(body, catalogue, now_us).map_err(|problem| format!("{problem:?}"))
}
