//! Cleans the source's interactions batch by batch, before they are sorted: each becomes a row of a user, an item and a time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Float32Array, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rustc_hash::FxHashMap;
use saker_bulk::{BoxError, DataFrame, Engine};
use saker_pipeline::{
    Column, ColumnType, Data, Default as Fallback, Format, Interactions, Pipeline, Unit,
};

use crate::columns::Entities;
use crate::files::TableFile;
use crate::source::{AtomicFile, Source, columns_of};

/// Columns of the cleaned rows. Context columns follow them, named by [`context_name`].
pub(crate) const USER: &str = "user_row";
pub(crate) const ITEM: &str = "item_row";
pub(crate) const TIME: &str = "timestamp";
pub(crate) const RATING: &str = "rating";
/// A pseudo-random number of the user, the second and the item. It orders a user's events of one second, because the source does not
/// tell which one came first.
///
/// Item ids must not decide this order. They are related to the items, so a model could guess the next item of the same second from
/// an id, and ids would decide which events fall into which part of the split.
pub(crate) const DRAW: &str = "draw";

/// Rows of a chunk of an atomic file.
const CHUNK_ROWS: usize = 1 << 15;

/// Counts of the events that were cleaned. They are complete when all rows have been read.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Events of users or items that are missing from the tables.
    dropped: AtomicU64,
    /// Events without a user or an item.
    nobody: AtomicU64,
    /// Events without a rating.
    pub(crate) unrated: AtomicU64,
    /// Events of kinds that `ratings` does not list.
    unlisted: AtomicU64,
    /// Time of the last event that is kept, Unix seconds.
    pub(crate) latest: AtomicI32,
}

impl Met {
    /// Events without a user or an item, or with one that is missing from the tables.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) + self.nobody.load(Ordering::Relaxed)
    }

    /// Logs how many events are left out, and why.
    pub(crate) fn report(&self) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let left_out = [
            (
                &self.dropped,
                "have users or items that are missing from the tables",
            ),
            (&self.nobody, "have no user or no item"),
            (
                &self.unrated,
                "have no rating; data.interactions.missing_rating gives them one",
            ),
        ];
        for (of, why) in left_out {
            if count(of) > 0 {
                tracing::warn!("{} interactions are left out: they {why}", count(of));
            }
        }
        if count(&self.unlisted) > 0 {
            tracing::info!(
                "{} interactions are left out: ratings does not list their kinds",
                count(&self.unlisted)
            );
        }
    }

    pub(crate) fn latest(&self) -> i32 {
        self.latest.load(Ordering::Relaxed)
    }
}

/// Turns rows of the source into cleaned rows.
#[derive(Clone)]
pub(crate) struct Cleaner {
    /// Source columns.
    pub(crate) user: String,
    item: String,
    pub(crate) time: String,
    unit: Unit,
    rating: Option<String>,
    missing_rating: Option<f32>,
    ratings: Option<HashMap<String, f32>>,
    /// Context columns that are read from the source, with their defaults.
    context: Vec<(Column, f64)>,
    users: Arc<FxHashMap<i32, i32>>,
    items: Arc<FxHashMap<i32, i32>>,
    pub(crate) schema: SchemaRef,
    pub(crate) met: Arc<Met>,
}

/// Prefix of the names of context columns in cleaned rows.
const CONTEXT: &str = "context.";

/// The name of a context column in cleaned rows. The prefix keeps it apart from the other columns.
pub(crate) fn context_name(column: &str) -> String {
    format!("{CONTEXT}{column}")
}

/// Context columns that features read and that are not the event's time.
pub(crate) fn context_columns(pipeline: &Pipeline) -> impl Iterator<Item = &Column> {
    pipeline.context.columns.iter().filter(|column| {
        let name = column.name.as_str();
        let mut features = pipeline.context.features.iter();
        !is_time(column)
            && name != TIME
            && features.any(|feature| feature.columns().contains(&name))
    })
}

/// Whether a context column is the request's time.
pub(crate) fn is_time(column: &Column) -> bool {
    column.default == Fallback::Word("now".to_owned())
}

