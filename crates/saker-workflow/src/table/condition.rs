//! Which rows meet a condition.

use std::cmp::Ordering;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;

use crate::column::DType;
use crate::definition::{Comparison, Condition, Scalar};
use crate::error::Error;
use crate::ingest;

/// One truth value a row.
pub(super) fn evaluate(condition: &Condition, table: &RecordBatch) -> Result<Vec<bool>, Error> {
    let combine = |all: &[Condition], start: bool, join: fn(bool, bool) -> bool| {
        let mut rows = vec![start; table.num_rows()];
        for condition in all {
            for (row, met) in rows.iter_mut().zip(evaluate(condition, table)?) {
                *row = join(*row, met);
            }
        }
        Ok(rows)
    };
    match condition {
        Condition::And(all) => combine(all, true, |a, b| a && b),
        Condition::Or(any) => combine(any, false, |a, b| a || b),
        Condition::Not(one) => Ok(evaluate(one, table)?.into_iter().map(|met| !met).collect()),
        Condition::Compare { column, is, value } => compare(table, column, *is, value),
    }
}

fn compare(
    table: &RecordBatch,
    name: &str,
    is: Comparison,
    value: &Scalar,
) -> Result<Vec<bool>, Error> {
    let column = ingest::ingest(table, name)?;
    if column.lists.is_some() {
        return Err(Error::types(name, "list", "one value a row to compare"));
    }
    if column.datetime {
        return Err(Error::types(
            name,
            "datetime",
            "numbers, strings or bool to compare",
        ));
    }
    let elements = &column.elements;
    let meets = |order: Option<Ordering>| is.meets(order);
    let mismatch = || Error::Value {
        column: name.to_owned(),
        value: match value {
            Scalar::Bool(x) => x.to_string(),
            Scalar::Int(x) => x.to_string(),
            Scalar::Float(x) => x.to_string(),
            Scalar::Text(x) => format!("'{x}'"),
        },
        accepted: format!("a value to compare with a column of {}", column.dtype),
    };
    let converted = |to: &DataType| cast(elements, to).map_err(|_| mismatch());
    Ok(match (column.dtype, value) {
        (DType::String, Scalar::Text(value)) => elements
            .as_string::<i32>()
            .iter()
            .map(|x| meets(x.map(|x| x.cmp(value.as_str()))))
            .collect(),
        (DType::Bool, Scalar::Bool(value)) => elements
            .as_boolean()
            .iter()
            .map(|x| meets(x.map(|x| x.cmp(value))))
            .collect(),
        // Whole numbers are compared as such: a float would round the great ones.
        (DType::Int32 | DType::Int64, Scalar::Int(value)) => converted(&DataType::Int64)?
            .as_primitive::<Int64Type>()
            .iter()
            .map(|x| meets(x.map(|x| x.cmp(value))))
            .collect(),
        (dtype, Scalar::Int(_) | Scalar::Float(_)) if dtype.is_numeric() => {
            let value = match value {
                Scalar::Int(value) => *value as f64,
                Scalar::Float(value) => *value,
                _ => return Err(mismatch()),
            };
            converted(&DataType::Float64)?
                .as_primitive::<Float64Type>()
                .iter()
                .map(|x| meets(x.and_then(|x| x.partial_cmp(&value))))
                .collect()
        }
        _ => return Err(mismatch()),
    })
}
