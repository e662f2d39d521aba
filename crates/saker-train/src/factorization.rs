//! Matrix factorisation of the user-item matrix, by alternating least squares for implicit feedback (Hu, Koren & Volinsky 2008). The
//! towers can start from it.
//!
//! For a pair that met, p(u, i) = 1 and c(u, i) = `confidence`; for all others p(u, i) = 0 and c(u, i) = 1. The factors minimise
//!
//! ```text
//! Σ c(u, i) · (p(u, i) - x_u · y_i)² + regularization · (Σ |x_u|² + Σ |y_i|²)
//! ```
//!
//! where x are the factors of the users and y those of the items. With one side fixed, each row of the other has a closed form.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use saker_pipeline::training::Factorization;

use crate::data::ByUser;

/// Factors; the inner product of a user's and an item's is the pair's score.
#[derive(Clone, Debug)]
pub struct Factors {
    /// Width of a row.
    pub dim: usize,
    /// `[users, dim]`, row-major.
    pub users: Vec<f32>,
    /// `[items, dim]`, row-major.
    pub items: Vec<f32>,
}

impl Factors {
    /// Factorises the matrix of these lists of items, one per user. An item counts once. A user without items gets zeros.
    pub fn learn(
        met: &ByUser,
        items: usize,
        dim: usize,
        settings: &Factorization,
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(4));
        let mut start = |rows: usize| -> Vec<f32> {
            let normal =
                |_| 0.01 * <StandardNormal as Distribution<f32>>::sample(&StandardNormal, &mut rng);
            (0..rows * dim).map(normal).collect()
        };
        let mut factors = Self {
            dim,
            users: start(met.users()),
            items: start(items),
        };
        let of_users: Vec<Vec<u32>> = met
            .iter()
            .map(|list| {
                let mut list = list.to_vec();
                list.sort_unstable();
                list.dedup();
                list
            })
            .collect();
        let mut of_items = vec![Vec::new(); items];
        for (user, list) in of_users.iter().enumerate() {
            for &item in list {
                of_items[item as usize].push(user as u32);
            }
        }
        for _ in 0..settings.iterations {
            solve(&mut factors.users, &of_users, &factors.items, dim, settings);
            solve(&mut factors.items, &of_items, &factors.users, dim, settings);
        }
        factors
    }
}

/// Factors of users who were not in the fit, from the factors of the items (fold-in): the result of another half iteration.
pub(crate) struct FoldIn<'f> {
    factors: &'f Factors,
    settings: &'f Factorization,
    gram: Vec<f64>,
}

impl<'f> FoldIn<'f> {
    pub(crate) fn new(factors: &'f Factors, settings: &'f Factorization) -> Self {
        Self {
            factors,
            settings,
            gram: gram(&factors.items, factors.dim),
        }
    }

    /// Scores of all items for a user of these distinct items: `[items]`.
    pub(crate) fn scores(&self, met: &[u32]) -> Vec<f32> {
        let (dim, items) = (self.factors.dim, &self.factors.items);
        let mut user = vec![0.0; dim];
        let lists = [met.to_vec()];
        solve_with(&self.gram, &mut user, &lists, items, dim, self.settings);
        let score = |item: &[f32]| item.iter().zip(&user).map(|(a, b)| a * b).sum();
        items.chunks_exact(dim).map(score).collect()
    }
}

/// Sets each row of `out` to the best one for its list of rows of `other`.
fn solve(out: &mut [f32], lists: &[Vec<u32>], other: &[f32], dim: usize, settings: &Factorization) {
    solve_with(&gram(other, dim), out, lists, other, dim, settings);
}

fn solve_with(
    gram: &[f64],
    out: &mut [f32],
    lists: &[Vec<u32>],
    other: &[f32],
    dim: usize,
    settings: &Factorization,
) {
    let confidence = f64::from(settings.confidence);
    let regularization = f64::from(settings.regularization);
    out.par_chunks_mut(dim).zip(lists).for_each_init(
        || (vec![0.0; dim * dim], vec![0.0; dim]),
        |(left, right), (row, list)| {
            left.copy_from_slice(gram);
            right.fill(0.0);
            for place in 0..dim {
                left[place * dim + place] += regularization;
            }
            for &of in list {
                let of = &other[of as usize * dim..][..dim];
                for i in 0..dim {
                    let value = f64::from(of[i]);
                    right[i] += confidence * value;
                    let weighted = (confidence - 1.0) * value;
                    for (sum, &value) in left[i * dim..=i * dim + i].iter_mut().zip(of) {
                        *sum += weighted * f64::from(value);
                    }
                }
            }
            solve_positive_definite(left, right);
            row.iter_mut()
                .zip(&*right)
                .for_each(|(value, &solved)| *value = solved as f32);
        },
    );
}

