//! Interactions as the source has them, to rows of users and items with a time: batch by batch, on their way into the sort.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Float32Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rustc_hash::FxHashMap;
use saker_bulk::{BoxError, DataFrame, Engine};
use saker_pipeline::{Column, ColumnType, Default as Fallback, Format, Interactions, Pipeline};

use super::columns::Entities;
use super::source::{AtomicFile, Source, present};

/// Columns of the cleaned rows. Context columns follow them, called `context.<name>`.
pub(super) const USER: &str = "user_row";
pub(super) const ITEM: &str = "item_row";
pub(super) const TIME: &str = "timestamp";
pub(super) const RATING: &str = "rating";
/// The place in the source, which decides between events of one user, second and item.
pub(super) const PLACE: &str = "place";

/// Rows of a chunk of an atomic file.
const CHUNK_ROWS: usize = 1 << 15;

/// What was met on the way; complete when all rows have passed.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// Events of users or items that the tables do not hold.
    pub(super) dropped: AtomicU64,
    /// Events of kinds that `ratings` does not list.
    pub(super) unlisted: AtomicU64,
    /// Time of the last event that is kept, Unix seconds.
    latest: AtomicI32,
}

impl Met {
    pub(super) fn latest(&self) -> i32 {
        self.latest.load(Ordering::Relaxed)
    }
}

/// Turns rows of the source into cleaned rows.
struct Cleaner {
    /// Source columns.
    user: String,
    item: String,
    time: String,
    rating: Option<String>,
    ratings: Option<HashMap<String, f32>>,
    /// Context columns that are read from the source, with their defaults.
    context: Vec<(Column, f64)>,
    users: Arc<FxHashMap<i32, i32>>,
    items: Arc<FxHashMap<i32, i32>>,
    schema: SchemaRef,
    met: Arc<Met>,
}

/// The name of a context column among cleaned rows, where it may be called as any other.
pub(super) fn context_name(column: &str) -> String {
    format!("context.{column}")
}

/// Context columns that features read and that are not the event's time.
pub(super) fn context_columns(pipeline: &Pipeline) -> impl Iterator<Item = &Column> {
    pipeline.context.columns.iter().filter(|column| {
        let name = column.name.as_str();
        let mut features = pipeline.context.features.iter();
        !is_time(column)
            && name != TIME
            && features.any(|feature| feature.columns().contains(&name))
    })
}

/// Whether a context column is the request's time.
pub(super) fn is_time(column: &Column) -> bool {
    column.default == Fallback::Word("now".to_owned())
}

