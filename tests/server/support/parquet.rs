//! Whole columns of a Parquet file.

use std::{fs::File, path::Path};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float32Type, Int32Type, Int64Type},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The values of an `int32` column.
pub(crate) fn i32_column(path: &Path, name: &str) -> Vec<i32> {
    column(path, name, |array| {
        array.as_primitive::<Int32Type>().values().to_vec()
    })
}

/// The values of a `float` column.
pub(crate) fn f32_column(path: &Path, name: &str) -> Vec<f32> {
    column(path, name, |array| {
        array.as_primitive::<Float32Type>().values().to_vec()
    })
}

fn column<T>(path: &Path, name: &str, values: impl Fn(&dyn Array) -> Vec<T>) -> Vec<T> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .expect("a Parquet file");
    let mut column = Vec::new();
    for batch in reader {
        let batch = batch.expect("rows");
        column.extend(values(batch.column_by_name(name).expect("the column")));
    }
    column
}

/// The values of an integer column of either width.
pub(crate) fn i32_or_i64_column(path: &Path, name: &str) -> Vec<i64> {
    column(path, name, |array| match array.data_type() {
        DataType::Int32 => {
            let values = array.as_primitive::<Int32Type>().values();
            values.iter().map(|&value| value.into()).collect()
        }
        _ => array.as_primitive::<Int64Type>().values().to_vec(),
    })
}
