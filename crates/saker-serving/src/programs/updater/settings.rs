//! The updater's settings, from a pipeline definition and the prepared items.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use saker_pipeline::{Column, Derive, Pipeline};
use saker_store::seen::bitmap::Geometry;
use saker_tables::Table;
use saker_traces::Traces;
use saker_updater::Settings;
use saker_updater::item_categories::{Item, ItemCategories};
use saker_updater::offline::Place;

use crate::layout::Layout;
use crate::views;

/// Settings that are not in the definition.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name in the consumer group.
    pub name: String,
    /// Threads.
    pub workers: usize,
    /// Events that a thread takes at a time.
    pub batch: usize,
    /// Time after which another process's events are taken over.
    pub claim_after: Duration,
    /// Half-life of popularity in days; 0 disables the decay.
    pub half_life_days: f64,
    /// Time between two writes to the offline store.
    pub offline_every: Duration,
    /// Time that a stop may take.
    pub drain: Duration,
    /// Records traces.
    pub traces: Traces,
}

/// The consumer group of every updater.
const GROUP: &str = "updater";

/// The settings of an updater.
///
/// # Errors
/// Returns an error if the data is not prepared or a value is invalid.
pub fn settings(pipeline: &Pipeline, layout: &Layout, options: &Options) -> Result<Settings> {
    let half_life = match options.half_life_days {
        0.0 => None,
        days if days.is_finite() && days > 0.0 => Some(Duration::from_secs_f64(days * 86_400.0)),
        days => {
            bail!("--popularity-half-life is {days}; accepted: 0, or a number of days above it")
        }
    };
    let (user, store) = (&pipeline.user, &pipeline.store);
    let top = top(pipeline);
    let of_top = top.map(|(column, _)| {
        let view = column.view.as_deref().unwrap_or(&store.user_view);
        (view.to_owned(), column.name.clone())
    });
    let bloom = &store.bloom;
    Ok(Settings {
        store: saker_store::Settings::parse(&store.redis_url, None)?,
        group: GROUP.to_owned(),
        name: options.name.clone(),
        workers: options.workers,
        batch: options.batch,
        claim_after: options.claim_after,
        half_life,
        items: read_categories(pipeline, layout, top.map(|(_, of)| of))?,
        top_category: of_top
            .as_ref()
            .map(|(view, column)| views::feature_view(pipeline, user, view, [column.as_str()])),
        mode: bloom.mode.parse()?,
        geometry: Geometry::new(bloom.capacity, bloom.error_rate)?,
        offline: Some(Place {
            location: views::offline_store(pipeline, layout),
            every: options.offline_every,
            ids: [user.id.clone(), pipeline.item.id.clone()],
            top_category: of_top,
        }),
        drain: options.drain,
        traces: options.traces.clone(),
    })
}

/// The categories of the prepared items.
///
/// # Errors
/// Returns an error if the items are not prepared.
pub fn item_categories(pipeline: &Pipeline, layout: &Layout) -> Result<ItemCategories> {
    read_categories(pipeline, layout, top(pipeline).map(|(_, of)| of))
}

/// The column that clicks change, and the item column that it is made from.
fn top(pipeline: &Pipeline) -> Option<(&Column, &str)> {
    let mut columns = pipeline.user.columns.iter();
    columns.find_map(|column| match &column.derive {
        Some(Derive::TopOfRecent { column: of, .. }) => Some((column, of.as_str())),
        _ => None,
    })
}

fn read_categories(
    pipeline: &Pipeline,
    layout: &Layout,
    top: Option<&str>,
) -> Result<ItemCategories> {
    let path = layout.data("items");
    let items = Table::read(&path)
        .with_context(|| format!("cannot read {}", path.display()))
        .with_context(|| format!("run `saker prepare {}`", pipeline.pipeline.name))?;
    let ids = items.int32s(&pipeline.item.id)?;
    let column = |name: Option<&str>| name.map(|name| items.int32s(name)).transpose();
    let top = column(top)?;
    let mut levels = pipeline
        .store
        .trending_categories
        .iter()
        .map(String::as_str);
    let trending = [column(levels.next())?, column(levels.next())?];
    // A negative number means no category.
    let known = |column: &Option<Vec<i32>>, row: usize| {
        let value = column.as_ref()?.get(row).copied();
        value.filter(|value| *value >= 0)
    };
    let item = |row: usize| Item {
        top: known(&top, row),
        trending: trending.each_ref().map(|column| known(column, row)),
    };
    let rows = ids.into_iter().enumerate();
    Ok(rows.map(|(row, id)| (id, item(row))).collect())
}
