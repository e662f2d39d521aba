//! What a recommender has to beat: popularity, and item-item nearest neighbours.

use std::collections::HashMap;

use crate::data::ByUser;

/// Number of histories that hold each item: `[items]`.
pub fn popularity<'h>(histories: impl IntoIterator<Item = &'h [u32]>, items: usize) -> Vec<f32> {
    let mut counts = vec![0.0; items];
    for &item in histories.into_iter().flatten() {
        counts[item as usize] += 1.0;
    }
    counts
}

/// How many histories hold both items of a pair: row i lists (j, count), j ascending, without i itself.
pub fn cooccurrence<'h>(
    histories: impl IntoIterator<Item = &'h [u32]>,
    items: usize,
) -> Vec<Vec<(u32, u32)>> {
    /// The largest matrix of counts that is kept as such: 256 MiB.
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
    /// For each item of a history, the candidates it speaks for: (candidate, similarity, place of the item among the
    /// candidate's neighbours).
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
