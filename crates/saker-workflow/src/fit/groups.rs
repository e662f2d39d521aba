//! Statistics by key: what JoinGroupby and TargetEncoding look up.

use rustc_hash::FxHashMap;

use super::accumulator::numbers;
use super::counts::Counts;
use super::keys::{KeyRow, key_columns, table_keys};
use super::moments::Moments;
use crate::column::DType;
use crate::error::Error;
use crate::ingest::Ingested;
use crate::operators::grouped;
use crate::parameters::{Grouping, Statistic, joined_statistics};
use crate::vocabulary::GroupTable;

/// The groups of one key.
#[derive(Debug)]
pub(crate) struct Groups {
    name: String,
    columns: Vec<(String, bool)>,
    rows: FxHashMap<KeyRow, usize>,
    counts: Vec<u64>,
    /// Per aggregated column: whether it is float32, and the moments by row.
    moments: Vec<(bool, Vec<Moments>)>,
}

impl Groups {
    /// Takes the values of a batch into the groups of each key.
    pub(crate) fn update_all(
        groups: &mut Vec<Self>,
        group: Grouping,
        columns: &[Ingested],
        values: &[Ingested],
        counts: Counts<'_>,
    ) -> Result<(), Error> {
        let keys = grouped(group, columns);
        if groups.is_empty() {
            groups.extend(
                keys.iter()
                    .map(|(name, members)| Self::new(name, members, values)),
            );
        }
        for (group, (_, members)) in groups.iter_mut().zip(keys) {
            group.update(members, values, counts)?;
        }
        Ok(())
    }

    pub(crate) fn new(name: &str, members: &[Ingested], values: &[Ingested]) -> Self {
        Self {
            name: name.to_owned(),
            columns: members
                .iter()
                .map(|c| (c.name.clone(), c.dtype == DType::String))
                .collect(),
            rows: FxHashMap::default(),
            counts: Vec::new(),
            moments: values
                .iter()
                .map(|c| (c.dtype == DType::Float32, Vec::new()))
                .collect(),
        }
    }

    pub(crate) fn update(
        &mut self,
        members: &[Ingested],
        values: &[Ingested],
        counts: Counts<'_>,
    ) -> Result<(), Error> {
        if let Some(list) = members.iter().chain(values).find(|c| c.lists.is_some()) {
            return Err(Error::types(&list.name, "list", "one value a row"));
        }
        let keys = key_columns(members)?;
        let values = values.iter().map(numbers).collect::<Result<Vec<_>, _>>()?;
        for row in 0..members.first().map_or(0, |c| c.elements.len()) {
            let key = keys.iter().map(|column| column.get(row)).collect();
            let place = *self.rows.entry(key).or_insert_with(|| {
                self.counts.push(0);
                for (_, moments) in &mut self.moments {
                    moments.push(Moments::default());
                }
                self.counts.len() - 1
            });
            if let Some(count) = self.counts.get_mut(place) {
                *count += counts.at(row);
            }
            for ((_, moments), values) in self.moments.iter_mut().zip(&values) {
                if let (Some(moments), Some(&value)) = (moments.get_mut(place), values.get(row)) {
                    moments.add(value, counts.at(row));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self, aggregated: &[String], stats: &[Statistic]) -> GroupTable {
        // In the order of the keys, so that a fit is reproducible.
        let mut rows: Vec<(KeyRow, usize)> = self.rows.into_iter().collect();
        rows.sort_unstable();
        let values = joined_statistics(&self.name, aggregated, stats)
            .into_iter()
            .map(|(name, (column, statistic))| {
                let column = column.and_then(|column| self.moments.get(column));
                let single = column.is_some_and(|(single, _)| *single);
                let value = |place: usize| {
                    let moments = column.and_then(|(_, moments)| moments.get(place));
                    match (statistic, moments) {
                        (Statistic::Count, _) => {
                            let count = self.counts.get(place).copied();
                            count.unwrap_or_default() as f64
                        }
                        (_, None) => f64::NAN,
                        (Statistic::Sum, Some(moments)) => moments.sum(),
                        (Statistic::Mean, Some(moments)) => moments.mean().unwrap_or(f64::NAN),
                        (Statistic::Var, Some(moments)) => moments.variance(),
                        (Statistic::Std, Some(moments)) => moments.variance().sqrt(),
                        (Statistic::Min, Some(moments)) if moments.count > 0 => moments.min,
                        (Statistic::Max, Some(moments)) if moments.count > 0 => moments.max,
                        (Statistic::Min | Statistic::Max, Some(_)) => f64::NAN,
                    }
                };
                let single =
                    single && matches!(statistic, Statistic::Sum | Statistic::Min | Statistic::Max);
                (name, single, rows.iter().map(|(_, p)| value(*p)).collect())
            })
            .collect();
        let keys: Vec<KeyRow> = rows.into_iter().map(|(keys, _)| keys).collect();
        GroupTable::new(table_keys(&self.columns, &keys), values)
    }
}