/// The cleaned rows of all files, and of the batches that stand beside them, as a plan in no order.
pub(super) fn rows(
    pipeline: &Pipeline,
    engine: &Engine,
    format: Format,
    of: &Interactions,
    (files, live): (Vec<PathBuf>, Vec<RecordBatch>),
    users: &Entities,
    items: &Entities,
) -> Result<(DataFrame, Arc<Met>)> {
    let mut fields = vec![
        Field::new(USER, DataType::Int32, false),
        Field::new(ITEM, DataType::Int32, false),
        Field::new(TIME, DataType::Int32, false),
        Field::new(RATING, DataType::Float32, false),
        Field::new(PLACE, DataType::Int64, false),
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
    let schema = Arc::new(Schema::new(fields));
    let (met, of_live) = (Arc::new(Met::default()), Arc::clone(&schema));
    let ratings = of.ratings.as_ref().map(|ratings| {
        let ratings = ratings.iter();
        ratings
            .map(|(text, &rating)| (text.clone(), rating))
            .collect()
    });
    let cleaner = Cleaner {
        user: of.user.clone().unwrap_or_else(|| pipeline.user.id.clone()),
        item: of.item.clone().unwrap_or_else(|| pipeline.item.id.clone()),
        time: of.timestamp.clone(),
        rating: of.rating.clone(),
        ratings,
        context,
        users: Arc::clone(&users.row_of),
        items: Arc::clone(&items.row_of),
        schema: Arc::clone(&schema),
        met: Arc::clone(&met),
    };
    for file in &files {
        present(file)?;
    }
    // After those of all files.
    let place = files.len();
    let live = live
        .iter()
        .scan(0u64, |first, batch| {
            let source = Source::of_batch(Path::new("the offline store's events"), *first, batch);
            *first += batch.num_rows() as u64;
            Some(source.and_then(|source| cleaner.clean(&source, place)))
        })
        .collect::<Result<Vec<_>>>()?;
    let rows = match format {
        Format::Atomic => {
            let [path] = files.as_slice() else {
                bail!("one file of interactions is accepted in format atomic");
            };
            let mut file = AtomicFile::open(path)?;
            let mut first = true;
            let batches = std::iter::from_fn(move || {
                let chunk = match file.chunk(CHUNK_ROWS) {
                    // The first chunk shows missing columns even of a file without rows.
                    Ok(chunk) if chunk.rows() == 0 && !first => return None,
                    chunk => chunk,
                };
                first = false;
                Some(
                    chunk
                        .and_then(|chunk| cleaner.clean(&chunk, 0))
                        .map_err(BoxError::from),
                )
            });
            engine.batches(schema, batches)?
        }
        Format::Parquet => {
            let columns = cleaner.columns();
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            for file in &files {
                engine
                    .select(&engine.read(std::slice::from_ref(file))?, &columns)
                    .with_context(|| file.display().to_string())?;
            }
            let paths = files.clone();
            engine.map_files(&files, &columns, schema, move |batch, file, first| {
                let source = Source::of_batch(&paths[file], first, batch);
                source
                    .and_then(|source| cleaner.clean(&source, file))
                    .map_err(BoxError::from)
            })?
        }
    };
    let rows = match live.is_empty() {
        true => rows,
        false => rows.union(engine.batches(of_live, live.into_iter().map(Ok))?)?,
    };
    Ok((rows, met))
}

impl Cleaner {
    /// The source columns that are read, each once.
    fn columns(&self) -> Vec<String> {
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

    fn clean(&self, source: &Source, file: usize) -> Result<RecordBatch> {
        let users = source.ids(&self.user)?;
        let items = source.ids(&self.item)?;
        let times = source.int32s(&self.time)?;
        let ratings = self.ratings(source)?;
        let mut kept = Vec::with_capacity(source.rows());
        let mut ids: [Vec<i32>; 3] = Default::default();
        let (mut dropped, mut unlisted) = (0, 0);
        let mut latest = i32::MIN;
        for row in 0..source.rows() {
            if ratings[row].is_none() {
                unlisted += 1;
                continue;
            }
            let (Some(&user), Some(&item)) =
                (self.users.get(&users[row]), self.items.get(&items[row]))
            else {
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
        }
        self.met.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.met.unlisted.fetch_add(unlisted, Ordering::Relaxed);
        self.met.latest.fetch_max(latest, Ordering::Relaxed);

        let int32 = |values| -> ArrayRef { Arc::new(Int32Array::from(values)) };
        let mut columns: Vec<ArrayRef> = ids.map(int32).into();
        let ratings = kept.iter().filter_map(|&row| ratings[row]);
        columns.push(Arc::new(Float32Array::from_iter_values(ratings)));
        // A file's rows in their order, after those of the files before it.
        let places = kept
            .iter()
            .map(|&row| ((file as i64) << 40) + source.number_of(row) as i64);
        columns.push(Arc::new(Int64Array::from_iter_values(places)));
        for (column, default) in &self.context {
            let numbers = source.numbers(column.source())?;
            let numbers = kept.iter().map(|&row| numbers[row].unwrap_or(*default));
            columns.push(match column.kind {
                ColumnType::Float32 => Arc::new(Float32Array::from_iter_values(
                    numbers.map(|number| number as f32),
                )),
                _ => Arc::new(Int32Array::from_iter_values(
                    numbers.map(|number| number as i32),
                )),
            });
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).context("cleaned interactions")
    }

    /// What each row counts; `None` for a kind of event that is left out.
    fn ratings(&self, source: &Source) -> Result<Vec<Option<f32>>> {
        Ok(match (&self.rating, &self.ratings) {
            (None, _) => vec![Some(1.0); source.rows()],
            (Some(name), None) => {
                let numbers = source.numbers(name)?.into_iter();
                numbers
                    .map(|number| Some(number.unwrap_or(1.0) as f32))
                    .collect()
            }
            (Some(name), Some(ratings)) => {
                let values = source.column(name)?;
                (0..source.rows())
                    .map(|row| ratings.get(values.text(row).trim()).copied())
                    .collect()
            }
        })
    }
}