/// The interactions in order of user and time. [`DRAW`] orders events of one second; rating and context order those of one user, second
/// and item. Events that are equal in all of these are interchangeable, so the result does not depend on the order of the source's
/// files and rows.
pub(crate) struct Sorted {
    /// The rows in order: cleaned ones, or the source's rows as a cluster has sorted them.
    pub(crate) plan: DataFrame,
    /// Cleans the rows of a cluster as they arrive.
    pub(crate) arriving: Option<Arriving>,
    /// Schema of cleaned rows.
    pub(crate) schema: SchemaRef,
    /// Complete when all rows have been read. With a cluster and a split by days, the time of the last event is known before.
    pub(crate) met: Arc<Met>,
}

/// Cleans batches of rows that come from no file. Errors name the rows, and number them over all batches.
pub(crate) struct Arriving {
    cleaner: Cleaner,
    /// Stands for a file in errors: its path is the name of the rows.
    name: TableFile,
    rows: u64,
}

impl Arriving {
    /// Rows that a cluster has sorted: by user and time, and within a second in no order.
    pub(crate) fn of_cluster(cleaner: Cleaner) -> Self {
        Self::new(cleaner, "the rows as the cluster sorted them")
    }

    /// Events that the updater wrote to the offline store, in no order.
    fn of_offline_store(cleaner: Cleaner) -> Self {
        Self::new(cleaner, "the offline store's events")
    }

    fn new(cleaner: Cleaner, name: &str) -> Self {
        let name = TableFile {
            path: Path::new(name).to_owned(),
            partition: Vec::new(),
        };
        let rows = 0;
        Self {
            cleaner,
            name,
            rows,
        }
    }

    /// The cleaned rows of the next batch.
    pub(crate) fn clean(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let source = Source::of_batch(&self.name, self.rows, batch);
        self.rows += batch.num_rows() as u64;
        self.cleaner.clean(&source)
    }
}

/// Cleaned rows of whole users in the order of [`Sorted`].
pub(crate) fn in_order(rows: &RecordBatch) -> Result<RecordBatch> {
    let order = order(&rows.schema());
    let columns = order.iter().filter_map(|name| {
        let values = rows.column_by_name(name)?.clone();
        let options = None;
        Some(SortColumn { values, options })
    });
    let columns: Vec<SortColumn> = columns.collect();
    let places = lexsort_to_indices(&columns, None)?;
    Ok(take_record_batch(rows, &places)?)
}

/// The columns that cleaned rows are sorted by.
fn order(schema: &Schema) -> Vec<String> {
    let context = schema.fields().iter().map(|field| field.name());
    let context = context.filter(|name| name.starts_with(CONTEXT)).cloned();
    let keys = [USER, TIME, DRAW, ITEM, RATING].map(str::to_owned);
    keys.into_iter().chain(context).collect()
}

/// All interactions in order, sorted on this machine: those of the source's files, and the batches `live` of the offline store.
pub(crate) fn sorted(
    engine: &Engine,
    data: &Data,
    files: Vec<TableFile>,
    live: &[RecordBatch],
    cleaner: Cleaner,
) -> Result<Sorted> {
    let (schema, met) = (Arc::clone(&cleaner.schema), Arc::clone(&cleaner.met));
    let mut arriving = Arriving::of_offline_store(cleaner.clone());
    let live = live.iter().map(|batch| arriving.clean(batch));
    let live = live.collect::<Result<Vec<_>>>()?;
    let mut rows = match data.format {
        Format::Atomic => of_atomic_file(engine, data, &files, cleaner)?,
        Format::Parquet => of_parquet(engine, files, cleaner)?,
    };
    if !live.is_empty() {
        rows = rows.union(engine.batches(Arc::clone(&schema), live.into_iter().map(Ok))?)?;
    }
    let order = order(&schema);
    let order: Vec<&str> = order.iter().map(String::as_str).collect();
    Ok(Sorted {
        plan: engine.sorted(rows, &order)?,
        arriving: None,
        schema,
        met,
    })
}

/// The cleaned rows of an atomic file, as a plan in no order.
fn of_atomic_file(
    engine: &Engine,
    data: &Data,
    files: &[TableFile],
    cleaner: Cleaner,
) -> Result<DataFrame> {
    let [file] = files else {
        bail!("one file of interactions is accepted in format atomic");
    };
    let columns = cleaner.columns();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut file = AtomicFile::open(&file.path, data.encoding, &columns)?;
    let schema = Arc::clone(&cleaner.schema);
    let batches = std::iter::from_fn(move || {
        let chunk = match file.chunk(CHUNK_ROWS) {
            Ok(chunk) if chunk.rows() == 0 => return None,
            chunk => chunk,
        };
        let cleaned = chunk.and_then(|chunk| cleaner.clean(&chunk));
        Some(cleaned.map_err(BoxError::from))
    });
    Ok(engine.batches(schema, batches)?)
}

