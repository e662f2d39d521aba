//! Tables in memory and on disk: Arrow record batches with Int32, Float32 and Utf8 columns, as Parquet.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use arrow::array::{
    Array, ArrayRef, Float32Array, Int32Array, RecordBatch, RecordBatchReader, StringArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

/// A table of columns of equal length.
pub fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns).context("columns of unequal length")
}

/// An Int32 column.
pub fn int32(values: Vec<i32>) -> ArrayRef {
    Arc::new(Int32Array::from(values))
}

/// A Float32 column.
pub fn float32(values: Vec<f32>) -> ArrayRef {
    Arc::new(Float32Array::from(values))
}

/// A Utf8 column.
pub fn text(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

/// Reads a Parquet file as a whole.
///
/// # Errors
/// Returns an error if the file is missing or is not a Parquet file.
pub fn read(path: &Path) -> Result<RecordBatch> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let damaged = || format!("{} is no readable Parquet file", path.display());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .with_context(damaged)?
        .build()
        .with_context(damaged)?;
    let schema = reader.schema();
    let batches = reader
        .collect::<Result<Vec<_>, _>>()
        .with_context(damaged)?;
    concat_batches(&schema, &batches).with_context(damaged)
}

/// Reads some columns of a Parquet file, part of the rows at a time.
///
/// # Errors
/// Returns an error if the file is missing or is not a Parquet file. A column that the file lacks is missing from the results.
pub fn stream(
    path: &Path,
    columns: &[&str],
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    const ROWS: usize = 1 << 16;
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let name = path.display().to_string();
    let damaged = move || format!("{name} is no readable Parquet file");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(&damaged)?;
    let schema = builder.parquet_schema();
    // Select by whole names, because a name may contain dots.
    let roots = schema.root_schema().get_fields().iter().enumerate();
    let roots = roots.filter(|(_, field)| columns.contains(&field.name()));
    let mask = ProjectionMask::roots(schema, roots.map(|(root, _)| root).collect::<Vec<_>>());
    let reader = builder
        .with_projection(mask)
        .with_batch_size(ROWS)
        .build()
        .with_context(&damaged)?;
    Ok(reader.map(move |batch| batch.with_context(&damaged)))
}

/// The names of a Parquet file's columns.
///
/// # Errors
/// Returns an error if the file is missing or is not a Parquet file.
pub fn columns(path: &Path) -> Result<Vec<String>> {
    let schema = schema(path)?;
    let fields = schema.fields().iter();
    Ok(fields.map(|field| field.name().clone()).collect())
}

/// The columns of a Parquet file, with their types.
///
/// # Errors
/// Returns an error if the file is missing or is not a Parquet file.
pub fn schema(path: &Path) -> Result<SchemaRef> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .with_context(|| format!("{} is no readable Parquet file", path.display()))?;
    Ok(Arc::clone(builder.schema()))
}

/// Writes a temporary Parquet file and renames it to `path`.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write(path: &Path, table: &RecordBatch) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let beside = path.with_extension("parquet.new");
    let file = File::create(&beside).with_context(failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut writer =
        ArrowWriter::try_new(file, table.schema(), Some(properties)).with_context(failed)?;
    writer.write(table).with_context(failed)?;
    writer.close().with_context(failed)?;
    fs::rename(&beside, path).with_context(failed)
}

/// The values of an Int32 column.
///
/// # Errors
/// Returns an error if the column is missing, has another type, or has nulls.
pub fn int32s<'t>(table: &'t RecordBatch, name: &str) -> Result<&'t [i32]> {
    let array = column::<Int32Array>(table, name, "Int32")?;
    Ok(array.values())
}

/// The values of a Float32 column.
///
/// # Errors
/// Returns an error as [`int32s`] does.
pub fn float32s<'t>(table: &'t RecordBatch, name: &str) -> Result<&'t [f32]> {
    let array = column::<Float32Array>(table, name, "Float32")?;
    Ok(array.values())
}

/// A Utf8 column.
///
/// # Errors
/// Returns an error as [`int32s`] does.
pub fn texts<'t>(table: &'t RecordBatch, name: &str) -> Result<&'t StringArray> {
    column(table, name, "Utf8")
}

fn column<'t, A: Array + 'static>(
    table: &'t RecordBatch,
    name: &str,
    accepted: &str,
) -> Result<&'t A> {
    let array = table.column_by_name(name).ok_or_else(|| {
        let schema = table.schema();
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        anyhow!("there is no column {name}; there are {}", names.join(", "))
    })?;
    let typed = array
        .as_any()
        .downcast_ref::<A>()
        .filter(|_| array.null_count() == 0);
    typed.ok_or_else(|| {
        anyhow!(
            "column {name} is {} with {} nulls, expected {accepted} without",
            array.data_type(),
            array.null_count()
        )
    })
}
