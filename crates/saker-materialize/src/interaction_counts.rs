//! Interactions of the training part: popularity sets and seen items.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use saker_pipeline::Pipeline;
use saker_prepare::PARTS;
use saker_prepare::table;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;
use saker_store::Connection;
use saker_store::popularity::{self, Set};
use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Mode, Prefixes, SeenWriter};

/// Counts of the training interactions.
#[derive(Debug, Default)]
pub(super) struct InteractionCounts {
    /// Interactions of each item.
    counts: BTreeMap<i32, u64>,
    /// Distinct items of each user, if requested.
    pub(super) seen: Vec<(i64, Vec<i64>)>,
    /// Time of the last interaction, of all parts.
    pub(super) newest: i32,
}

impl InteractionCounts {
    /// Reads the interactions in batches of rows.
    pub(super) fn read(pipeline: &Pipeline, layout: &Layout, seen: bool) -> Result<Self> {
        let mut interactions = Self::default();
        let columns = [
            pipeline.user.id.as_str(),
            pipeline.item.id.as_str(),
            "timestamp",
            "split",
        ];
        let path = layout.data("interactions");
        for batch in table::stream(&path, &columns).context("run `saker prepare`")? {
            let batch = batch?;
            let users = table::int32s(&batch, columns[0])?;
            let items = table::int32s(&batch, columns[1])?;
            let newest = table::int32s(&batch, columns[2])?.iter().max();
            interactions.newest = interactions.newest.max(newest.copied().unwrap_or_default());
            let parts = table::texts(&batch, columns[3])?;
            for row in (0..batch.num_rows()).filter(|&row| parts.value(row) == PARTS[0]) {
                *interactions.counts.entry(items[row]).or_default() += 1;
                if !seen {
                    continue;
                }
                // Sorted by user, then time.
                let user = i64::from(users[row]);
                match interactions.seen.last_mut() {
                    Some((last, of)) if *last == user => of.push(i64::from(items[row])),
                    _ => interactions.seen.push((user, vec![i64::from(items[row])])),
                }
            }
        }
        for (_, items) in &mut interactions.seen {
            items.sort_unstable();
            items.dedup();
        }
        Ok(interactions)
    }
}

/// Writes the `trending:*` sets; returns their number.
pub(super) fn popularity(
    pipeline: &Pipeline,
    connection: &mut Connection,
    items: &RecordBatch,
    interactions: &InteractionCounts,
) -> Result<usize> {
    let step = Step::start("write popularity");
    let counts = &interactions.counts;
    let all: Vec<(i64, u64)> = counts
        .iter()
        .map(|(&item, &count)| (i64::from(item), count))
        .collect();
    let mut sets = vec![(Set::Global, all)];
    let ids = table::int32s(items, &pipeline.item.id)?;
    for (level, column) in pipeline.store.trending_categories.iter().enumerate() {
        let categories = table::int32s(items, column)?;
        let mut by_category: BTreeMap<i32, Vec<(i64, u64)>> = BTreeMap::new();
        for (id, &category) in ids.iter().zip(categories) {
            if let Some(&count) = counts.get(id) {
                by_category
                    .entry(category)
                    .or_default()
                    .push((i64::from(*id), count));
            }
        }
        sets.extend(by_category.into_iter().map(|(category, counts)| {
            let category = i64::from(category);
            (
                if level == 0 {
                    Set::CategoryL1(category)
                } else {
                    Set::CategoryL2(category)
                },
                counts,
            )
        }));
    }
    for (set, counts) in &sets {
        popularity::write(connection, *set, counts)?;
    }
    step.done(&format!("{} sets", sets.len()));
    Ok(sets.len())
}

/// Records users' training items as seen; returns the number of users.
pub(super) fn seen(
    pipeline: &Pipeline,
    connection: &mut Connection,
    seen: &[(i64, Vec<i64>)],
) -> Result<usize> {
    /// Number of users per round trip.
    const BATCH: usize = 1000;
    let bloom = &pipeline.store.bloom;
    let step = Step::counted("write seen items", seen.len() as u64);
    let geometry = Geometry::new(bloom.capacity, bloom.error_rate)?;
    let mut writer = SeenWriter::new(
        connection,
        bloom.mode.parse::<Mode>()?,
        Prefixes::default(),
        geometry,
    )?;
    for (batch, users) in seen.chunks(BATCH).enumerate() {
        writer.add(users)?;
        step.at((batch * BATCH) as u64);
    }
    step.done(&format!(
        "{} users, {} filters",
        seen.len(),
        writer.method()
    ));
    Ok(seen.len())
}