/// The cleaned rows of all Parquet files, as a plan in no order.
fn of_parquet(engine: &Engine, files: Vec<TableFile>, cleaner: Cleaner) -> Result<DataFrame> {
    let columns = cleaner.columns();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let read = files
        .iter()
        .map(|file| -> Result<_> { Ok((file.path.clone(), columns_of(file, &columns)?)) });
    let read = read.collect::<Result<Vec<_>>>()?;
    let schema = Arc::clone(&cleaner.schema);
    Ok(engine.map_files(&read, schema, move |batch, file, first| {
        let source = Source::of_batch(&files[file], first, batch);
        cleaner.clean(&source).map_err(BoxError::from)
    })?)
}

impl Cleaner {
    /// A cleaner with the same settings and its own counts.
    pub(crate) fn counting_apart(&self) -> Self {
        Self {
            met: Arc::default(),
            ..self.clone()
        }
    }

    pub(crate) fn new(
        pipeline: &Pipeline,
        of: &Interactions,
        users: &Entities,
        items: &Entities,
    ) -> Self {
        let mut fields = vec![
            Field::new(USER, DataType::Int32, false),
            Field::new(ITEM, DataType::Int32, false),
            Field::new(TIME, DataType::Int32, false),
            Field::new(RATING, DataType::Float32, false),
            Field::new(DRAW, DataType::Int64, false),
        ];
        let mut context = Vec::new();
        for column in context_columns(pipeline) {
            let kind = match column.kind {
                ColumnType::Float32 => DataType::Float32,
                _ => DataType::Int32,
            };
            fields.push(Field::new(context_name(&column.name), kind, false));
            let Fallback::Number(default) = column.default else {
                continue;
            };
            context.push((column.clone(), default));
        }
        let ratings = of.ratings.as_ref().map(|ratings| {
            let ratings = ratings.iter();
            ratings
                .map(|(text, &rating)| (text.clone(), rating))
                .collect()
        });
        Self {
            user: of.user.clone().unwrap_or_else(|| pipeline.user.id.clone()),
            item: of.item.clone().unwrap_or_else(|| pipeline.item.id.clone()),
            time: of.timestamp.clone(),
            unit: of.unit,
            rating: of.rating.clone(),
            missing_rating: of.missing_rating,
            ratings,
            context,
            users: Arc::clone(&users.row_of),
            items: Arc::clone(&items.row_of),
            schema: Arc::new(Schema::new(fields)),
            met: Arc::default(),
        }
    }

