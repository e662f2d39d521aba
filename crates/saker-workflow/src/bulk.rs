//! Operators over arrow columns: the offline side, with the programs that serve.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options, concat, take};
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, TimeUnit as ArrowUnit,
};
use arrow::record_batch::RecordBatch;

use crate::column::{Column, DType, Slice, SliceMut};
use crate::compile::{self, SmallInt, Variable};
use crate::definition::{Chain, Operator, TimeUnit, list_slice_bounds, list_slice_length};
use crate::error::Error;
use crate::fitted::Fitted;
use crate::folds::BatchFolds;
use crate::program::{self, Expression, Scratch};
use crate::workflow::InputColumn;

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

fn arrow_unit(unit: TimeUnit) -> ArrowUnit {
    match unit {
        TimeUnit::S => ArrowUnit::Second,
        TimeUnit::Ms => ArrowUnit::Millisecond,
        TimeUnit::Us => ArrowUnit::Microsecond,
        TimeUnit::Ns => ArrowUnit::Nanosecond,
    }
}

fn convert(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Error> {
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
    let options =
        arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(
        |error| Error::Definition {
            column: "(all)".to_owned(),
            message: error.to_string(),
        },
    )
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

/// Finds and converts a column of a batch.
pub(crate) fn ingest(batch: &RecordBatch, name: &str) -> Result<Ingested, Error> {
    match batch.column_by_name(name) {
        Some(array) => Ingested::new(name, array),
        None => Err(Error::MissingColumn {
            column: name.to_owned(),
            given: batch
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// The folds of a batch's rows as a column.
pub(crate) fn fold_column(folds: &[i32]) -> Result<Ingested, Error> {
    let array: ArrayRef = Arc::new(Int32Array::from(folds.to_vec()));
    Ingested::new("__fold__", &array)
}

/// Applies a chain's operators before `until`; with `folds`, as for the rows that were fitted on.
pub(crate) fn apply_chain(
    chain: &Chain,
    fitted: &[Fitted],
    until: usize,
    batch: &RecordBatch,
    folds: Option<&BatchFolds>,
) -> Result<Vec<Ingested>, Error> {
    let mut columns = chain
        .columns
        .iter()
        .map(|name| ingest(batch, name))
        .collect::<Result<Vec<_>, _>>()?;
    for (operator, fitted) in chain.operators.iter().zip(fitted).take(until) {
        columns = apply_operator(operator, fitted, columns, batch, folds)?;
    }
    Ok(columns)
}

fn apply_operator(
    operator: &Operator,
    fitted: &Fitted,
    mut columns: Vec<Ingested>,
    batch: &RecordBatch,
    folds: Option<&BatchFolds>,
) -> Result<Vec<Ingested>, Error> {
    let variables: Vec<Variable> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| column.variable(index))
        .collect();
    let mut side_columns = Vec::new();
    if let Operator::DifferenceLag { partition, .. } = operator {
        for name in partition {
            side_columns.push(ingest(batch, name)?);
        }
    }
    let mut in_fold = false;
    if let Operator::TargetEncoding {
        kfold, fold_seed, ..
    } = operator
        && let Some(folds) = folds.and_then(|folds| folds.of((*kfold, *fold_seed)))
    {
        side_columns.push(fold_column(folds)?);
        in_fold = true;
    }
    let first_side = columns.len();
    let side_variable = |name: &str| {
        let mut columns = (first_side..).zip(&side_columns);
        columns
            .find(|(_, column)| column.name == name)
            .map(|(index, column)| column.variable(index))
            .ok_or_else(|| Error::MissingColumn {
                column: name.to_owned(),
                given: "none".to_owned(),
            })
    };
    let fold = side_columns.first().filter(|_| in_fold);
    let fold = fold.map(|column| column.variable(first_side));
    let outputs = compile::compile(operator, fitted, &variables, &side_variable, fold.as_ref())?;
    if let Operator::ListSlice {
        start,
        end,
        pad,
        pad_value,
    } = operator
    {
        return columns
            .iter()
            .map(|column| slice_lists(column, *start, *end, pad.then_some(*pad_value)))
            .collect();
    }
    columns.extend(side_columns);
    let strings: Vec<Vec<&[u8]>> = columns.iter().map(Ingested::strings).collect();
    let booleans: Vec<Vec<bool>> = columns.iter().map(Ingested::booleans).collect();
    let inputs: Vec<Column<'_>> = columns
        .iter()
        .zip(&strings)
        .zip(&booleans)
        .map(|((column, strings), booleans)| column.column(strings, booleans))
        .collect();
    let mut scratch = Scratch::default();
    outputs
        .into_iter()
        .map(|variable| {
            if let Expression::Input(index) = variable.expression
                && let Some(column) = columns.get(index)
            {
                return Ok(Ingested {
                    name: variable.name,
                    ..column.clone()
                });
            }
            let shape = Shape::of(&variable, &columns)?;
            let elements = evaluate(&variable, shape.elements, &inputs, &mut scratch);
            let elements = match variable.small {
                Some(SmallInt::Int8) => convert(&variable.name, &elements, &DataType::Int8)?,
                Some(SmallInt::Int16) => convert(&variable.name, &elements, &DataType::Int16)?,
                None => elements,
            };
            let elements = match variable.datetime.map(arrow_unit) {
                Some(unit) => convert(&variable.name, &elements, &DataType::Timestamp(unit, None))?,
                None => elements,
            };
            let array = match shape.lists {
                Some((offsets, nulls)) => Arc::new(ListArray::new(
                    Arc::new(Field::new("item", elements.data_type().clone(), true)),
                    offsets,
                    elements,
                    nulls,
                )),
                None => elements,
            };
            Ingested::new(&variable.name, &array)
        })
        .collect()
}

/// How many elements an output column has, and the lists that they form.
struct Shape {
    elements: usize,
    lists: Option<(OffsetBuffer<i32>, Option<NullBuffer>)>,
}

impl Shape {
    /// The shape of the columns that `variable` reads: the columns of a chain may hold lists of different lengths.
    ///
    /// # Errors
    /// It reads several columns, and their lists differ, or some hold lists and others do not.
    fn of(variable: &Variable, columns: &[Ingested]) -> Result<Self, Error> {
        let mut read = program::inputs(&variable.expression)
            .into_iter()
            .filter_map(|index| columns.get(index));
        let Some(first) = read.next() else {
            return Ok(Self {
                elements: 0,
                lists: None,
            });
        };
        let offsets = |column: &Ingested| column.lists.as_ref().map(|(offsets, _)| offsets.clone());
        let mut nulls = (first.lists.as_ref()).and_then(|(_, nulls)| nulls.clone());
        for other in read {
            if offsets(other) != offsets(first) || other.elements.len() != first.elements.len() {
                return Err(Error::Value {
                    column: format!("{}, {}", first.name, other.name),
                    value: "columns whose rows hold different numbers of values".to_owned(),
                    accepted: "columns with one value a row, or lists of equal lengths".to_owned(),
                });
            }
            let others = other.lists.as_ref().and_then(|(_, nulls)| nulls.as_ref());
            nulls = NullBuffer::union(nulls.as_ref(), others);
        }
        let lists = offsets(first).filter(|_| variable.list);
        Ok(Self {
            elements: first.elements.len(),
            lists: lists.map(|offsets| (offsets, nulls)),
        })
    }
}

fn evaluate(
    variable: &Variable,
    rows: usize,
    inputs: &[Column<'_>],
    scratch: &mut Scratch,
) -> ArrayRef {
    let expression = &variable.expression;
    let nulls = program::mask(expression)
        .and_then(|index| inputs.get(index)?.valid)
        .map(|valid| NullBuffer::new(BooleanBuffer::from(valid)));
    macro_rules! run {
        ($slice:path, $zero:expr, $array:ty) => {{
            let mut values = vec![$zero; rows];
            program::evaluate(expression, inputs, &mut $slice(&mut values), scratch);
            Arc::new(<$array>::new(values.into(), nulls))
        }};
    }
    match variable.dtype {
        DType::Int32 => run!(SliceMut::Int32, 0, Int32Array),
        DType::Int64 => run!(SliceMut::Int64, 0, Int64Array),
        DType::Float32 => run!(SliceMut::Float32, 0.0, Float32Array),
        DType::Float64 => run!(SliceMut::Float64, 0.0, Float64Array),
        // No kernel gives strings.
        DType::Bool | DType::String => run!(SliceMut::Bool, false, BooleanArray),
    }
}

fn slice_lists(
    column: &Ingested,
    start: i64,
    end: Option<i64>,
    pad: Option<f64>,
) -> Result<Ingested, Error> {
    let Some((offsets, nulls)) = &column.lists else {
        return Err(Error::types(&column.name, column.dtype, "lists"));
    };
    let arrow_error = |error| Error::Value {
        column: column.name.clone(),
        value: "a list".to_owned(),
        accepted: format!("lists that can be cut ({error})"),
    };
    let length = list_slice_length(start, end);
    let (start, end) = list_slice_bounds(start, end);
    let mut elements = Arc::clone(&column.elements);
    let padding = elements.len() as u64;
    if let Some(value) = pad {
        let value: ArrayRef = Arc::new(Float64Array::from(vec![value]));
        let value = convert(&column.name, &value, elements.data_type())?;
        elements = concat(&[&elements, &value]).map_err(arrow_error)?;
    }
    let mut indices = Vec::new();
    let mut lengths = Vec::with_capacity(offsets.len());
    for (&first, size) in offsets.iter().zip(offsets.lengths()) {
        let (first, size) = (i64::from(first), size as i64);
        let clamp = |at: i64| {
            if at < 0 {
                (size + at).max(0)
            } else {
                at.min(size)
            }
        };
        let (from, to) = (clamp(start), clamp(end));
        let before = indices.len();
        indices.extend((from..to).map(|at| (first + at) as u64));
        if pad.is_some() {
            indices.resize((before + length.unwrap_or(0)).max(indices.len()), padding);
        }
        lengths.push(indices.len() - before);
    }
    let elements = take(&elements, &UInt64Array::from(indices), None).map_err(arrow_error)?;
    let lists: ArrayRef = Arc::new(ListArray::new(
        Arc::new(Field::new("item", elements.data_type().clone(), true)),
        OffsetBuffer::from_lengths(lengths),
        elements,
        nulls.clone(),
    ));
    Ingested::new(&column.name, &lists)
}

/// Applies all chains: one output column each, in order.
pub(crate) fn apply(
    chains: &[Chain],
    fitted: &[Vec<Fitted>],
    batch: &RecordBatch,
    folds: Option<&BatchFolds>,
) -> Result<RecordBatch, Error> {
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (chain, fitted) in chains.iter().zip(fitted) {
        for column in apply_chain(chain, fitted, usize::MAX, batch, folds)? {
            fields.push(Field::new(
                &column.name,
                column.array.data_type().clone(),
                true,
            ));
            arrays.push(column.array);
        }
    }
    let options =
        arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(
        |error| Error::Definition {
            column: "(all)".to_owned(),
            message: error.to_string(),
        },
    )
}
