//! Operators over the whole table: rows chosen, joined and aggregated, as arrow batches.

mod condition;
mod groupby;
mod join;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::definition::{Definition, TableOperator};
use crate::error::Error;
use crate::files::read_parquet;
use crate::ingest::{self, column};
use crate::operators::Fitted;
use crate::parts::InputColumn;

/// What an operator needs before the first batch.
pub(crate) fn prepare(operator: &TableOperator) -> Result<Fitted, Error> {
    match operator {
        TableOperator::JoinExternal {
            path,
            columns_ext,
            drop_duplicates_ext,
            ..
        } => {
            let table = join::choose(
                path,
                &read_parquet(path)?,
                columns_ext,
                *drop_duplicates_ext,
            )?;
            Ok(Fitted::External(Arc::new(table)))
        }
        _ => Ok(Fitted::Nothing),
    }
}

/// Applies the operators, first to last.
pub(crate) fn apply<'a>(
    operators: &[TableOperator],
    states: &[Fitted],
    batch: &'a RecordBatch,
) -> Result<Cow<'a, RecordBatch>, Error> {
    let mut table = Cow::Borrowed(batch);
    for (operator, state) in operators.iter().zip(states) {
        table = Cow::Owned(apply_one(operator, state, &table)?);
    }
    Ok(table)
}

/// The columns that chains read after the operators of a definition, with the types that these give for columns of the types `inputs`.
pub(crate) fn sources(
    definition: &Definition,
    states: &[Fitted],
    inputs: &[InputColumn],
) -> Result<Vec<InputColumn>, Error> {
    let fields: Vec<Field> = inputs.iter().map(ingest::field).collect();
    let rows = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
    let table = apply(&definition.table, states, &rows)?;
    let names = definition.chain_inputs(false);
    let sources = names
        .iter()
        .map(|name| Ok(ingest::ingest(&table, name)?.described()));
    sources.collect()
}

fn apply_one(
    operator: &TableOperator,
    state: &Fitted,
    table: &RecordBatch,
) -> Result<RecordBatch, Error> {
    match operator {
        TableOperator::Filter { condition } => {
            let kept = condition::evaluate(condition, table)?;
            filter_record_batch(table, &BooleanArray::from(kept))
                .map_err(|error| failed(operator, error))
        }
        TableOperator::Dropna { columns } => {
            let schema = table.schema();
            let names: Vec<&str> = if columns.is_empty() {
                schema.fields().iter().map(|f| f.name().as_str()).collect()
            } else {
                columns.iter().map(String::as_str).collect()
            };
            let mut kept = vec![true; table.num_rows()];
            for name in names {
                let missing = missing(column(table, name)?);
                for (kept, missing) in kept.iter_mut().zip(&missing) {
                    *kept &= !missing;
                }
            }
            filter_record_batch(table, &BooleanArray::from(kept))
                .map_err(|error| failed(operator, error))
        }
        TableOperator::Groupby {
            groupby_cols,
            sort_cols,
            ascending,
            aggs,
            name_sep,
        } => groupby::apply(table, groupby_cols, sort_cols, *ascending, aggs, name_sep)
            .map_err(|error| error.named(operator)),
        TableOperator::JoinExternal {
            on, on_ext, how, ..
        } => {
            let Fitted::External(external) = state else {
                return Err(failed(
                    operator,
                    "the workflow holds no table for it; fit it again",
                ));
            };
            let keys = if on_ext.is_empty() { on } else { on_ext };
            join::apply(table, external, on, keys, *how).map_err(|error| error.named(operator))
        }
    }
}

/// What can go wrong in an operator: an error of ours, or arrow's, which does not know the operator.
enum Failure {
    Ours(Error),
    Arrow(ArrowError),
}

impl Failure {
    fn named(self, operator: &TableOperator) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::Arrow(error) => failed(operator, error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

fn failed(operator: &TableOperator, reason: impl std::fmt::Display) -> Error {
    Error::definition(
        &operator.reads().join(", "),
        &format!("{}: {reason}", operator.name()),
    )
}

/// Which rows hold null or NaN.
fn missing(array: &ArrayRef) -> BooleanBuffer {
    let nulls = array.logical_nulls();
    let null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let nan: Box<dyn Fn(usize) -> bool + '_> = match array.data_type() {
        DataType::Float16 => {
            let values = array.as_primitive::<Float16Type>();
            Box::new(move |row| values.value(row).is_nan())
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            Box::new(move |row| values.value(row).is_nan())
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            Box::new(move |row| values.value(row).is_nan())
        }
        _ => Box::new(|_| false),
    };
    BooleanBuffer::collect_bool(array.len(), |row| null(row) || nan(row))
}
