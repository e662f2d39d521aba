//! What DataStats records of a column.

use arrow::array::{Array, AsArray};
use rustc_hash::FxHashSet;

use super::accumulator::numbers;
use super::counts::Counts;
use super::keys::{Key, KeyColumn};
use super::moments::Moments;
use crate::column::DType;
use crate::error::Error;
use crate::ingest::Ingested;
use crate::operators::ColumnStatistics;

#[derive(Debug, Default)]
pub(crate) struct Statistics {
    dtype: Option<DType>,
    rows: u64,
    moments: Moments,
    distinct: FxHashSet<Key>,
}

impl Statistics {
    pub(crate) fn update(&mut self, column: &Ingested, counts: Counts<'_>) -> Result<(), Error> {
        let counts = counts.of_elements(column);
        self.dtype = Some(column.dtype);
        self.rows += (0..column.elements.len())
            .map(|row| counts.at(row))
            .sum::<u64>();
        if column.dtype == DType::String {
            // NVTabular takes a text's number of characters.
            let texts = column.elements.as_string::<i32>();
            for (row, text) in texts.iter().enumerate() {
                let length = text.map_or(f64::NAN, |text| text.chars().count() as f64);
                self.moments.add(length, counts.at(row));
            }
        } else {
            for (row, x) in numbers(column)?.into_iter().enumerate() {
                self.moments.add(x, counts.at(row));
            }
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

    pub(crate) fn finish(self) -> ColumnStatistics {
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
