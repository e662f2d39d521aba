//! From columns to Parquet.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use crate::Error;

/// A column to write.
#[derive(Debug, Clone)]
pub struct NewColumn<'a> {
    /// Name.
    pub name: &'a str,
    /// Values, as many as each other column has.
    pub values: NewValues<'a>,
}

/// The values of a [`NewColumn`].
#[derive(Debug, Clone)]
pub enum NewValues<'a> {
    /// Required INT32.
    Int32s(Vec<i32>),
    /// Optional INT32.
    OptionalInt32s(Vec<Option<i32>>),
    /// Required BYTE_ARRAY with the logical type String.
    Texts(Vec<&'a str>),
    /// Required INT64 with the logical type Timestamp: microseconds since the Unix epoch, UTC.
    Microseconds(Vec<i64>),
}

/// A Parquet file of these columns, compressed with Snappy.
///
/// # Errors
/// Returns an error if the columns differ in length or two have one name.
pub fn write(columns: &[NewColumn<'_>]) -> Result<Bytes, Error> {
    let fields = columns
        .iter()
        .map(field)
        .collect::<Result<Vec<TypePtr>, _>>()?;
    let schema = Type::group_type_builder("schema")
        .with_fields(fields)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for column in columns {
        let Some(mut writer) = group.next_column()? else {
            break;
        };
        match &column.values {
            NewValues::Int32s(values) => writer
                .typed::<Int32Type>()
                .write_batch(values, None, None)?,
            NewValues::OptionalInt32s(values) => {
                let levels: Vec<i16> = values
                    .iter()
                    .map(|value| i16::from(value.is_some()))
                    .collect();
                let present: Vec<i32> = values.iter().flatten().copied().collect();
                writer
                    .typed::<Int32Type>()
                    .write_batch(&present, Some(&levels), None)?
            }
            NewValues::Texts(values) => {
                let texts: Vec<ByteArray> =
                    values.iter().map(|text| ByteArray::from(*text)).collect();
                writer
                    .typed::<ByteArrayType>()
                    .write_batch(&texts, None, None)?
            }
            NewValues::Microseconds(values) => writer
                .typed::<Int64Type>()
                .write_batch(values, None, None)?,
        };
        writer.close()?;
    }
    group.close()?;
    Ok(file.into_inner()?.into())
}

fn field(column: &NewColumn<'_>) -> Result<TypePtr, Error> {
    let (physical, logical, repetition) = match column.values {
        NewValues::Int32s(_) => (PhysicalType::INT32, None, Repetition::REQUIRED),
        NewValues::OptionalInt32s(_) => (PhysicalType::INT32, None, Repetition::OPTIONAL),
        NewValues::Texts(_) => (
            PhysicalType::BYTE_ARRAY,
            Some(LogicalType::String),
            Repetition::REQUIRED,
        ),
        NewValues::Microseconds(_) => {
            let utc = LogicalType::timestamp(true, TimeUnit::MICROS);
            (PhysicalType::INT64, Some(utc), Repetition::REQUIRED)
        }
    };
    let builder = Type::primitive_type_builder(column.name, physical);
    let field = builder
        .with_repetition(repetition)
        .with_logical_type(logical)
        .build()?;
    Ok(Arc::new(field))
}
