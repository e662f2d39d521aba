//! The breakdowns of an evaluation: the hour, and every request input with few distinct values.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use saker_pipeline::{ColumnType, Pipeline};
use saker_prepare::table;
use saker_serving::layout::Layout;
use saker_train::data::Dataset;
use saker_train::evaluate::Grouping;

const TIMESTAMP: &str = "timestamp";
/// Maximum number of distinct values for a plot.
const VALUES: usize = 32;

/// Breakdowns by hour of the day (UTC) and by the integer columns of `[context]` that exist in the data.
///
/// # Errors
/// Returns an error if the prepared data cannot be read.
pub fn breakdowns<'a>(
    pipeline: &Pipeline,
    layout: &Layout,
    data: &'a Dataset,
) -> Result<Vec<Grouping<'a>>> {
    let times = &data.interactions.timestamp;
    let mut breakdowns = vec![Grouping {
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
            breakdowns.push(Grouping {
                name: name.to_owned(),
                value: Box::new(move |row| Some(values[row as usize].to_string())),
            });
        }
    }
    Ok(breakdowns)
}
