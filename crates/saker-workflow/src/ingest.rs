//! Arrow columns in our types, and back.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, TimeUnit as ArrowUnit,
};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::column::{Column, DType, Slice};
use crate::definition::TimeUnit;
use crate::error::Error;
use crate::parts::InputColumn;
use crate::variable::Variable;

/// An arrow column in one of our types, its lists flattened.
#[derive(Debug, Clone)]
pub(crate) struct Ingested {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// Whether the elements are datetimes, as nanoseconds since 1970.
    pub(crate) datetime: bool,
    /// The column as given, or as an operator made it.
    pub(crate) array: ArrayRef,
    /// Its elements: the array itself, or the lists' values one after the other.
    pub(crate) elements: ArrayRef,
    pub(crate) lists: Option<(OffsetBuffer<i32>, Option<NullBuffer>)>,
    /// Which elements are not null, for types without NaN.
    pub(crate) valid: Option<Vec<bool>>,
}

impl Ingested {
    pub(crate) fn new(name: &str, array: &ArrayRef) -> Result<Self, Error> {
        let lists = match array.data_type() {
            DataType::List(_) => Some(Arc::clone(array)),
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                Some(convert(name, array, &DataType::List(Arc::clone(item)))?)
            }
            _ => None,
        };
        let (elements, lists) = match lists {
            Some(lists) => {
                let lists = lists.as_list::<i32>();
                let offsets = lists.offsets();
                let at = |offset: Option<&i32>| offset.copied().unwrap_or_default() as usize;
                let (first, last) = (at(offsets.first()), at(offsets.last()));
                let elements = lists.values().slice(first, last - first);
                let offsets = OffsetBuffer::from_lengths(offsets.lengths());
                (elements, Some((offsets, lists.nulls().cloned())))
            }
            None => (Arc::clone(array), None),
        };
        let (dtype, target) = match elements.data_type() {
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt8
            | DataType::UInt16 => (DType::Int32, DataType::Int32),
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => {
                (DType::Int64, DataType::Int64)
            }
            DataType::Float16 | DataType::Float32 => (DType::Float32, DataType::Float32),
            // A column without any value has no type of its own in Arrow.
            DataType::Float64 | DataType::Null => (DType::Float64, DataType::Float64),
            DataType::Boolean => (DType::Bool, DataType::Boolean),
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Dictionary(_, _) => (DType::String, DataType::Utf8),
            DataType::Timestamp(_, zone) if is_utc(zone.as_deref()) => (
                DType::Int64,
                DataType::Timestamp(ArrowUnit::Nanosecond, None),
            ),
            other => {
                return Err(Error::types(
                    name,
                    other,
                    "integers, floats, bool, strings, datetimes without a time zone or in UTC, or lists of them",
                ));
            }
        };
        let mut elements = convert(name, &elements, &target)?;
        let datetime = matches!(target, DataType::Timestamp(..));
        if datetime {
            elements = convert(name, &elements, &DataType::Int64)?;
        }
        let mut valid = None;
        if elements.null_count() > 0 {
            match dtype {
                DType::Float32 => {
                    let values = elements.as_primitive::<Float32Type>();
                    elements = Arc::new(Float32Array::from_iter_values(
                        values.iter().map(|x| x.unwrap_or(f32::NAN)),
                    ));
                }
                DType::Float64 => {
                    let values = elements.as_primitive::<Float64Type>();
                    elements = Arc::new(Float64Array::from_iter_values(
                        values.iter().map(|x| x.unwrap_or(f64::NAN)),
                    ));
                }
                _ => {
                    valid = elements.nulls().map(|nulls| nulls.iter().collect());
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            dtype,
            datetime,
            array: Arc::clone(array),
            elements,
            lists,
            valid,
        })
    }

