//! What DataStats records of a column.

use arrow::array::{Array, AsArray};
use rustc_hash::FxHashSet;

use super::keys::{Key, KeyColumn};
use super::moments::Moments;
use super::numbers;
use crate::bulk::Ingested;
use crate::column::DType;
use crate::error::Error;
use crate::fitted::ColumnStatistics;

#[derive(Debug, Default)]
pub(super) struct Statistics {
    dtype: Option<DType>,
    rows: u64,
    moments: Moments,
    distinct: FxHashSet<Key>,
}

impl Statistics {
    pub(super) fn update(&mut self, column: &Ingested) -> Result<(), Error> {
        self.dtype = Some(column.dtype);
        self.rows += column.elements.len() as u64;
        if column.dtype == DType::String {
            // NVTabular takes a text's number of characters.
            let texts = column.elements.as_string::<i32>();
            for text in texts.iter().flatten() {
                self.moments.add(text.chars().count() as f64);
            }
        } else {
            numbers(column)?
                .into_iter()
                .for_each(|x| self.moments.add(x));
        }
        if !matches!(column.dtype, DType::Float32 | DType::Float64) {
            let keys = KeyColumn::new(column)?;
            for row in 0..column.elements.len() {
                let key = keys.get(row);
                if key != Key::Null && !self.distinct.contains(&key) {
                    self.distinct.insert(key);
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> ColumnStatistics {
        let Self {
            dtype,
            rows,
            moments,
            distinct,
        } = self;
        let dtype = dtype.unwrap_or(DType::Float64);
        let any = moments.count > 0;
        let std = moments.variance().sqrt();
        ColumnStatistics {
            dtype,
            min: any.then_some(moments.min),
            max: any.then_some(moments.max),
            mean: moments.mean(),
            std: std.is_finite().then_some(std),
            per_nan: if rows == 0 {
                0.0
            } else {
                100.0 * (1.0 - moments.count as f64 / rows as f64)
            },
            cardinality: (!matches!(dtype, DType::Float32 | DType::Float64))
                .then_some(distinct.len() as u64),
        }
    }
}
