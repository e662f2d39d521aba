//! The baselines: popularity, popularity in a context, item-item nearest neighbours, EASE.

pub mod context;
mod ease;

use std::collections::HashMap;

use crate::data::{ByUser, Dataset, Split};

pub use ease::Ease;

/// Seconds.
pub(crate) const DAY: f64 = 24.0 * 60.0 * 60.0;

/// Weight of each interaction: 0.5^(age / `half_life_days`) in the training part, with the age before the newest one of the part, or 1
/// without a half-life. Interactions of other parts have 0. `[interactions]`
pub fn faded(data: &Dataset, half_life_days: Option<f64>) -> Vec<f64> {
    let interactions = &data.interactions;
    let rows = || interactions.timestamp.iter().zip(&interactions.split);
    let newest = rows()
        .filter(|(_, split)| **split == Split::Train)
        .map(|(&time, _)| time)
        .max()
        .unwrap_or_default();
    let weight = |(&time, &split): (&i32, &Split)| match (split, half_life_days) {
        (Split::Train, Some(days)) => {
            0.5f64.powf((f64::from(newest) - f64::from(time)) / DAY / days)
        }
        (Split::Train, None) => 1.0,
        _ => 0.0,
    };
    rows().map(weight).collect()
}

/// Popularity as in serving's counters (`trending:*`): every interaction of the training part counts, whatever its kind, and decays.
/// `[items]`
pub fn faded_popularity(data: &Dataset, half_life_days: f64) -> Vec<f32> {
    let mut counts = vec![0.0; data.items.rows];
    for (&item, weight) in data
        .interactions
        .item
        .iter()
        .zip(faded(data, Some(half_life_days)))
    {
        counts[item as usize] += weight;
    }
    counts.into_iter().map(|count| count as f32).collect()
}

/// A history in which each item counts once, at its latest position: an item that was clicked, put into the cart and bought is one sign of
/// the user's taste.
pub fn distinct(history: &[u32]) -> Vec<u32> {
    let mut met = std::collections::HashSet::with_capacity(history.len());
    let mut latest: Vec<u32> = history
        .iter()
        .rev()
        .copied()
        .filter(|item| met.insert(*item))
        .collect();
    latest.reverse();
    latest
}

/// A history's items with their weights: 1 for the newest one, half of it one half-life (in items) earlier. All are 1 without a half-life.
pub fn weighted(
    history: &[u32],
    half_life: Option<f32>,
) -> impl Iterator<Item = (u32, f32)> + Clone {
    let weight = move |age: usize| half_life.map_or(1.0, |half| 0.5f32.powf(age as f32 / half));
    history
        .iter()
        .rev()
        .enumerate()
        .map(move |(age, &item)| (item, weight(age)))
}

/// Number of histories that hold each item: `[items]`.
pub fn popularity<'h>(histories: impl IntoIterator<Item = &'h [u32]>, items: usize) -> Vec<f32> {
    let mut counts = vec![0.0; items];
    for &item in histories.into_iter().flatten() {
        counts[item as usize] += 1.0;
    }
    counts
}

/// Number of histories that hold both items of a pair: row i lists (j, count), j ascending, without i itself.
pub fn cooccurrence<'h>(
    histories: impl IntoIterator<Item = &'h [u32]>,
    items: usize,
) -> Vec<Vec<(u32, u32)>> {
    /// The largest dense matrix of counts: 256 MiB.
    const DENSE: usize = 1 << 26;
    let mut distinct = Vec::new();
    let mut pairs_of = |history: &[u32], count: &mut dyn FnMut(u32, u32)| {
        distinct.clear();
        distinct.extend_from_slice(history);
        distinct.sort_unstable();
        distinct.dedup();
        for &a in &distinct {
            for &b in distinct.iter().filter(|&&b| b != a) {
                count(a, b);
            }
        }
    };
    if items * items <= DENSE {
        let mut counts = vec![0u32; items * items];
        for history in histories {
            pairs_of(history, &mut |a, b| {
                counts[a as usize * items + b as usize] += 1;
            });
        }
        let row = |counts: &[u32]| {
            let numbered = counts.iter().enumerate();
            numbered
                .filter(|(_, count)| **count > 0)
                .map(|(item, &count)| (item as u32, count))
                .collect()
        };
        return counts.chunks(items.max(1)).map(row).collect();
    }
    let mut pairs: Vec<HashMap<u32, u32>> = vec![HashMap::new(); items];
    for history in histories {
        pairs_of(history, &mut |a, b| {
            *pairs[a as usize].entry(b).or_default() += 1;
        });
    }
    pairs
        .into_iter()
        .map(|row| {
            let mut row: Vec<_> = row.into_iter().collect();
            row.sort_unstable();
            row
        })
        .collect()
}

