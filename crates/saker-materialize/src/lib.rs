//! Writes the stores that serving and training read. Users and items go to the online store (Feast's layout), popularity and seen items to
//! Valkey, and the history of features to the offline store.

mod interaction_counts;
mod offline;
mod online;

use anyhow::{Context, Result};
use saker_contract::Database;
use saker_offline::OfflineStore;
use saker_pipeline::Pipeline;
use saker_prepare::table;
use saker_serving::layout::Layout;
use saker_serving::progress::{Step, time};
use saker_serving::views::offline_store;
use saker_store::feast::Timestamp;
use saker_store::{Connection, Settings};

use interaction_counts::InteractionCounts;

/// Numbers of written records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Users.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// `trending:*` sets.
    pub popularity_sets: usize,
    /// Number of users whose seen items were recorded.
    pub seen: usize,
    /// Rows of the offline store.
    pub offline: usize,
}

/// Writes all stores. Records of an earlier run are overwritten; records of other programs stay.
///
/// # Errors
/// Returns an error if the data are not prepared, or if a store refuses a write.
pub fn materialize(pipeline: &Pipeline, layout: &Layout, seen: bool) -> Result<Written> {
    let read = |name| table::read(&layout.data(name)).context("run `saker prepare`");
    let (users, items) = (read("users")?, read("items")?);
    let step = Step::start("read the interactions");
    let interactions = InteractionCounts::read(pipeline, layout, seen)?;
    step.done(&format!("up to {}", time(interactions.newest)));
    let settings = Settings::parse(&pipeline.store.redis_url, None)?;
    let database = |database: Database| -> Result<Connection> {
        Ok(Connection::open(
            &settings.clone().with_database(database)?.with_bloom_probe(),
        )?)
    };

    // The time of the last event from which the features were computed.
    let time = Timestamp::from_micros(i64::from(interactions.newest) * 1_000_000);
    let mut connection = database(Database::Features)?;
    let store = &pipeline.store;
    for (entity, view, rows) in [
        (&pipeline.user, &store.user_view, &users),
        (&pipeline.item, &store.item_view, &items),
    ] {
        online::entities(pipeline, &mut connection, entity, view, rows, &time)?;
    }
    let popularity_sets = interaction_counts::popularity(
        pipeline,
        &mut database(Database::Popularity)?,
        &items,
        &interactions,
    )?;
    let seen = if seen {
        interaction_counts::seen(
            pipeline,
            &mut database(Database::Activity)?,
            &interactions.seen,
        )?
    } else {
        0
    };
    let offline = offline::write(
        pipeline,
        layout,
        &OfflineStore::open(&offline_store(pipeline, layout))?,
        (&users, &items),
        interactions.newest,
    )?;
    Ok(Written {
        users: users.num_rows(),
        items: items.num_rows(),
        popularity_sets,
        seen,
        offline,
    })
}
