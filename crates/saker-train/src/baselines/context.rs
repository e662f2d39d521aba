//! Popularity in a context by counting, without a model: recommendations for unknown users by device, hour, and weekday or weekend.

use std::collections::HashMap;
use std::f64::consts::TAU;

use super::{DAY, faded};
use crate::data::{Categorical, Dataset};

/// Settings of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// Index among the categorical columns of the items: the column whose values are counted by device, hour and weekend.
    pub column: usize,
    /// Half-life of a count, in days.
    pub half_life_days: Option<f64>,
    /// Standard deviation, in hours, of the normal weight of other hours of the day.
    pub hours: f64,
}

const HOURS: usize = 24;
/// Name of the context column with the device.
const DEVICE: &str = "device_type";
/// Weight of the prior: the overall shares count like this many interactions in each cell.
const PRIOR: f64 = 10.0;

/// Counts by device, weekend, hour and a column of the items, with each item's share of its column value. It counts the interactions that
/// training uses: positives and weak signs of the training part.
#[derive(Clone, Debug)]
pub struct ContextTable {
    setting: Setting,
    /// The item's value of the column: `[items]`.
    values: Vec<usize>,
    /// The item's share of the counts of its value: `[items]`.
    shares: Vec<f64>,
    /// Share of each value: `[values]`.
    overall: Vec<f64>,
    /// Counts by device and weekend: `[hours, values]`.
    cells: HashMap<(i32, bool), Vec<f64>>,
}

impl ContextTable {
    /// Counts the interactions of the training part.
    pub fn fit(data: &Dataset, setting: Setting) -> Self {
        let interactions = &data.interactions;
        let column = &data.items.categorical[setting.column];
        let values: Vec<usize> = column.codes.iter().map(|code| code as usize).collect();
        let (mut overall, mut of_items) = (vec![0.0; column.cardinality], vec![0.0; values.len()]);
        let mut cells: HashMap<(i32, bool), Vec<f64>> = HashMap::new();
        let device = device(data);
        let weights = faded(data, setting.half_life_days);
        for row in (0..interactions.user.len() as u32).filter(|&row| data.is_learned(row)) {
            let place = row as usize;
            let (item, weight) = (interactions.item[place] as usize, weights[place]);
            let (weekend, hour) = moment(interactions.timestamp[place]);
            let cell = cells
                .entry((device_of(device, row), weekend))
                .or_insert_with(|| vec![0.0; HOURS * column.cardinality]);
            cell[hour as usize * column.cardinality + values[item]] += weight;
            overall[values[item]] += weight;
            of_items[item] += weight;
        }
        let shares = values.iter().zip(of_items);
        let shares = shares
            .map(|(&value, count)| count / overall[value].max(f64::MIN_POSITIVE))
            .collect();
        let all: f64 = overall.iter().sum();
        overall
            .iter_mut()
            .for_each(|count| *count /= all.max(f64::MIN_POSITIVE));
        Self {
            setting,
            values,
            shares,
            overall,
            cells,
        }
    }

    /// Scores of all items at the moment of an interaction's row: `[items]`. They add up to 1.
    pub fn scores(&self, data: &Dataset, row: u32) -> Vec<f32> {
        let (weekend, hour) = moment(data.interactions.timestamp[row as usize]);
        let mut counts: Vec<f64> = self.overall.iter().map(|share| PRIOR * share).collect();
        if let Some(cell) = self.cells.get(&(device_of(device(data), row), weekend)) {
            for (other, of_hour) in cell.chunks_exact(counts.len()).enumerate() {
                // Distance from the middle of that hour, the short way around the clock.
                let apart = (other as f64 + 0.5 - hour).abs();
                let apart = apart.min(HOURS as f64 - apart) / self.setting.hours;
                let weight = (-0.5 * apart * apart).exp() / (self.setting.hours * TAU.sqrt());
                counts
                    .iter_mut()
                    .zip(of_hour)
                    .for_each(|(sum, count)| *sum += weight * count);
            }
        }
        let all: f64 = counts.iter().sum();
        let scores = self.values.iter().zip(&self.shares);
        scores
            .map(|(&value, share)| (counts[value] / all.max(f64::MIN_POSITIVE) * share) as f32)
            .collect()
    }
}