    pub(crate) fn strings(&self) -> Vec<&[u8]> {
        match self.dtype {
            DType::String => {
                let strings = self.elements.as_string::<i32>();
                (0..strings.len())
                    .map(|i| strings.value(i).as_bytes())
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn booleans(&self) -> Vec<bool> {
        match self.dtype {
            DType::Bool => self.elements.as_boolean().values().iter().collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn column<'a>(
        &'a self,
        strings: &'a [&'a [u8]],
        booleans: &'a [bool],
    ) -> Column<'a> {
        let elements = &self.elements;
        Column {
            values: match self.dtype {
                DType::Int32 => Slice::Int32(elements.as_primitive::<Int32Type>().values()),
                DType::Int64 => Slice::Int64(elements.as_primitive::<Int64Type>().values()),
                DType::Float32 => Slice::Float32(elements.as_primitive::<Float32Type>().values()),
                DType::Float64 => Slice::Float64(elements.as_primitive::<Float64Type>().values()),
                DType::Bool => Slice::Bool(booleans),
                DType::String => Slice::String(strings),
            },
            valid: self.valid.as_deref(),
        }
    }

    /// Name and type.
    pub(crate) fn described(&self) -> InputColumn {
        InputColumn {
            name: self.name.clone(),
            dtype: self.dtype,
            list: self.lists.is_some(),
            datetime: self.datetime,
        }
    }

    pub(crate) fn type_name(&self) -> String {
        match self.datetime {
            true => "datetime".to_owned(),
            false => self.dtype.to_string(),
        }
    }

    pub(crate) fn variable(&self, index: usize) -> Variable {
        Variable::input(&self.described(), index)
    }
}

/// Whether the hours of a column are those of UTC.
fn is_utc(zone: Option<&str>) -> bool {
    zone.is_none_or(|zone| matches!(zone, "UTC" | "Etc/UTC" | "Z" | "+00:00"))
}

pub(crate) fn arrow_unit(unit: TimeUnit) -> ArrowUnit {
    match unit {
        TimeUnit::S => ArrowUnit::Second,
        TimeUnit::Ms => ArrowUnit::Millisecond,
        TimeUnit::Us => ArrowUnit::Microsecond,
        TimeUnit::Ns => ArrowUnit::Nanosecond,
    }
}

pub(crate) fn convert(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Error> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, to, &options).map_err(|error| {
        Error::types(
            name,
            format!("{} ({error})", array.data_type()),
            &to.to_string(),
        )
    })
}

/// A column of a table, in the type that stands for ours.
pub(crate) fn field(column: &InputColumn) -> Field {
    let element = match column.dtype {
        DType::Int64 if column.datetime => DataType::Timestamp(ArrowUnit::Nanosecond, None),
        DType::Int32 => DataType::Int32,
        DType::Int64 => DataType::Int64,
        DType::Float32 => DataType::Float32,
        DType::Float64 => DataType::Float64,
        DType::Bool => DataType::Boolean,
        DType::String => DataType::Utf8,
    };
    let dtype = if column.list {
        DataType::new_list(element, true)
    } else {
        element
    };
    Field::new(&column.name, dtype, true)
}

/// The type of a column's values, or of its lists' elements.
fn element_type(array: &ArrayRef) -> &DataType {
    match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type()
        }
        other => other,
    }
}

/// Gives columns without any value, which Arrow may keep as type null, the type that they had in the fit.
pub(crate) fn typed_nulls(
    batch: &RecordBatch,
    fitted: &[InputColumn],
) -> Result<RecordBatch, Error> {
    let untyped = |array: &ArrayRef| element_type(array) == &DataType::Null;
    if !batch.columns().iter().any(untyped) {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let array = match fitted.iter().find(|input| input.name == *field.name()) {
            Some(input) if untyped(array) => {
                convert(field.name(), array, self::field(input).data_type())?
            }
            _ => Arc::clone(array),
        };
        fields.push(Field::new(field.name(), array.data_type().clone(), true));
        arrays.push(array);
    }
    batch_of(fields, arrays, batch.num_rows())
}

/// Refuses integers for a column that held datetimes in the fit, and datetimes for one that did not: their integers differ in unit.
pub(crate) fn check_datetimes(batch: &RecordBatch, fitted: &[InputColumn]) -> Result<(), Error> {
    let is_datetime = |array: &ArrayRef| matches!(element_type(array), DataType::Timestamp(..));
    for input in fitted {
        let Some(array) = batch.column_by_name(&input.name) else {
            continue;
        };
        if is_datetime(array) != input.datetime {
            let accepted = if input.datetime {
                "datetime, as in the fit"
            } else {
                "no datetime, as in the fit"
            };
            return Err(Error::types(&input.name, array.data_type(), accepted));
        }
    }
    Ok(())
}

/// Finds a column of a batch.
pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Error> {
    batch
        .column_by_name(name)
        .ok_or_else(|| Error::MissingColumn {
            column: name.to_owned(),
            given: batch
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// Finds and converts a column of a batch.
pub(crate) fn ingest(batch: &RecordBatch, name: &str) -> Result<Ingested, Error> {
    Ingested::new(name, column(batch, name)?)
}

/// Columns as a batch of this many rows, which a batch without columns has, too.
pub(crate) fn batch_of(
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(
        |error| Error::Definition {
            column: "(all)".to_owned(),
            message: error.to_string(),
        },
    )
}

/// The folds of a batch's rows as a column.
pub(crate) fn fold_column(folds: &[i32]) -> Result<Ingested, Error> {
    let array: ArrayRef = Arc::new(Int32Array::from(folds.to_vec()));
    Ingested::new("__fold__", &array)
}
