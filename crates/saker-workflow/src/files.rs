//! The tables of a saved workflow, as Parquet files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::Error;
use crate::lookup::Keys;
use crate::similarity::Features;
use crate::vocabulary::{self, GroupTable, Vocabulary};

impl Vocabulary {
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut columns = key_columns(&self.columns);
        if !self.sizes.is_empty() || self.is_empty() {
            let sizes = Arc::new(Int64Array::from(self.sizes.clone()));
            columns.push((format!("{}_size", self.name), sizes));
        }
        // The start of the codes stands where pandas keeps a frame's index, as NVTabular does.
        let pandas = serde_json::json!({
            "index_columns": [{
                "kind": "range", "name": null,
                "start": self.codes.start, "stop": self.codes.start.saturating_add(self.len()), "step": 1,
            }],
            "column_indexes": [],
            "columns": columns.iter().map(|(name, array)| {
                let kind = if array.data_type() == &DataType::Int64 { "int64" } else { "unicode" };
                let numpy = if kind == "int64" { "int64" } else { "object" };
                serde_json::json!({ "name": name, "field_name": name,
                    "pandas_type": kind, "numpy_type": numpy, "metadata": null })
            }).collect::<Vec<_>>(),
            "creator": { "library": "saker", "version": env!("CARGO_PKG_VERSION") },
            "pandas_version": "1.5.3",
        });
        let metadata = [("pandas".to_owned(), pandas.to_string())];
        write_parquet(path, columns, metadata.into())
    }
}

impl GroupTable {
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut columns = key_columns(&self.keys);
        for (name, single, values) in &self.values {
            let array: ArrayRef = if name.ends_with("_count") {
                Arc::new(
                    values
                        .iter()
                        .map(|&x| Some(x as i64))
                        .collect::<Int64Array>(),
                )
            } else if *single {
                Arc::new(values.iter().map(|&x| x as f32).collect::<Float32Array>())
            } else {
                Arc::new(Float64Array::from(values.clone()))
            };
            columns.push((name.clone(), array));
        }
        write_parquet(path, columns, HashMap::new())
    }
}

impl Features {
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let bounds = self.starts.iter().zip(self.starts.iter().skip(1));
        let rows: Int64Array = (bounds.zip(0i64..))
            .flat_map(|((from, to), row)| std::iter::repeat_n(Some(row), to - from))
            .collect();
        let columns: Int64Array = self.entries.iter().map(|&(c, _)| Some(c)).collect();
        let values: Float64Array = self.entries.iter().map(|&(_, v)| Some(v)).collect();
        let batch = RecordBatch::try_from_iter([
            ("row", Arc::new(rows) as ArrayRef),
            ("column", Arc::new(columns)),
            ("value", Arc::new(values)),
        ])
        .map_err(|error| Error::file(path, error))?;
        write_batch(path, &batch)
    }
}

/// The columns of a table, with their names.
type Columns = Vec<(String, ArrayRef)>;

fn key_columns(keys: &[(String, Keys)]) -> Columns {
    let array = |keys: &Keys| -> ArrayRef {
        match keys {
            Keys::Int(keys) => Arc::new(Int64Array::from(keys.clone())),
            Keys::String(keys) => Arc::new(StringArray::from(keys.clone())),
        }
    };
    let columns = keys.iter();
    columns
        .map(|(name, keys)| (name.clone(), array(keys)))
        .collect()
}

/// Reads a parquet file, or a folder of `part.N.parquet` in the order of N, into one batch.
///
/// # Errors
/// Names the file that cannot be read.
pub fn read_parquet(path: &Path) -> Result<RecordBatch, Error> {
    let mut batches = Vec::new();
    let mut schema = None;
    for file in vocabulary::parts(path)? {
        let handle = File::open(&file).map_err(|error| Error::file(&file, error))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(handle)
            .and_then(|builder| builder.with_batch_size(65_536).build())
            .map_err(|error| Error::file(&file, error))?;
        schema.get_or_insert_with(|| arrow::record_batch::RecordBatchReader::schema(&reader));
        for batch in reader {
            batches.push(batch.map_err(|error| Error::file(&file, error))?);
        }
    }
    let schema = schema.ok_or_else(|| Error::file(path, "holds no schema"))?;
    arrow::compute::concat_batches(&schema, &batches).map_err(|error| Error::file(path, error))
}

fn write_parquet(
    path: &Path,
    columns: Columns,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let field =
        |(name, array): &(String, ArrayRef)| Field::new(name, array.data_type().clone(), true);
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let batch = RecordBatch::try_new(schema, arrays).map_err(|error| Error::file(path, error))?;
    write_batch(path, &batch)
}

/// Writes one batch as a parquet file; the folder is created.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write_batch(path: &Path, batch: &RecordBatch) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    }
    let file = File::create(path).map_err(|error| Error::file(path, error))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None)
        .map_err(|error| Error::file(path, error))?;
    writer
        .write(batch)
        .and_then(|()| writer.close())
        .map_err(|error| Error::file(path, error))?;
    Ok(())
}
