//! Fitted vocabularies (Categorify) and group statistics (JoinGroupby, TargetEncoding), with their parquet files.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::Error;
use crate::lookup::{ABSENT, KeyIndex, Keys};

/// The code of padding.
pub const PADDING_CODE: usize = 0;
/// The code of null.
pub const NULL_CODE: usize = 1;
/// The first out-of-vocabulary code.
pub const OOV_CODE: usize = 2;

/// Where the codes of a vocabulary begin, and which ones stand for null and for unseen values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codes {
    /// The code of the first value.
    pub(crate) start: usize,
    pub(crate) null: usize,
    /// The first code of unseen values.
    pub(crate) unseen: usize,
}

impl Codes {
    /// Those of a vocabulary with a table of its own.
    pub(crate) fn new(num_buckets: usize) -> Self {
        Self {
            start: OOV_CODE.saturating_add(num_buckets),
            null: NULL_CODE,
            unseen: OOV_CODE,
        }
    }

    /// Those that NVTabular gives for `single_table`, where each column's values follow the ones of the column before it. Null has the
    /// code of the column's first value, and unseen values have the codes after that one.
    ///
    /// # Errors
    /// The start does not leave a code for unseen values.
    pub(crate) fn in_single_table(path: &Path, start: usize) -> Result<Self, Error> {
        let accepted = PADDING_CODE + 1..=i32::MAX as usize - 1;
        if !accepted.contains(&start) {
            let (least, most) = accepted.into_inner();
            return Err(Error::file(
                path,
                format!("its codes start at {start}, accepted: {least} to {most}"),
            ));
        }
        Ok(Self {
            start,
            null: start,
            unseen: start + 1,
        })
    }
}

/// The values of a Categorify, in code order, with how often each was seen when fitting.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    name: String,
    columns: Vec<(String, Keys)>,
    sizes: Vec<i64>,
    codes: Codes,
    index: KeyIndex,
}

impl Vocabulary {
    pub(crate) fn new(
        name: &str,
        columns: Vec<(String, Keys)>,
        sizes: Vec<i64>,
        codes: Codes,
    ) -> Self {
        let index = KeyIndex::new(&columns.iter().map(|(_, keys)| keys).collect::<Vec<_>>());
        Self {
            name: name.to_owned(),
            columns,
            sizes,
            codes,
            index,
        }
    }

    /// Column name, or the columns' names joined with `_`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, |(_, keys)| keys.len())
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The code of the first value: 2 + the number of out-of-vocabulary codes, more in a table that columns share.
    pub fn start(&self) -> usize {
        self.codes.start
    }

    pub(crate) fn codes(&self) -> Codes {
        self.codes
    }

    /// Whether the columns of its Categorify shared one table of codes, as with NVTabular's `single_table`.
    pub(crate) fn in_single_table(&self) -> bool {
        self.codes.null == self.codes.start
    }

    /// Rows of an embedding table for these codes: start + number of values.
    pub fn cardinality(&self) -> usize {
        // In a shared table the codes of unseen values may lie after the values.
        let codes = self.len().max(if self.in_single_table() { 2 } else { 0 });
        self.codes.start.saturating_add(codes)
    }

    /// The raw values by key column, in code order: element i has code `start() + i`. One column unless the keys are combinations.
    pub fn columns(&self) -> &[(String, Keys)] {
        &self.columns
    }

    /// How often each value was seen when fitting, in code order; empty where the file does not say.
    pub fn sizes(&self) -> &[i64] {
        &self.sizes
    }

    /// The raw integers in code order, when the vocabulary has one integer column.
    pub fn ints(&self) -> Option<Vec<i64>> {
        match self.columns.as_slice() {
            [(_, Keys::Int(keys))] => keys.iter().copied().collect(),
            _ => None,
        }
    }

    /// The raw integer of a code; none for the reserved codes, for codes beyond the vocabulary and for other key types.
    pub fn decode(&self, code: i64) -> Option<i64> {
        let position = usize::try_from(code).ok()?.checked_sub(self.codes.start)?;
        match self.columns.as_slice() {
            [(_, Keys::Int(keys))] => keys.get(position).copied().flatten(),
            _ => None,
        }
    }

    /// The code of a raw integer, when it is in the vocabulary.
    pub fn encode(&self, value: i64) -> Option<usize> {
        match self.index.columns.as_slice() {
            [lookup] => match lookup.int(value) {
                ABSENT => None,
                row => Some(self.codes.start + row as usize),
            },
            _ => None,
        }
    }

