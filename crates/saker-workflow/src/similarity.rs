//! Feature matrices of ColumnSimilarity: sparse, row by row.

use std::path::Path;

use crate::definition::Similarity;
use crate::error::Error;
use crate::vocabulary::{floats, integers, read_table};

/// A sparse matrix, weighted so that the inner product of two rows is their similarity.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Where each row's entries begin, and the end.
    pub(crate) starts: Vec<usize>,
    /// Entries by row, then column: the column and the weight.
    pub(crate) entries: Vec<(i64, f64)>,
}

/// The most rows a matrix may have: what fits into 8 GiB of row starts says that a row number is a slip, not a row.
const MOST_ROWS: i64 = 1 << 30;

impl Features {
    /// A matrix of entries (row, column, value), weighted for the metric. Its number of rows is the greatest row + 1; entries of the same
    /// place are added after the weighting, as SciPy does.
    fn new(entries: &[(i64, i64, f64)], metric: Similarity) -> Self {
        let rows = entries
            .iter()
            .map(|&(row, _, _)| row + 1)
            .max()
            .unwrap_or(0) as usize;
        let mut weighted = entries.to_vec();
        if metric == Similarity::Tfidf {
            let mut uses = rustc_hash::FxHashMap::<i64, f64>::default();
            for (_, column, _) in entries {
                *uses.entry(*column).or_default() += 1.0;
            }
            for (_, column, value) in &mut weighted {
                // Every column has been counted.
                let uses = uses.get(column).copied().unwrap_or(1.0);
                *value *= (rows as f64 / uses).ln();
            }
        }
        if metric != Similarity::Inner {
            let mut squares = vec![0.0; rows];
            for &(row, _, value) in &weighted {
                if let Some(sum) = squares.get_mut(row as usize) {
                    *sum += value * value;
                }
            }
            for (row, _, value) in &mut weighted {
                if let Some(sum) = squares.get(*row as usize) {
                    *value /= sum.sqrt();
                }
            }
        }
        weighted.sort_by_key(|&(row, column, _)| (row, column));
        weighted.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            if same {
                kept.2 += next.2;
            }
            same
        });
        let mut starts = vec![0; rows + 1];
        for &(row, _, _) in &weighted {
            if let Some(entries) = starts.get_mut(row as usize + 1) {
                *entries += 1;
            }
        }
        let mut before = 0;
        for start in &mut starts {
            before += *start;
            *start = before;
        }
        Self {
            starts,
            entries: weighted.iter().map(|&(_, c, v)| (c, v)).collect(),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    fn row(&self, row: i64) -> &[(i64, f64)] {
        let bounds = usize::try_from(row).ok().and_then(|row| {
            Some((
                *self.starts.get(row)?,
                *self.starts.get(row.checked_add(1)?)?,
            ))
        });
        bounds
            .and_then(|(from, to)| self.entries.get(from..to))
            .unwrap_or_default()
    }

    /// The inner product of a row with a row of another matrix; 0 where either matrix has no such row.
    pub fn inner(&self, row: i64, other: &Self, other_row: i64) -> f64 {
        let (mut left, mut right) = (self.row(row), other.row(other_row));
        let mut sum = 0.0;
        while let (Some(((a, x), after_a)), Some(((b, y), after_b))) =
            (left.split_first(), right.split_first())
        {
            if a == b {
                sum += x * y;
            }
            if a <= b {
                left = after_a;
            }
            if b <= a {
                right = after_b;
            }
        }
        sum
    }

    /// Reads a parquet file of entries: integer columns `row` and `column`, numeric `value`.
    pub(crate) fn read(path: &Path, metric: Similarity) -> Result<Self, Error> {
        let table = read_table(path)?;
        let column = |name: &str| {
            let values = table.column(name).cloned();
            values
                .map_err(|_| Error::file(path, "expected the columns 'row', 'column' and 'value'"))
        };
        let nulls = |name: &str| Error::file(path, format!("column '{name}' holds nulls"));
        let whole = |name: &str| -> Result<Vec<i64>, Error> {
            let values = integers(path, name, column(name)?)?.into_iter();
            values.collect::<Option<_>>().ok_or_else(|| nulls(name))
        };
        let (rows, columns) = (whole("row")?, whole("column")?);
        let values = floats(path, "value", column("value")?)?.into_iter();
        let values: Vec<f64> = values
            .collect::<Option<_>>()
            .ok_or_else(|| nulls("value"))?;
        let entries = rows.into_iter().zip(columns).zip(values);
        let entries: Vec<(i64, i64, f64)> = entries
            .map(|((row, column), value)| (row, column, value))
            .collect();
        if let Some((row, _, _)) =
            (entries.iter()).find(|(row, _, _)| !(0..MOST_ROWS).contains(row))
        {
            return Err(Error::file(
                path,
                format!("row {row} is not accepted: rows lie in 0..{MOST_ROWS}"),
            ));
        }
        Ok(Self::new(&entries, metric))
    }
}
