//! What `saker updater` is told by a pipeline definition and the prepared items.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use saker_pipeline::{Derive, Pipeline};
use saker_store::seen::bitmap::Geometry;
use saker_updater::Settings;
use saker_updater::catalogue::{Catalogue, Item};
use saker_updater::counters::Counters;
use saker_updater::offline::Place;

use crate::layout::Layout;
use crate::{materialize, table};

/// What the definition does not say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name in the consumer group.
    pub name: String,
    /// Threads.
    pub workers: usize,
    /// Events that one takes at a time.
    pub batch: usize,
    /// When another's events are taken over.
    pub claim_after: Duration,
    /// Half-life of popularity; 0: none.
    pub half_life_days: f64,
    /// Time between two writes to the offline store.
    pub offline_every: Duration,
}

/// The consumer group of every updater.
const GROUP: &str = "updater";

/// The settings of an updater.
///
/// # Errors
/// The data is not prepared, or a value cannot be used.
pub fn settings(pipeline: &Pipeline, layout: &Layout, options: &Options) -> Result<Settings> {
    let half_life = match options.half_life_days {
        0.0 => None,
        days if days.is_finite() && days > 0.0 => Some(Duration::from_secs_f64(days * 86_400.0)),
        days => {
            bail!("--popularity-half-life is {days}; accepted: 0, or a number of days above it")
        }
    };
    let (user, store) = (&pipeline.user, &pipeline.store);
    // The column that clicks change, and the item column that it is made from.
    let top = user.columns.iter().find_map(|column| match &column.derive {
        Some(Derive::TopOfRecent { column: of, .. }) => Some((column, of.as_str())),
        _ => None,
    });
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
        catalogue: catalogue(pipeline, layout, top.map(|(_, of)| of))?,
        top_category: of_top.as_ref().map(|(view, column)| {
            materialize::feature_view(pipeline, user, view, [column.as_str()])
        }),
        mode: bloom.mode.parse()?,
        geometry: Geometry::new(bloom.capacity, bloom.error_rate)?,
        offline: Some(Place {
            location: materialize::offline_store(pipeline, layout),
            every: options.offline_every,
            ids: [user.id.clone(), pipeline.item.id.clone()],
            top_category: of_top,
        }),
    })
}

fn catalogue(pipeline: &Pipeline, layout: &Layout, top: Option<&str>) -> Result<Catalogue> {
    let items = table::read(&layout.data("items"))
        .with_context(|| format!("run `saker prepare {}`", pipeline.pipeline.name))?;
    let ids = table::int32s(&items, &pipeline.item.id)?;
    let column = |name: Option<&str>| name.map(|name| table::int32s(&items, name)).transpose();
    let top = column(top)?;
    let mut levels = pipeline
        .store
        .trending_categories
        .iter()
        .map(String::as_str);
    let trending = [column(levels.next())?, column(levels.next())?];
    // A negative number stands for no category.
    let known = |column: Option<&[i32]>, row: usize| Some(column?[row]).filter(|value| *value >= 0);
    let item = |row: usize| Item {
        top: known(top, row),
        trending: trending.map(|column| known(column, row)),
    };
    Ok((0..ids.len()).map(|row| (ids[row], item(row))).collect())
}

/// Serves the counters at `/metrics`, in a thread of its own; where it listens.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve_metrics(address: &str, counters: Arc<Counters>) -> Result<SocketAddr> {
    let cannot = || format!("cannot listen on {address} for the metrics; --metrics names another");
    let listener = TcpListener::bind(address).with_context(cannot)?;
    listener.set_nonblocking(true).with_context(cannot)?;
    let bound = listener.local_addr().with_context(cannot)?;
    let page = move || {
        let text = counters.prometheus();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no thread for the metrics")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    axum::serve(listener, Router::new().route("/metrics", get(page))).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::error!("the metrics are no longer served: {error}");
            }
        });
    });
    Ok(bound)
}
