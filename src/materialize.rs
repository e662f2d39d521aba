//! Writing to Valkey what serving reads there: users and items in Feast's layout, popularity, seen items.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use saker_pipeline::{Column, ColumnType, Entity, Pipeline};
use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_store::popularity::{self, Set};
use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Mode, Prefixes, SeenWriter};
use saker_store::{Connection, Settings};

use crate::layout::Layout;
use crate::prepare::PARTS;
use crate::progress::Step;
use crate::table;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Users.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// `trending:*` sets.
    pub popularity_sets: usize,
    /// Users whose seen items were noted.
    pub seen: usize,
}

/// Writes everything; what another run wrote is overwritten, what others wrote beside it stays.
///
/// # Errors
/// The data is not prepared, or the store does not take it.
pub fn materialize(pipeline: &Pipeline, layout: &Layout, seen: bool) -> Result<Written> {
    let read = |name| table::read(&layout.data(name)).context("run `saker prepare`");
    let (users, items, events) = (read("users")?, read("items")?, read("interactions")?);
    let settings = Settings::parse(&pipeline.store.redis_url, None)?;
    let database = |number| -> Result<Connection> {
        Ok(Connection::open(
            &settings.clone().with_database(number)?.with_bloom_probe(),
        )?)
    };

    // The last event's time: what the features were computed from.
    let newest = table::int32s(&events, "timestamp")?
        .iter()
        .max()
        .copied()
        .unwrap_or_default();
    let time = Timestamp::from_micros(i64::from(newest) * 1_000_000);
    let mut online = database(0)?;
    let store = &pipeline.store;
    entities(
        pipeline,
        &mut online,
        &pipeline.user,
        &store.user_view,
        &users,
        &time,
    )?;
    entities(
        pipeline,
        &mut online,
        &pipeline.item,
        &store.item_view,
        &items,
        &time,
    )?;
    let popularity_sets = write_popularity(pipeline, &mut database(3)?, &items, &events)?;
    let seen = if seen {
        write_seen(pipeline, &mut database(1)?, &events)?
    } else {
        0
    };
    Ok(Written {
        users: users.num_rows(),
        items: items.num_rows(),
        popularity_sets,
        seen,
    })
}

fn entities(
    pipeline: &Pipeline,
    connection: &mut Connection,
    entity: &Entity,
    view: &str,
    rows: &RecordBatch,
    time: &Timestamp,
) -> Result<()> {
    enum Values<'t> {
        Int32(&'t [i32]),
        Float32(&'t [f32]),
    }
    let step = Step::counted(format!("write view {view}"), rows.num_rows() as u64);
    let version = match pipeline.store.entity_key_serialization {
        2 => EntityKeyVersion::V2,
        _ => EntityKeyVersion::V3,
    };
    let columns: Vec<&Column> = entity.stored().collect();
    let names = columns.iter().map(|column| column.name.as_str());
    let feature_view = FeatureView::new(
        &pipeline.store.feast_project,
        view,
        &entity.id,
        version,
        names,
    );
    let values = columns
        .iter()
        .map(|column| {
            Ok(match column.kind {
                ColumnType::Float32 => Values::Float32(table::float32s(rows, &column.name)?),
                _ => Values::Int32(table::int32s(rows, &column.name)?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut writer = Writer::new(connection, feature_view, None);
    for (row, &id) in table::int32s(rows, &entity.id)?.iter().enumerate() {
        let values: Vec<Option<Value>> = values
            .iter()
            .map(|column| {
                Some(match column {
                    Values::Int32(values) => Value::Int32(values[row]),
                    Values::Float32(values) => Value::Float(values[row]),
                })
            })
            .collect();
        step.at(writer.write(&EntityId::Int32(id), &values, *time)?);
    }
    writer.finish()?;
    step.done(&format!("{} rows", rows.num_rows()));
    Ok(())
}

/// Training interactions: user, item.
fn training<'t>(
    pipeline: &Pipeline,
    events: &'t RecordBatch,
) -> Result<impl Iterator<Item = (i32, i32)> + 't> {
    let users = table::int32s(events, &pipeline.user.id)?;
    let items = table::int32s(events, &pipeline.item.id)?;
    let parts = table::texts(events, "split")?;
    Ok((0..events.num_rows())
        .filter(|&row| parts.value(row) == PARTS[0])
        .map(|row| (users[row], items[row])))
}

fn write_popularity(
    pipeline: &Pipeline,
    connection: &mut Connection,
    items: &RecordBatch,
    events: &RecordBatch,
) -> Result<usize> {
    let step = Step::start("write popularity");
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    training(pipeline, events)?.for_each(|(_, item)| *counts.entry(item).or_default() += 1);
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

fn write_seen(
    pipeline: &Pipeline,
    connection: &mut Connection,
    events: &RecordBatch,
) -> Result<usize> {
    /// Users of one round trip.
    const BATCH: usize = 1000;
    let mut by_user: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    training(pipeline, events)?
        .for_each(|(user, item)| by_user.entry(user).or_default().push(i64::from(item)));
    let seen: Vec<(i64, Vec<i64>)> = by_user
        .into_iter()
        .map(|(user, items)| (i64::from(user), items))
        .collect();
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
