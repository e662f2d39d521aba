//! What requests are told apart by in an evaluation: the hour, and every input of a request that has few values.

use std::collections::BTreeSet;

use crate::table;
use anyhow::{Context, Result};
use saker_pipeline::{ColumnType, Pipeline};
use saker_serving::layout::Layout;
use saker_train::data::Dataset;
use saker_train::evaluate::Grouping;

const TIMESTAMP: &str = "timestamp";
/// More values than these make no plot.
const VALUES: usize = 32;

/// The hour of the day (UTC), and the integer columns of `[context]` that the data holds.
///
/// # Errors
/// The prepared data cannot be read.
pub fn groupings<'a>(
    pipeline: &Pipeline,
    layout: &Layout,
    data: &'a Dataset,
) -> Result<Vec<Grouping<'a>>> {
    let times = &data.interactions.timestamp;
    let mut groupings = vec![Grouping {
        name: "hour".into(),
        value: Box::new(|row| Some((times[row as usize].rem_euclid(86_400) / 3600).to_string())),
    }];
    let path = layout.data("interactions");
    let there = table::columns(&path).context("run `saker prepare`")?;
    for column in &pipeline.context.columns {
        let name = column.name.as_str();
        if name == TIMESTAMP
            || column.kind != ColumnType::Int32
            || !there.iter().any(|of| of == name)
        {
            continue;
        }
        let mut values: Vec<i32> = Vec::with_capacity(times.len());
        let mut distinct: BTreeSet<i32> = BTreeSet::new();
        for rows in table::stream(&path, &[name])? {
            let rows = rows?;
            let part = table::int32s(&rows, name)?;
            values.extend_from_slice(part);
            if distinct.len() <= VALUES {
                distinct.extend(part);
            }
        }
        if distinct.len() > 1 && distinct.len() <= VALUES {
            groupings.push(Grouping {
                name: name.to_owned(),
                value: Box::new(move |row| Some(values[row as usize].to_string())),
            });
        }
    }
    Ok(groupings)
}