    /// The source columns that are read, each once.
    pub(crate) fn columns(&self) -> Vec<String> {
        let mut columns = vec![self.user.clone(), self.item.clone(), self.time.clone()];
        columns.extend(self.rating.clone());
        columns.extend(
            self.context
                .iter()
                .map(|(column, _)| column.source().to_owned()),
        );
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    fn clean(&self, source: &Source) -> Result<RecordBatch> {
        let users = source.ids(&self.user)?;
        let items = source.ids(&self.item)?;
        let times = source.times(&self.time, self.unit)?;
        let ratings = self.ratings(source)?;
        let mut kept = Vec::with_capacity(source.rows());
        let mut ids: [Vec<i32>; 3] = Default::default();
        let mut counted = Vec::with_capacity(source.rows());
        let mut draws = Vec::with_capacity(source.rows());
        let (mut dropped, mut nobody, mut unlisted, mut unrated) = (0, 0, 0, 0);
        let mut latest = i32::MIN;
        for (row, rating) in ratings.into_iter().enumerate() {
            let rating = match rating {
                Rating::Counts(rating) => rating,
                Rating::Unlisted => {
                    unlisted += 1;
                    continue;
                }
                Rating::Missing => {
                    unrated += 1;
                    continue;
                }
            };
            let (Some(user), Some(item)) = (users[row], items[row]) else {
                nobody += 1;
                continue;
            };
            let named = (user, item);
            let (Some(&user), Some(&item)) = (self.users.get(&user), self.items.get(&item)) else {
                dropped += 1;
                continue;
            };
            let time = times[row].with_context(|| {
                format!(
                    "column {}, {}: an event needs a time",
                    self.time,
                    source.place(row)
                )
            })?;
            latest = latest.max(time);
            kept.push(row);
            ids[0].push(user);
            ids[1].push(item);
            ids[2].push(time);
            counted.push(rating);
            draws.push(draw(named, time));
        }
        self.met.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.met.nobody.fetch_add(nobody, Ordering::Relaxed);
        self.met.unlisted.fetch_add(unlisted, Ordering::Relaxed);
        self.met.unrated.fetch_add(unrated, Ordering::Relaxed);
        self.met.latest.fetch_max(latest, Ordering::Relaxed);

        let int32 = |values| -> ArrayRef { Arc::new(Int32Array::from(values)) };
        let mut columns: Vec<ArrayRef> = ids.map(int32).into();
        columns.push(Arc::new(Float32Array::from(counted)));
        columns.push(Arc::new(Int64Array::from(draws)));
        for (column, default) in &self.context {
            columns.push(context(source, column, *default, &kept)?);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).context("cleaned interactions")
    }

    /// The rating of each row.
    fn ratings(&self, source: &Source) -> Result<Vec<Rating>> {
        let missing = self.missing_rating.map_or(Rating::Missing, Rating::Counts);
        match (&self.rating, &self.ratings) {
            (None, _) => Ok(vec![Rating::Counts(1.0); source.rows()]),
            (Some(name), None) => source.each(name, |value| {
                Ok(value.float32()?.map_or(missing, Rating::Counts))
            }),
            (Some(name), Some(ratings)) => source.each(name, |value| {
                let kind = value.text()?.unwrap_or_default();
                Ok(match (kind.trim(), ratings.get(kind.trim())) {
                    (_, Some(rating)) => Rating::Counts(*rating),
                    ("", None) => missing,
                    (_, None) => Rating::Unlisted,
                })
            }),
        }
    }
}

/// The number of [`DRAW`]. Its seed is fixed, so that an event has the same number in every run.
fn draw((user, item): (i32, i32), time: i32) -> i64 {
    const SEED: u64 = 0x5a4b_4552_0000_0001;
    // SplitMix64 (Steele, Lea & Flood 2014), a step for each value.
    let mut state = SEED;
    for value in [user, time, item] {
        state = (state ^ u64::from(value as u32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    state as i64
}

/// The rating of an event, or why it has none.
#[derive(Clone, Copy, Debug)]
enum Rating {
    Counts(f32),
    /// The event is of a kind that `ratings` does not list.
    Unlisted,
    /// The event has no rating, and the definition sets no `missing_rating`.
    Missing,
}

/// A context column of the rows `kept`. The default replaces empty values.
fn context(source: &Source, column: &Column, default: f64, kept: &[usize]) -> Result<ArrayRef> {
    let name = column.source();
    Ok(match column.kind {
        ColumnType::Float32 => {
            let numbers = source.float32s(name, &column.empty)?;
            let numbers = kept
                .iter()
                .map(|&row| numbers[row].unwrap_or(default as f32));
            Arc::new(Float32Array::from_iter_values(numbers))
        }
        _ => {
            let numbers = source.int32s(name, &column.empty)?;
            let numbers = kept
                .iter()
                .map(|&row| numbers[row].unwrap_or(default as i32));
            Arc::new(Int32Array::from_iter_values(numbers))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two items of one second either comes first as often as the other, and the next second is another draw.
    #[test]
    fn the_order_within_a_second_is_drawn() {
        const SECONDS: i32 = 10_000;
        let ascending = |user, pair: (i32, i32)| {
            (0..SECONDS)
                .filter(|&time| draw((user, pair.0), time) < draw((user, pair.1), time))
                .count() as f64
        };
        for pair in [(1, 2), (5, 5000), (-3, 7)] {
            // Four standard deviations of a binomial distribution.
            let share = ascending(42, pair) / f64::from(SECONDS);
            assert!(
                (share - 0.5).abs() < 4.0 * 0.5 / f64::from(SECONDS).sqrt(),
                "{pair:?}: {share}"
            );
        }
        assert_eq!(draw((1, 2), 3), draw((1, 2), 3));
        assert_ne!(draw((1, 2), 3), draw((2, 1), 3));
    }
}
