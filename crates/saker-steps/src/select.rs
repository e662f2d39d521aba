//! Chooses and orders the returned candidates. Used by `softmax_sampling` and the fused step.

use std::sync::atomic::{self, AtomicU64};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp1};
use serde::Deserialize;
use triton_backend::Error;

/// How sharply diversity mode prefers high scores: an item's weight is exp(`SHARPNESS` · score).
pub const SHARPNESS: f64 = 20.0;

/// The parameters in config.pbtxt that control the choice. The README of `softmax_sampling` describes each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    #[serde(default = "ten")]
    ranking_topk: usize,
    #[serde(default)]
    diversity_mode: bool,
    #[serde(default)]
    seed: Option<u64>,
}

fn ten() -> usize {
    10
}

/// The rule by which a model chooses items.
pub struct Choice {
    k: usize,
    diversity: bool,
    seed: Option<u64>,
    instances: AtomicU64,
}

impl Choice {
    /// Creates the rule from the parameters.
    ///
    /// # Errors
    /// Returns an error if the number of items to choose is 0.
    pub fn new(parameters: &Parameters) -> Result<Self, Error> {
        if parameters.ranking_topk == 0 {
            return Err(Error::invalid_argument(
                "parameter RANKING_TOPK = '0'; accepted: 1 or more",
            ));
        }
        Ok(Self {
            k: parameters.ranking_topk,
            diversity: parameters.diversity_mode,
            seed: parameters.seed,
            instances: AtomicU64::new(0),
        })
    }

    /// Creates the state of an instance. The n-th instance seeds its random numbers with the seed + n.
    pub fn worker(&self) -> Worker {
        let instance = self.instances.fetch_add(1, atomic::Ordering::Relaxed);
        Worker {
            random: match self.seed {
                Some(seed) => StdRng::seed_from_u64(seed.wrapping_add(instance)),
                None => StdRng::from_rng(&mut rand::rng()),
            },
            candidates: Vec::new(),
        }
    }
}

/// A random generator and a reusable buffer.
pub struct Worker {
    random: StdRng,
    candidates: Vec<Candidate>,
}

impl Worker {
    /// The indices in `scores` of the chosen items, best first. `is_candidate` says which indices may be chosen.
    pub fn choose(
        &mut self,
        choice: &Choice,
        scores: &[f32],
        is_candidate: impl Fn(usize) -> bool,
    ) -> impl ExactSizeIterator<Item = usize> {
        let key = |&score: &f32| {
            if choice.diversity {
                key(score, &mut self.random)
            } else {
                f64::from(score)
            }
        };
        // A key is drawn for every score, so that the draw does not depend on which indices are candidates.
        let keys = scores.iter().map(key).zip(0..);
        let keys = keys.filter(|&(_, position)| is_candidate(position));
        self.candidates.clear();
        self.candidates
            .extend(keys.map(|(key, position)| Candidate::new(key, position)));
        first(&mut self.candidates, choice.k);
        self.candidates.iter().map(|candidate| candidate.position())
    }
}

/// An index and its sort key: the largest key first, NaN last, equal keys by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate(u128);

impl Candidate {
    /// The candidate at this index.
    pub fn new(key: f64, position: usize) -> Self {
        let place = if key.is_nan() {
            u64::MAX
        } else {
            // The bits of a positive float rise with its value; those of a negative float rise as it falls. Adding 0 turns -0 into 0.
            let bits = (key + 0.0).to_bits();
            if bits >> 63 == 0 {
                !bits ^ 1 << 63
            } else {
                bits
            }
        };
        Self(u128::from(place) << 64 | position as u128)
    }

