//! Columns of another table, by key.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Failure;
use crate::definition::Join;
use crate::error::Error;
use crate::ingest::column;

/// The chosen columns of the other table, without repeated rows if asked.
pub(super) fn choose(
    path: &Path,
    table: &RecordBatch,
    columns: &[String],
    drop_duplicates: bool,
) -> Result<RecordBatch, Error> {
    let schema = table.schema();
    let indices = columns
        .iter()
        .map(|name| {
            schema.index_of(name).map_err(|_| {
                let given: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                Error::file(
                    path,
                    format!(
                        "has no column '{name}'; its columns are: {}",
                        given.join(", ")
                    ),
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let failed = |error| Error::file(path, error);
    let table = table.project(&indices).map_err(failed)?;
    if !drop_duplicates {
        return Ok(table);
    }
    let fields = (table.columns().iter()).map(|a| SortField::new(a.data_type().clone()));
    let rows = RowConverter::new(fields.collect())
        .and_then(|converter| converter.convert_columns(table.columns()))
        .map_err(failed)?;
    let mut seen = FxHashSet::default();
    let kept =
        (0..table.num_rows() as u32).filter(|&row| seen.insert(rows.row(row as usize).data()));
    take_record_batch(&table, &UInt32Array::from_iter_values(kept)).map_err(failed)
}

pub(super) fn apply(
    table: &RecordBatch,
    external: &RecordBatch,
    on: &[String],
    on_external: &[String],
    how: Join,
) -> Result<RecordBatch, Failure> {
    let mut keys: Vec<ArrayRef> = Vec::new();
    let mut external_keys: Vec<ArrayRef> = Vec::new();
    for (name, external_name) in on.iter().zip(on_external) {
        let (ours, theirs) = (column(table, name)?, column(external, external_name)?);
        let kind = common(ours.data_type(), theirs.data_type()).ok_or_else(|| {
            Error::types(
                name,
                ours.data_type(),
                &format!(
                    "a type to compare with {} of '{external_name}'",
                    theirs.data_type()
                ),
            )
        })?;
        keys.push(cast(ours, &kind)?);
        external_keys.push(cast(theirs, &kind)?);
    }
    let fields = keys
        .iter()
        .map(|key| SortField::new(key.data_type().clone()));
    let converter = RowConverter::new(fields.collect())?;
    let external_rows = converter.convert_columns(&external_keys)?;
    let rows = converter.convert_columns(&keys)?;
    let mut places: FxHashMap<&[u8], Vec<u32>> = FxHashMap::default();
    for row in 0..external.num_rows() {
        let key = external_rows.row(row).data();
        places.entry(key).or_default().push(row as u32);
    }
    let mut left: Vec<u32> = Vec::new();
    let mut right: Vec<Option<u32>> = Vec::new();
    for row in 0..table.num_rows() {
        match places.get(rows.row(row).data()) {
            Some(matches) => {
                left.resize(left.len() + matches.len(), row as u32);
                right.extend(matches.iter().copied().map(Some));
            }
            None if how == Join::Left => {
                left.push(row as u32);
                right.push(None);
            }
            None => {}
        }
    }
    let joined = take_record_batch(table, &UInt32Array::from(left))?;
    let mut fields: Vec<Arc<Field>> = joined.schema().fields().iter().cloned().collect();
    let mut arrays = joined.columns().to_vec();
    let right = UInt32Array::from(right);
    for (field, array) in external.schema().fields().iter().zip(external.columns()) {
        let name = field.name();
        // A key of the same name is there already.
        if on.iter().zip(on_external).any(|(a, b)| a == b && a == name) {
            continue;
        }
        if table.column_by_name(name).is_some() {
            let message = "both tables have this column; rename it in one of them, or leave it out of columns_ext";
            return Err(Error::definition(name, message).into());
        }
        let array = take(array, &right, None)?;
        fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// The type in which two key columns are compared.
fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    let text = |kind: &DataType| {
        matches!(
            kind,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _)
        )
    };
    if a.is_integer() && b.is_integer() {
        Some(DataType::Int64)
    } else if a.is_numeric() && b.is_numeric() {
        Some(DataType::Float64)
    } else if text(a) && text(b) {
        Some(DataType::Utf8)
    } else if matches!((a, b), (DataType::Timestamp(_, x), DataType::Timestamp(_, y)) if x == y) {
        Some(DataType::Timestamp(TimeUnit::Nanosecond, None))
    } else {
        (a == b && a == &DataType::Boolean).then(|| a.clone())
    }
}