fn device(data: &Dataset) -> Option<&Categorical> {
    data.context.category(DEVICE)
}

fn device_of(device: Option<&Categorical>, row: u32) -> i32 {
    device.map_or(0, |device| device.codes.get(row as usize))
}

/// Whether it is a weekend, and the hour of the day with its fraction, in UTC.
fn moment(time: i32) -> (bool, f64) {
    let time = f64::from(time);
    // The first day of 1970 was a Thursday.
    let weekday = ((time / DAY).floor() + 3.0).rem_euclid(7.0);
    (weekday >= 5.0, time.rem_euclid(DAY) / 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Interactions, Split, Table};

    const HOUR: i32 = 3600;
    /// Thursday, 1 January 1970, is day 0; day 2 is a Saturday.
    const SATURDAY: i32 = 2 * 24 * HOUR;

    fn column(name: &str, codes: Vec<i32>) -> Categorical {
        Categorical {
            name: name.into(),
            cardinality: 5,
            embedding_dim: None,
            cold_start: 2,
            codes: codes.into(),
        }
    }

    /// Items 0 and 1 are of category 3, item 2 of category 4. Phones (device 3) take category 3 at eight on weekdays; tablets
    /// (device 4) take category 4 at twenty-one on Saturdays.
    fn data() -> Dataset {
        let eight = 8 * HOUR + HOUR / 2;
        let late = SATURDAY + 21 * HOUR + HOUR / 2;
        Dataset {
            items: Table {
                rows: 3,
                categorical: vec![column("category", vec![3, 3, 4])],
                ..Table::default()
            },
            context: Table {
                rows: 6,
                categorical: vec![column(DEVICE, vec![3, 3, 3, 4, 4, 4])],
                ..Table::default()
            },
            interactions: Interactions {
                user: vec![0; 6],
                item: vec![0, 0, 1, 2, 2, 0],
                timestamp: vec![eight, eight, eight, late, late, late],
                positive: vec![true; 6],
                weak: Vec::new(),
                split: [vec![Split::Train; 5], vec![Split::Test]].concat(),
            },
            ..Dataset::default()
        }
    }

    #[test]
    fn a_context_has_the_counts_of_its_cell_and_a_prior() {
        let data = data();
        let setting = Setting {
            column: 0,
            half_life_days: None,
            hours: 1.0,
        };
        let table = ContextTable::fit(&data, setting);
        // Three counts of category 3 at the very hour weigh 3 / √(2π); the prior is ten by the shares 3/5 and 2/5. Items 0 and 1
        // have two thirds and one third of their category.
        let near = 3.0 / TAU.sqrt();
        let first = (near + 6.0) / (near + 10.0);
        let expected = [first * 2.0 / 3.0, first / 3.0, 1.0 - first];
        for (found, expected) in table.scores(&data, 0).iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-6,
                "{found} {expected}"
            );
        }
        // The test row is not counted. For its moment, Saturday evening on a tablet, the table prefers category 4.
        let scores = table.scores(&data, 5);
        let second = (2.0 / TAU.sqrt() + 4.0) / (2.0 / TAU.sqrt() + 10.0);
        assert!((f64::from(scores[2]) - second).abs() < 1e-6);
    }

    #[test]
    fn midnight_is_near_and_weekends_begin_on_saturday() {
        assert_eq!(moment(0), (false, 0.0));
        assert!(!moment(SATURDAY - 1).0);
        assert_eq!(moment(SATURDAY + 90 * 60), (true, 1.5));
        assert_eq!(moment(4 * 24 * HOUR), (false, 0.0), "Monday");
        assert_eq!(moment(-HOUR), (false, 23.0), "Wednesday");
    }
}
