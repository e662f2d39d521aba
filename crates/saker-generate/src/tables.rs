//! The shop's tables as Parquet.

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::catalogue::Item;
use crate::error::{Error, Result};
use crate::session::Event;
use crate::shop::Shop;
use crate::taxonomy::{CATEGORIES, GROUPS};

/// Rows per Arrow array.
const ROWS: usize = 1 << 16;

/// Writes batches of one schema to a temporary file, which is renamed when it is complete.
fn write(
    path: &Path,
    batches: impl Iterator<Item = Result<RecordBatch>>,
    properties: WriterProperties,
) -> Result<()> {
    let beside = path.with_extension("parquet.new");
    let mut batches = batches.peekable();
    let schema: SchemaRef = match batches.peek() {
        Some(Ok(first)) => first.schema(),
        _ => Arc::new(arrow::datatypes::Schema::empty()),
    };
    let file = File::create(&beside).map_err(Error::file(&beside))?;
    let mut writer =
        ArrowWriter::try_new(file, schema, Some(properties)).map_err(Error::table(path))?;
    for batch in batches {
        writer.write(&batch?).map_err(Error::table(path))?;
    }
    writer.close().map_err(Error::table(path))?;
    fs::rename(&beside, path).map_err(Error::file(path))
}

fn batch(path: &Path, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns).map_err(Error::table(path))
}

fn int32(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn texts<'t>(values: impl Iterator<Item = &'t str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn properties() -> WriterProperties {
    // Numbers that rarely repeat in a row group need less space as differences than in a dictionary.
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(2 * ROWS));
    for column in ["timestamp", "session_id"] {
        properties = properties
            .set_column_dictionary_enabled(column.into(), false)
            .set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

/// `day_NN.parquet`
pub(crate) fn write_day(path: &Path, shop: &Shop, events: &[Event]) -> Result<()> {
    let (users, items) = (shop.users(), shop.items());
    let batches = events.chunks(ROWS).map(|events| {
        let session = events.iter().map(|event| event.session);
        batch(
            path,
            vec![
                (
                    "user_id",
                    int32(events.iter().map(|event| users[event.user as usize].id)),
                ),
                (
                    "item_id",
                    int32(events.iter().map(|event| items[event.item as usize].id)),
                ),
                (
                    "timestamp",
                    int32(events.iter().map(|event| event.timestamp)),
                ),
                (
                    "device_type",
                    int32(events.iter().map(|event| i32::from(event.device))),
                ),
                (
                    "event_type",
                    texts(events.iter().map(|event| event.kind.name())),
                ),
                (
                    "session_id",
                    Arc::new(Int64Array::from_iter_values(session)),
                ),
            ],
        )
    });
    write(path, batches, properties())
}

/// `users.parquet`
pub(crate) fn write_users(path: &Path, shop: &Shop) -> Result<()> {
    let batches = shop.users().chunks(ROWS).map(|users| {
        batch(
            path,
            vec![
                ("user_id", int32(users.iter().map(|user| user.id))),
                ("age", int32(users.iter().map(|user| i32::from(user.age)))),
                (
                    "gender",
                    int32(users.iter().map(|user| i32::from(user.gender))),
                ),
                ("signup_day", int32(users.iter().map(|user| user.signup))),
            ],
        )
    });
    write(path, batches, properties())
}

/// `items.parquet`
pub(crate) fn write_items(path: &Path, shop: &Shop) -> Result<()> {
    let kind = |item: &Item| &CATEGORIES[item.category];
    let batches = rows_of_items(shop).map(|rows| {
        let items = &shop.items()[rows.clone()];
        let titles: Vec<String> = rows.map(|item| shop.title(item)).collect();
        let prices = Float32Array::from_iter_values(items.iter().map(|item| item.price));
        batch(
            path,
            vec![
                ("item_id", int32(items.iter().map(|item| item.id))),
                ("title", texts(titles.iter().map(String::as_str))),
                ("price", Arc::new(prices)),
                (
                    "category_l1",
                    int32(items.iter().map(|item| kind(item).group as i32)),
                ),
                (
                    "category_l2",
                    int32(items.iter().map(|item| item.category as i32)),
                ),
                (
                    "item_gender",
                    int32(items.iter().map(|item| item.gender.code())),
                ),
                (
                    "category_l1_name",
                    texts(items.iter().map(|item| GROUPS[kind(item).group])),
                ),
                (
                    "category_l2_name",
                    texts(items.iter().map(|item| kind(item).name)),
                ),
                ("launch_day", int32(items.iter().map(|item| item.launch))),
            ],
        )
    });
    write(path, batches, properties())
}

/// `item_descriptions.parquet`
pub(crate) fn write_descriptions(path: &Path, shop: &Shop) -> Result<()> {
    let batches = rows_of_items(shop).map(|rows| {
        let descriptions: Vec<String> = rows.clone().map(|item| shop.description(item)).collect();
        let items = &shop.items()[rows];
        batch(
            path,
            vec![
                ("item_id", int32(items.iter().map(|item| item.id))),
                (
                    "description",
                    texts(descriptions.iter().map(String::as_str)),
                ),
            ],
        )
    });
    write(path, batches, properties())
}

/// The rows of each batch of an item table.
fn rows_of_items(shop: &Shop) -> impl Iterator<Item = Range<usize>> {
    let items = shop.items().len();
    (0..items)
        .step_by(ROWS)
        .map(move |first| first..items.min(first + ROWS))
}
