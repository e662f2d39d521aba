//! One row of the rows that share a key.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Int32Array, ListArray, UInt32Array, make_comparator,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortColumn, SortOptions, cast, lexsort_to_indices, nullif, take};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use rustc_hash::FxHashMap;

use super::{Failure, missing};
use crate::definition::Aggregation;
use crate::error::Error;
use crate::ingest::column;

pub(super) fn apply(
    table: &RecordBatch,
    keys: &[String],
    sort: &[String],
    ascending: bool,
    aggs: &BTreeMap<String, Vec<Aggregation>>,
    name_sep: &str,
) -> Result<RecordBatch, Failure> {
    let order = sorted(table, sort, ascending)?;
    let groups = groups(table, keys, &order)?;
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let firsts =
        UInt32Array::from_iter_values(groups.iter().filter_map(|rows| rows.first().copied()));
    for key in keys {
        let array = take(column(table, key)?, &firsts, None)?;
        fields.push(Field::new(key, array.data_type().clone(), true));
        arrays.push(array);
    }
    for (name, aggs) in aggs {
        let source = column(table, name)?;
        if source.data_type().is_nested() {
            return Err(
                Error::types(name, source.data_type(), "one value a row to aggregate").into(),
            );
        }
        for agg in aggs {
            let array = aggregate(name, source, &groups, *agg, ascending)?;
            let name = format!("{name}{name_sep}{}", agg.name());
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// The rows' numbers in the order of the sort, equal ones as they stood, missing values last.
fn sorted(table: &RecordBatch, sort: &[String], ascending: bool) -> Result<Vec<u32>, Failure> {
    let rows = UInt32Array::from_iter_values(0..table.num_rows() as u32);
    if sort.is_empty() {
        return Ok(rows.values().to_vec());
    }
    let mut columns = Vec::new();
    for name in sort {
        let array = column(table, name)?;
        columns.push(SortColumn {
            // NaN as null: arrow would take it for the greatest number.
            values: nullif(array, &missing(array).into())?,
            options: Some(SortOptions {
                descending: !ascending,
                nulls_first: false,
            }),
        });
    }
    columns.push(SortColumn {
        values: Arc::new(rows),
        options: None,
    });
    Ok(lexsort_to_indices(&columns, None)?.values().to_vec())
}

/// The rows of each key, in the order of the keys.
fn groups(table: &RecordBatch, keys: &[String], order: &[u32]) -> Result<Vec<Vec<u32>>, Failure> {
    let columns = keys
        .iter()
        .map(|key| column(table, key).cloned())
        .collect::<Result<Vec<_>, _>>()?;
    let fields = columns
        .iter()
        .map(|array| SortField::new(array.data_type().clone()))
        .collect();
    let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
    let missing: Vec<_> = columns.iter().map(missing).collect();
    let mut places: FxHashMap<&[u8], usize> = FxHashMap::default();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for &row in order {
        let at = row as usize;
        if missing.iter().any(|missing| missing.value(at)) {
            continue;
        }
        let place = *places.entry(rows.row(at).data()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.push(row);
        }
    }
    let key = |group: &Vec<u32>| group.first().map(|&row| rows.row(row as usize));
    groups.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok(groups)
}

fn aggregate(
    name: &str,
    source: &ArrayRef,
    groups: &[Vec<u32>],
    agg: Aggregation,
    ascending: bool,
) -> Result<ArrayRef, Failure> {
    let missing = missing(source);
    let present = |rows: &[u32]| -> Vec<u32> {
        let rows = rows.iter().copied();
        rows.filter(|&row| !missing.value(row as usize)).collect()
    };
    let pick = |pick: &dyn Fn(&[u32]) -> Option<u32>| {
        let rows: UInt32Array = groups.iter().map(|rows| pick(rows)).collect();
        take(source, &rows, None)
    };
    let count = |count: &dyn Fn(Vec<u32>) -> Result<usize, Failure>| {
        let counts = groups.iter().map(|rows| Ok(count(present(rows))? as i32));
        let counts = counts.collect::<Result<Vec<_>, Failure>>()?;
        Ok::<ArrayRef, Failure>(Arc::new(Int32Array::from(counts)))
    };
    let number = |of: &dyn Fn(&[f64]) -> f64| {
        if !source.data_type().is_numeric() && source.data_type() != &DataType::Boolean {
            let error = Error::types(name, source.data_type(), "a numeric type to aggregate");
            return Err(Failure::from(error));
        }
        let numbers = cast(source, &DataType::Float64)?;
        let numbers = arrow::array::AsArray::as_primitive::<Float64Type>(&numbers);
        let values = groups.iter().map(|rows| {
            let rows = present(rows).into_iter();
            of(&rows
                .map(|row| numbers.value(row as usize))
                .collect::<Vec<_>>()) as f32
        });
        Ok(Arc::new(Float32Array::from_iter_values(values)) as ArrayRef)
    };
    let comparator = || make_comparator(source, source, SortOptions::default());
    let extreme = |wanted: Ordering| -> Result<ArrayRef, Failure> {
        let compare = comparator()?;
        Ok(pick(&|rows| {
            present(rows).into_iter().reduce(|best, row| {
                let order = compare(row as usize, best as usize);
                if order == wanted { row } else { best }
            })
        })?)
    };
    Ok(match agg {
        Aggregation::List => {
            let rows = UInt32Array::from_iter_values(groups.iter().flatten().copied());
            Arc::new(ListArray::try_new(
                Arc::new(Field::new("item", source.data_type().clone(), true)),
                OffsetBuffer::from_lengths(groups.iter().map(Vec::len)),
                take(source, &rows, None)?,
                None,
            )?)
        }
        // By the order of the sort, whichever way the rows were sorted.
        Aggregation::First if ascending => pick(&|rows| rows.first().copied())?,
        Aggregation::Last if !ascending => pick(&|rows| rows.first().copied())?,
        Aggregation::First | Aggregation::Last => pick(&|rows| rows.last().copied())?,
        Aggregation::Min => extreme(Ordering::Less)?,
        Aggregation::Max => extreme(Ordering::Greater)?,
        Aggregation::Count => count(&|rows| Ok(rows.len()))?,
        Aggregation::Nunique => {
            let fields = vec![SortField::new(source.data_type().clone())];
            let rows = RowConverter::new(fields)?.convert_columns(std::slice::from_ref(source))?;
            count(&|group| {
                let values = group.iter().map(|&row| rows.row(row as usize).data());
                Ok(values.collect::<BTreeSet<_>>().len())
            })?
        }
        Aggregation::Sum => number(&|x| x.iter().sum())?,
        Aggregation::Mean => number(&mean)?,
        Aggregation::Var => number(&variance)?,
        Aggregation::Std => number(&|x| variance(x).sqrt())?,
        Aggregation::Median => number(&median)?,
    })
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// One delta degree of freedom; NaN of fewer than two values.
fn variance(x: &[f64]) -> f64 {
    let mean = mean(x);
    let squares: f64 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
    if x.len() < 2 {
        f64::NAN
    } else {
        squares / (x.len() - 1) as f64
    }
}

fn median(x: &[f64]) -> f64 {
    let mut x = x.to_vec();
    x.sort_unstable_by(f64::total_cmp);
    let upper = x.get(x.len() / 2);
    let lower = x.get(x.len().saturating_sub(1) / 2);
    match (lower, upper) {
        (Some(lower), Some(upper)) if x.len().is_multiple_of(2) => (lower + upper) / 2.0,
        (_, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}