    pub(crate) fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Reads an NVTabular vocabulary: a parquet file, or a folder of `part.N.parquet`. Row order and `start` give the codes; the index
    /// that pandas may have saved is not looked at, as some writers leave it out or start it at 0.
    ///
    /// # Errors
    /// The file cannot be read, or a key column is neither integer nor string.
    pub fn read(path: &Path, name: &str, start: usize) -> Result<Self, Error> {
        let codes = Codes {
            start,
            ..Codes::new(1)
        };
        Self::read_with(path, name, codes)
    }

    pub(crate) fn read_with(path: &Path, name: &str, codes: Codes) -> Result<Self, Error> {
        let batch = read_parquet(path)?;
        let size_name = format!("{name}_size");
        let schema = batch.schema();
        let mut columns = Vec::new();
        let mut sizes = Vec::new();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            if field.name() == &size_name {
                sizes = ints(path, array)?;
            } else if !field.name().starts_with("__index_level_") {
                columns.push((field.name().clone(), keys(path, field.name(), array)?));
            }
        }
        if columns.is_empty() {
            return Err(Error::file(
                path,
                format!("holds no key column; expected a column '{name}'"),
            ));
        }
        // NVTabular writes one null row when there was nothing to fit on.
        if let [(_, keys)] = columns.as_mut_slice() {
            match keys {
                Keys::Int(keys) if keys.as_slice() == [None] => keys.clear(),
                Keys::String(keys) if keys.as_slice() == [None] => keys.clear(),
                _ => {}
            }
            sizes.truncate(keys.len());
            let null = match keys {
                Keys::Int(keys) => keys.iter().position(Option::is_none),
                Keys::String(keys) => keys.iter().position(Option::is_none),
            };
            if let Some(row) = null {
                return Err(Error::file(
                    path,
                    format!(
                        "row {row} of the column '{name}' is null, accepted: values. NVTabular before 23.06 writes such vocabularies, \
                         with other codes than 23.08: fit the workflow again with NVTabular 23.08"
                    ),
                ));
            }
        }
        Ok(Self::new(name, columns, sizes, codes))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (name, keys) in &self.columns {
            let array = keys_array(keys);
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        if !self.sizes.is_empty() || self.is_empty() {
            fields.push(Field::new(
                format!("{}_size", self.name),
                DataType::Int64,
                true,
            ));
            arrays.push(Arc::new(Int64Array::from(self.sizes.clone())));
        }
        // The start of the codes stands where pandas keeps a frame's index, as NVTabular does.
        let pandas = serde_json::json!({
            "index_columns": [{
                "kind": "range", "name": null,
                "start": self.codes.start, "stop": self.codes.start.saturating_add(self.len()), "step": 1,
            }],
            "column_indexes": [],
            "columns": fields.iter().map(|field| {
                let kind = if field.data_type() == &DataType::Int64 { "int64" } else { "unicode" };
                let numpy = if kind == "int64" { "int64" } else { "object" };
                serde_json::json!({ "name": field.name(), "field_name": field.name(),
                    "pandas_type": kind, "numpy_type": numpy, "metadata": null })
            }).collect::<Vec<_>>(),
            "creator": { "library": "saker", "version": env!("CARGO_PKG_VERSION") },
            "pandas_version": "1.5.3",
        });
        let metadata = [("pandas".to_owned(), pandas.to_string())].into();
        write_parquet(path, Schema::new_with_metadata(fields, metadata), arrays)
    }
}

/// Statistics by key, one row a key.
#[derive(Debug, Clone)]
pub struct GroupTable {
    pub(crate) keys: Vec<(String, Keys)>,
    /// Statistic columns; whether they are float32, otherwise float64.
    pub(crate) values: Vec<(String, bool, Vec<f64>)>,
    pub(crate) index: Arc<KeyIndex>,
}

impl GroupTable {
    pub(crate) fn new(keys: Vec<(String, Keys)>, values: Vec<(String, bool, Vec<f64>)>) -> Self {
        let index = KeyIndex::new(&keys.iter().map(|(_, keys)| keys).collect::<Vec<_>>());
        Self {
            keys,
            values,
            index: Arc::new(index),
        }
    }

    /// The key columns, in row order.
    pub fn keys(&self) -> &[(String, Keys)] {
        &self.keys
    }

    /// A statistic's values in row order, by the name of its column in the file (`<key>_count`, `<key>_<column>_sum`).
    pub fn statistic(&self, name: &str) -> Option<&[f64]> {
        self.column(name).map(|(_, values)| values)
    }