/// The lower triangle of the matrix of inner products of all columns: `[dim, dim]`.
fn gram(rows: &[f32], dim: usize) -> Vec<f64> {
    // Blocks are added in their order, so the sums do not depend on the number of threads.
    const ROWS: usize = 4096;
    let of_blocks: Vec<Vec<f64>> = rows
        .par_chunks(ROWS * dim)
        .map(|block| {
            let mut sum = vec![0.0; dim * dim];
            for row in block.chunks_exact(dim) {
                for i in 0..dim {
                    let value = f64::from(row[i]);
                    for (sum, &other) in sum[i * dim..=i * dim + i].iter_mut().zip(row) {
                        *sum += value * f64::from(other);
                    }
                }
            }
            sum
        })
        .collect();
    let mut gram = vec![0.0; dim * dim];
    for block in of_blocks {
        gram.iter_mut().zip(block).for_each(|(sum, of)| *sum += of);
    }
    gram
}

/// Replaces `right` by the solution of `left · x = right`, by Cholesky decomposition. Reads and overwrites only the lower triangle of
/// `left`.
fn solve_positive_definite(left: &mut [f64], right: &mut [f64]) {
    let dim = right.len();
    for i in 0..dim {
        for j in 0..=i {
            let (before, of_i) = left.split_at_mut(i * dim);
            let of_j = if j == i {
                &of_i[..j]
            } else {
                &before[j * dim..j * dim + j]
            };
            let product: f64 = of_j.iter().zip(&of_i[..j]).map(|(a, b)| a * b).sum();
            let rest = of_i[j] - product;
            of_i[j] = if j == i {
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / before[j * dim + j]
            };
        }
    }
    for i in 0..dim {
        let known: f64 = (0..i).map(|j| left[i * dim + j] * right[j]).sum();
        right[i] = (right[i] - known) / left[i * dim + i];
    }
    for i in (0..dim).rev() {
        let known: f64 = (i + 1..dim).map(|j| left[j * dim + i] * right[j]).sum();
        right[i] = (right[i] - known) / left[i * dim + i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved() {
        let mut left = [4.0, 0.0, 0.0, 2.0, 5.0, 0.0, -1.0, 1.0, 3.0];
        // The full matrix by (1, -2, 3).
        let mut right = [4.0 - 4.0 - 3.0, 2.0 - 10.0 + 3.0, -1.0 - 2.0 + 9.0];
        solve_positive_definite(&mut left, &mut right);
        for (found, expected) in right.iter().zip([1.0, -2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{right:?}");
        }
    }

    /// One factor: items of 1 and 2, so yᵀy is 5. A user who met the second with confidence 3 has
    /// x = 3 · 2 / (5 + (3 - 1) · 4 + λ), which is 6/14 for λ = 1.
    #[test]
    fn a_user_is_folded_in_by_the_closed_form() {
        let factors = Factors {
            dim: 1,
            users: Vec::new(),
            items: vec![1.0, 2.0],
        };
        let settings = Factorization {
            regularization: 1.0,
            confidence: 3.0,
            iterations: 0,
        };
        let scores = FoldIn::new(&factors, &settings).scores(&[1]);
        assert!((scores[0] - 6.0 / 14.0).abs() < 1e-6 && (scores[1] - 12.0 / 14.0).abs() < 1e-6);
        assert_eq!(FoldIn::new(&factors, &settings).scores(&[]), [0.0, 0.0]);
    }

    #[test]
    fn the_factors_are_a_minimum_and_find_the_kinds() {
        // A user met all items of the own kind (even or odd) but one.
        let met: ByUser = (0..8u32)
            .map(|user| {
                let items =
                    (0..10u32).filter(move |item| item % 2 == user % 2 && item / 2 != user / 2);
                items.collect::<Vec<_>>()
            })
            .collect();
        let settings = Factorization {
            regularization: 0.5,
            confidence: 3.0,
            iterations: 60,
        };
        let factors = Factors::learn(&met, 10, 2, &settings, 1);
        let score = |factors: &Factors, user: usize, item: usize| -> f32 {
            let of = |rows: &[f32], row: usize| rows[row * 2..row * 2 + 2].to_vec();
            let (user, item) = (of(&factors.users, user), of(&factors.items, item));
            user.iter().zip(&item).map(|(a, b)| a * b).sum()
        };
        let loss = |factors: &Factors| -> f32 {
            let mut sum = 0.0;
            for user in 0..8 {
                for item in 0..10 {
                    let is_met = met.of(user).contains(&(item as u32));
                    let (target, weight) = if is_met { (1.0, 3.0) } else { (0.0, 1.0) };
                    sum += weight * (target - score(factors, user, item)).powi(2);
                }
            }
            let all = factors.users.iter().chain(&factors.items);
            sum + 0.5 * all.map(|value| value * value).sum::<f32>()
        };
        let least = loss(&factors);
        for place in 0..factors.users.len() + factors.items.len() {
            for step in [-0.01, 0.01] {
                let mut moved = factors.clone();
                match place.checked_sub(factors.users.len()) {
                    None => moved.users[place] += step,
                    Some(place) => moved.items[place] += step,
                }
                assert!(loss(&moved) > least, "{place}");
            }
        }
        // The unmet item of the user's own kind is above all items of the other kind.
        for user in 0..8 {
            let unmet = user % 2 + 2 * (user / 2);
            for item in (0..10).filter(|item| item % 2 != user % 2) {
                assert!(score(&factors, user, unmet) > score(&factors, user, item));
            }
        }
    }
}