/// Item-item nearest neighbours (Sarwar et al. 2001; Deshpande & Karypis 2004): an item scores the sum of its
/// similarities to the items of the user's history, over the `k` most similar items of each candidate.
#[derive(Clone, Debug)]
pub struct ItemNeighbours {
    /// For each item of a history, the candidates that it is a neighbour of: (candidate, similarity, rank of the item among the candidate's
    /// neighbours).
    speaks_for: Vec<Vec<(u32, f32, u32)>>,
}

impl ItemNeighbours {
    /// Cosine similarity of the items' columns of the user-item matrix: count(a, b) / sqrt(count(a) · count(b)).
    pub fn fit(histories: &ByUser, items: usize) -> Self {
        let counts = popularity(histories.iter(), items);
        let mut speaks_for = vec![Vec::new(); items];
        for (candidate, row) in cooccurrence(histories.iter(), items)
            .into_iter()
            .enumerate()
        {
            let mut similar: Vec<(u32, f32)> = row
                .into_iter()
                .map(|(item, both)| {
                    (
                        item,
                        both as f32 / (counts[candidate] * counts[item as usize]).sqrt(),
                    )
                })
                .collect();
            similar.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            for (place, (item, similarity)) in similar.into_iter().enumerate() {
                speaks_for[item as usize].push((candidate as u32, similarity, place as u32));
            }
        }
        Self { speaks_for }
    }

    /// Scores of all items for a user with this history, each entry with its weight (1 in the plain method): `[items]`.
    pub fn scores(&self, history: impl IntoIterator<Item = (u32, f32)>, k: usize) -> Vec<f32> {
        let mut scores = vec![0.0; self.speaks_for.len()];
        for (item, weight) in history {
            for &(candidate, similarity, place) in &self.speaks_for[item as usize] {
                if (place as usize) < k {
                    scores[candidate as usize] += weight * similarity;
                }
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Interactions, Table};

    #[test]
    fn an_item_counts_once_at_its_latest_place() {
        // Item 7 is clicked, then 8, then 7 is bought.
        assert_eq!(distinct(&[7, 7, 8, 7, 9, 9]), [8, 7, 9]);
        assert!(distinct(&[]).is_empty());
        let weights: Vec<_> = weighted(&[8, 7, 9], Some(1.0)).collect();
        assert_eq!(weights, [(9, 1.0), (7, 0.5), (8, 0.25)]);
        assert!(weighted(&[8, 7], None).all(|(_, weight)| weight == 1.0));
    }

    #[test]
    fn popularity_fades_by_half_in_a_half_life() {
        let interactions = Interactions {
            user: vec![0; 5],
            item: vec![0, 0, 1, 1, 0],
            // Item 0 fourteen and seven days before the newest, item 1 at the newest and then in the test part.
            timestamp: vec![0, 7 * 86_400, 14 * 86_400, 20 * 86_400, 20 * 86_400],
            // A view counts like a purchase.
            positive: vec![true, false, true, true, true],
            weak: Vec::new(),
            split: vec![
                Split::Train,
                Split::Train,
                Split::Train,
                Split::Test,
                Split::Validation,
            ],
        };
        let data = Dataset {
            items: Table {
                rows: 2,
                ..Table::default()
            },
            interactions,
            ..Dataset::default()
        };
        assert_eq!(faded_popularity(&data, 7.0), [0.75, 1.0]);
        assert_eq!(faded(&data, None), [1.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn neighbours_are_the_cosine_of_cooccurrence() {
        let histories: ByUser = [vec![0, 1], vec![0, 1], vec![0, 2], vec![3]]
            .into_iter()
            .collect();
        assert_eq!(popularity(histories.iter(), 5), [3.0, 2.0, 1.0, 1.0, 0.0]);
        assert_eq!(cooccurrence(histories.iter(), 5)[0], [(1, 2), (2, 1)]);
        let neighbours = ItemNeighbours::fit(&histories, 5);
        let scores = neighbours.scores([(0, 1.0)], 10);
        assert!((scores[1] - 2.0 / 6f32.sqrt()).abs() < 1e-6);
        assert!((scores[2] - 1.0 / 3f32.sqrt()).abs() < 1e-6);
        assert_eq!((scores[0], scores[3], scores[4]), (0.0, 0.0, 0.0));
        let nearest = neighbours.scores([(2, 1.0)], 1);
        assert_eq!(nearest[0], 0.0, "item 0 has a nearer neighbour than 2");
    }
}