    /// The index of the candidate.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// Cuts candidates to the first `k` in order, and sorts these.
///
/// Linear in the number of candidates: only the answer is sorted.
pub fn first(candidates: &mut Vec<Candidate>, k: usize) {
    if k == 0 {
        candidates.clear();
        return;
    }
    if k < candidates.len() {
        candidates.select_nth_unstable(k - 1);
        candidates.truncate(k);
    }
    candidates.sort_unstable();
}

/// A random key for a score. If every score gets a key, the `k` largest keys are a sample of `k` items without replacement. The
/// probabilities are proportional to exp([`SHARPNESS`] · score), and the keys' order is the order of the draw.
///
/// A score of infinity comes first, minus infinity comes after all numbers, and NaN comes last.
///
/// # Source
///
/// Efraimidis & Spirakis, "Weighted random sampling with a reservoir", 2006: the items with the smallest E/w are chosen. E is exponentially
/// distributed, w is the weight. This function returns the negative logarithm, `SHARPNESS · score - ln E`, so that no weight overflows.
pub fn key(score: f32, random: &mut impl Rng) -> f64 {
    let exponential: f64 = Exp1.sample(random);
    SHARPNESS * f64::from(score) - exponential.ln()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn top(scores: &[f32], k: usize) -> Vec<usize> {
        of_keys(scores.iter().map(|score| f64::from(*score)), k)
    }

    fn draw(scores: &[f32], random: &mut StdRng, k: usize) -> Vec<usize> {
        of_keys(scores.iter().map(|score| key(*score, random)), k)
    }

    fn of_keys(keys: impl Iterator<Item = f64>, k: usize) -> Vec<usize> {
        let candidates = keys.zip(0..).map(|(key, at)| Candidate::new(key, at));
        let mut candidates = candidates.collect();
        first(&mut candidates, k);
        candidates.into_iter().map(Candidate::position).collect()
    }

    #[test]
    fn candidates_are_ordered_as_numbers_are() {
        let tiny = f64::from_bits(1);
        let keys = [
            (f64::INFINITY, 0),
            (f64::MAX, 1),
            (1.5, 2),
            (1.0, 3),
            (f64::MIN_POSITIVE, 4),
            (tiny, 5),
            (0.0, 6),
            (-0.0, 6),
            (-tiny, 7),
            (-1.0, 8),
            (f64::MIN, 9),
            (f64::NEG_INFINITY, 10),
            (f64::NAN, 11),
            (-f64::NAN, 11),
            (f64::from_bits(u64::MAX >> 1), 11),
        ];
        for (key, place) in keys {
            assert_eq!(Candidate::new(key, usize::MAX).position(), usize::MAX);
            for (other, place_of_other) in keys {
                for (at, other_at) in [(0, 1), (1, 0), (7, 7), (usize::MAX, 0)] {
                    assert_eq!(
                        Candidate::new(key, at).cmp(&Candidate::new(other, other_at)),
                        (place, at).cmp(&(place_of_other, other_at)),
                        "{key} at {at}, {other} at {other_at}"
                    );
                }
            }
        }
    }

    #[test]
    fn padding_is_never_chosen_and_does_not_change_a_draw() {
        let choose = |diversity: bool, is_candidate: fn(usize) -> bool| {
            let choice = Choice::new(&Parameters {
                ranking_topk: 3,
                diversity_mode: diversity,
                seed: Some(5),
            });
            let choice = choice.unwrap();
            let scores = [0.4, 0.1, 0.4, f32::NAN, 0.9, 0.3];
            let mut worker = choice.worker();
            let chosen = worker.choose(&choice, &scores, is_candidate);
            chosen.collect::<Vec<_>>()
        };
        assert_eq!(choose(false, |_| true), [4, 0, 2]);
        assert_eq!(choose(false, |position| position != 4), [0, 2, 5]);
        assert_eq!(choose(false, |position| position == 3), [3]);
        assert_eq!(choose(false, |_| false), [0usize; 0]);
        let all = choose(true, |_| true);
        assert_eq!(choose(true, |position| position != 3), all);
    }

    #[test]
    fn best_first_with_ties_in_order() {
        assert_eq!(top(&[0.1, 0.9, 0.5, 0.9, 0.5], 4), [1, 3, 2, 4]);
        assert_eq!(top(&[0.0, -0.0, 0.0], 3), [0, 1, 2]);
        assert_eq!(top(&[0.5; 100], 5), [0, 1, 2, 3, 4]);
        assert_eq!(top(&[0.3], 10), [0]);
        assert_eq!(top(&[], 10), [0usize; 0]);
        assert_eq!(top(&[0.3], 0), [0usize; 0]);
    }

    #[test]
    fn nan_is_last_and_infinities_are_numbers() {
        let scores = [
            f32::NAN,
            0.2,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            0.7,
        ];
        assert_eq!(top(&scores, 6), [2, 5, 1, 3, 0, 4]);
        assert_eq!(top(&scores, 2), [2, 5]);
        assert_eq!(top(&scores, 4), [2, 5, 1, 3]);
    }

    #[test]
    fn a_partial_selection_is_the_head_of_the_whole_sort() {
        let mut random = StdRng::seed_from_u64(3);
        for count in [1, 2, 9, 300, 10_000] {
            // coarse scores produce ties at the cut
            let scores: Vec<f32> = (0..count)
                .map(|_| (random.next_u32() % 7) as f32 / 7.0)
                .collect();
            let mut whole: Vec<usize> = (0..count).collect();
            whole.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            for k in [1, 3, 10, count, count + 1] {
                assert_eq!(top(&scores, k), whole[..k.min(count)]);
            }
        }
    }

    /// Compares samples of 2 from 4 with the exact law: P(i, j) = w_i / W * w_j / (W - w_i).
    #[test]
    fn draws_follow_the_exact_law() {
        let scores = [0.10f32, 0.15, 0.20, 0.05];
        let weights: Vec<f64> = scores
            .iter()
            .map(|score| (SHARPNESS * f64::from(*score)).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let mut random = StdRng::seed_from_u64(11);
        let draws = 200_000;
        let mut counts: HashMap<(usize, usize), u32> = HashMap::new();
        for _ in 0..draws {
            let drawn = draw(&scores, &mut random, 2);
            *counts.entry((drawn[0], drawn[1])).or_default() += 1;
        }
        let mut chi_squared = 0.0;
        for first in 0..4 {
            for second in (0..4).filter(|second| *second != first) {
                let expected = f64::from(draws) * weights[first] / total * weights[second]
                    / (total - weights[first]);
                let seen = f64::from(counts.get(&(first, second)).copied().unwrap_or(0));
                chi_squared += (seen - expected).powi(2) / expected;
            }
        }
        // 11 degrees of freedom: the probability of exceeding 31.3 is 0.001; the seed is fixed
        assert!(chi_squared < 31.3, "chi squared {chi_squared}");
    }

    #[test]
    fn keys_of_extreme_scores_do_not_overflow() {
        let scores = [
            1e30,
            f32::NAN,
            f32::INFINITY,
            -1e30,
            f32::NEG_INFINITY,
            f32::MAX,
        ];
        let mut random = StdRng::seed_from_u64(1);
        assert_eq!(draw(&scores, &mut random, 6), [2, 5, 0, 3, 4, 1]);
    }
}