    pub(crate) fn column(&self, name: &str) -> Option<(bool, &[f64])> {
        self.values
            .iter()
            .find(|(column, _, _)| column == name)
            .map(|(_, single, values)| (*single, values.as_slice()))
    }

    pub(crate) fn read(path: &Path, key_columns: &[String]) -> Result<Self, Error> {
        let batch = read_parquet(path)?;
        let schema = batch.schema();
        let mut table_keys = Vec::new();
        let mut values = Vec::new();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            if key_columns.contains(field.name()) {
                table_keys.push((field.name().clone(), keys(path, field.name(), array)?));
            } else {
                let single = field.data_type() == &DataType::Float32;
                let array =
                    cast(array, &DataType::Float64).map_err(|error| Error::file(path, error))?;
                let array = array.as_primitive::<Float64Type>();
                let column = array.iter().map(|x| x.unwrap_or(f64::NAN)).collect();
                values.push((field.name().clone(), single, column));
            }
        }
        if table_keys.len() != key_columns.len() {
            return Err(Error::file(
                path,
                format!("expected the key columns {}", key_columns.join(", ")),
            ));
        }
        Ok(Self::new(table_keys, values))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (name, keys) in &self.keys {
            let array = keys_array(keys);
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
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
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        write_parquet(path, Schema::new(fields), arrays)
    }
}

fn keys_array(keys: &Keys) -> ArrayRef {
    match keys {
        Keys::Int(keys) => Arc::new(Int64Array::from(keys.clone())),
        Keys::String(keys) => Arc::new(StringArray::from(keys.clone())),
    }
}

fn keys(path: &Path, name: &str, array: &ArrayRef) -> Result<Keys, Error> {
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
            let array = cast(array, &DataType::Utf8).map_err(|error| Error::file(path, error))?;
            let strings = array.as_string::<i32>();
            Ok(Keys::String(
                strings.iter().map(|key| key.map(str::to_owned)).collect(),
            ))
        }
        // Datetimes are nanoseconds here.
        DataType::Timestamp(_, None) => {
            let options = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
            let array = cast_with_options(array, &nanoseconds, &options)
                .and_then(|array| cast(&array, &DataType::Int64))
                .map_err(|error| Error::file(path, error))?;
            Ok(Keys::Int(
                array.as_primitive::<Int64Type>().iter().collect(),
            ))
        }
        kind if kind.is_numeric() || kind == &DataType::Boolean => {
            let cast_array =
                cast(array, &DataType::Int64).map_err(|error| Error::file(path, error))?;
            let back = cast(&cast_array, kind).map_err(|error| Error::file(path, error))?;
            if back.as_ref() != array.as_ref() {
                return Err(Error::file(
                    path,
                    format!("key column '{name}' holds numbers that are not whole"),
                ));
            }
            Ok(Keys::Int(
                cast_array.as_primitive::<Int64Type>().iter().collect(),
            ))
        }
        other => Err(Error::file(
            path,
            format!("key column '{name}' has type {other}, accepted: integers, bool or strings"),
        )),
    }
}

fn ints(path: &Path, array: &ArrayRef) -> Result<Vec<i64>, Error> {
    let array = cast(array, &DataType::Int64).map_err(|error| Error::file(path, error))?;
    Ok(array
        .as_primitive::<Int64Type>()
        .iter()
        .map(Option::unwrap_or_default)
        .collect())
}

/// Reads a parquet file, or a folder of `part.N.parquet` in the order of N, into one batch.
///
/// # Errors
/// Names the file that cannot be read.
pub fn read_parquet(path: &Path) -> Result<RecordBatch, Error> {
    let files = if path.is_dir() {
        let mut parts = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| Error::file(path, error))? {
            let file = entry.map_err(|error| Error::file(path, error))?.path();
            let number = file
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("part."))
                .and_then(|name| name.strip_suffix(".parquet"))
                .and_then(|number| number.parse::<u64>().ok());
            if let Some(number) = number {
                parts.push((number, file));
            }
        }
        if parts.is_empty() {
            return Err(Error::file(path, "the folder holds no part.N.parquet"));
        }
        parts.sort();
        parts.into_iter().map(|(_, file)| file).collect()
    } else {
        vec![path.to_owned()]
    };
    let mut batches = Vec::new();
    let mut schema = None;
    for file in files {
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

fn write_parquet(path: &Path, schema: Schema, arrays: Vec<ArrayRef>) -> Result<(), Error> {
    let batch =
        RecordBatch::try_new(Arc::new(schema), arrays).map_err(|error| Error::file(path, error))?;
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
