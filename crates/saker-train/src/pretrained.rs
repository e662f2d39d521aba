//! Item vectors without training: from texts, and from interactions.
//!
//! Both are a truncated singular value decomposition of a sparse matrix: latent semantic analysis (Deerwester et al.
//! 1990) of TF-IDF weights, and of positive pointwise mutual information (Levy & Goldberg 2014). The decomposition is
//! the randomised one of Halko, Martinsson & Tropp (2011).

use std::collections::BTreeMap;

use nalgebra::{DMatrix, SymmetricEigen};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// Vectors of texts: TF-IDF of their words, reduced to `dim` numbers and scaled to unit length.
///
/// Words are runs of letters and digits, compared in lower case. A word that occurs in one text only is ignored. An empty text gets zeros.
///
/// # Shapes
/// - returns `[texts, dim]`, row-major; columns beyond the rank of the matrix are 0.
pub fn text_vectors<S: AsRef<str>>(texts: &[S], dim: usize, seed: u64) -> Vec<f32> {
    let bags: Vec<BTreeMap<String, f32>> = texts
        .iter()
        .map(|text| {
            let mut bag = BTreeMap::new();
            for word in text
                .as_ref()
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| !word.is_empty())
            {
                *bag.entry(word.to_lowercase()).or_insert(0.0) += 1.0;
            }
            bag
        })
        .collect();
    let mut texts_with: BTreeMap<&str, usize> = BTreeMap::new();
    for word in bags.iter().flat_map(BTreeMap::keys) {
        *texts_with.entry(word).or_default() += 1;
    }
    texts_with.retain(|_, count| *count > 1);
    let number: BTreeMap<&str, usize> = texts_with
        .keys()
        .enumerate()
        .map(|(number, &word)| (word, number))
        .collect();
    let rows = bags
        .iter()
        .map(|bag| {
            let mut row: Vec<(u32, f32)> = bag
                .iter()
                .filter_map(|(word, &count)| {
                    let frequency = *texts_with.get(word.as_str())? as f32;
                    let idf = ((1.0 + texts.len() as f32) / (1.0 + frequency)).ln() + 1.0;
                    Some((number[word.as_str()] as u32, (1.0 + count.ln()) * idf))
                })
                .collect();
            let norm = row
                .iter()
                .map(|(_, weight)| weight * weight)
                .sum::<f32>()
                .sqrt();
            row.iter_mut()
                .for_each(|(_, weight)| *weight /= norm.max(f32::MIN_POSITIVE));
            row
        })
        .collect();
    unit_rows(
        left_factor(
            &Sparse {
                rows,
                columns: number.len(),
            },
            dim,
            1.0,
            seed,
        ),
        dim,
    )
}

/// Vectors of items in which items of the same users are close. They are the positive pointwise mutual information of every pair of items
/// within one history, reduced to `dim` numbers and scaled to unit length.
///
/// # Shapes
/// - `histories`: for each user the items met, each in `0..items`
/// - returns `[items, dim]`, row-major; an item in no history is zero.
pub fn cooccurrence_vectors(
    histories: &[Vec<u32>],
    items: usize,
    dim: usize,
    seed: u64,
) -> Vec<f32> {
    let counts = crate::baselines::cooccurrence(histories.iter().map(Vec::as_slice), items);
    let totals: Vec<f64> = counts
        .iter()
        .map(|row| row.iter().map(|&(_, count)| f64::from(count)).sum())
        .collect();
    let total: f64 = totals.iter().sum();
    let rows = counts
        .iter()
        .zip(&totals)
        .map(|(row, &of_row)| {
            row.iter()
                .filter_map(|&(column, count)| {
                    let information =
                        (f64::from(count) * total / (of_row * totals[column as usize])).ln() as f32;
                    (information > 0.0).then_some((column, information))
                })
                .collect()
        })
        .collect();
    unit_rows(
        left_factor(
            &Sparse {
                rows,
                columns: items,
            },
            dim,
            0.5,
            seed,
        ),
        dim,
    )
}

struct Sparse {
    rows: Vec<Vec<(u32, f32)>>,
    columns: usize,
}

impl Sparse {
    /// `[rows, k]` = self × `[columns, k]`
    fn times(&self, right: &DMatrix<f64>) -> DMatrix<f64> {
        let mut product = DMatrix::zeros(self.rows.len(), right.ncols());
        for k in 0..right.ncols() {
            let (from, mut out) = (right.column(k), product.column_mut(k));
            for (sum, row) in out.iter_mut().zip(&self.rows) {
                *sum = row
                    .iter()
                    .map(|&(column, weight)| f64::from(weight) * from[column as usize])
                    .sum();
            }
        }
        product
    }

    /// `[columns, k]` = selfᵀ × `[rows, k]`
    fn transposed_times(&self, right: &DMatrix<f64>) -> DMatrix<f64> {
        let mut product = DMatrix::zeros(self.columns, right.ncols());
        for k in 0..right.ncols() {
            let (from, mut out) = (right.column(k), product.column_mut(k));
            for (value, row) in from.iter().zip(&self.rows) {
                for &(column, weight) in row {
                    out[column as usize] += f64::from(weight) * value;
                }
            }
        }
        product
    }
}

/// U · S^power of the truncated decomposition: `[rows, dim]`.
fn left_factor(matrix: &Sparse, dim: usize, power: f64, seed: u64) -> Vec<f32> {
    const OVERSAMPLING: usize = 16;
    const ITERATIONS: usize = 6;
    let rows = matrix.rows.len();
    let k = (dim + OVERSAMPLING).min(rows).min(matrix.columns);
    let mut factor = vec![0.0; rows * dim];
    if k == 0 {
        return factor;
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let probe = DMatrix::from_fn(matrix.columns, k, |_, _| StandardNormal.sample(&mut rng));
    let mut basis = matrix.times(&probe).qr().q();
    for _ in 0..ITERATIONS {
        let other = matrix.transposed_times(&basis).qr().q();
        basis = matrix.times(&other).qr().q();
    }
    // Within the basis Q the matrix is B = Qᵀ A; the eigenvectors of B Bᵀ turn Q into the left singular vectors.
    let projected = matrix.transposed_times(&basis);
    let eigen = SymmetricEigen::new(projected.transpose() * &projected);
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let negligible = 1e-10 * eigen.eigenvalues[order[0]];
    for (column, &of) in order.iter().take(dim).enumerate() {
        let value = eigen.eigenvalues[of];
        if value <= negligible {
            break;
        }
        // The sign of a singular vector is arbitrary: fix it, so that other machines get the same result.
        let vector = &basis * eigen.eigenvectors.column(of);
        let scale = value.sqrt().powf(power) * vector[vector.iamax()].signum();
        for row in 0..rows {
            factor[row * dim + column] = (vector[row] * scale) as f32;
        }
    }
    factor
}

fn unit_rows(mut matrix: Vec<f32>, dim: usize) -> Vec<f32> {
    for row in matrix.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        if norm > 1e-6 {
            row.iter_mut().for_each(|value| *value /= norm);
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(vectors: &[f32], dim: usize, a: usize, b: usize) -> f32 {
        (0..dim)
            .map(|i| vectors[a * dim + i] * vectors[b * dim + i])
            .sum()
    }

    #[test]
    fn texts_with_the_same_words_are_close() {
        let texts = [
            "Action Sci-Fi war",
            "Action Sci-Fi",
            "Romance drama",
            "drama romance",
            "",
            "unique",
        ];
        let vectors = text_vectors(&texts, 4, 1);
        assert_eq!(vectors.len(), texts.len() * 4);
        assert!(similarity(&vectors, 4, 0, 1) > 0.9);
        assert!(similarity(&vectors, 4, 2, 3) > 0.999);
        assert!(similarity(&vectors, 4, 0, 2).abs() < 1e-3);
        assert!(vectors[4 * 4..].iter().all(|&value| value == 0.0));
        assert_eq!(vectors, text_vectors(&texts, 4, 1));
    }

    #[test]
    fn items_of_the_same_users_are_close() {
        let histories: Vec<Vec<u32>> = (0..20)
            .map(|user| {
                if user % 2 == 0 {
                    vec![0, 1, 2]
                } else {
                    vec![3, 4]
                }
            })
            .collect();
        let vectors = cooccurrence_vectors(&histories, 6, 3, 1);
        assert!(similarity(&vectors, 3, 3, 4) < 1.0 + 1e-5);
        assert!(similarity(&vectors, 3, 0, 1) > similarity(&vectors, 3, 0, 3));
        assert!(vectors[5 * 3..].iter().all(|&value| value == 0.0));
    }

    #[test]
    fn the_decomposition_of_a_diagonal_matrix_is_its_diagonal() {
        let rows = (0..5).map(|i| vec![(i, 5.0 - i as f32)]).collect();
        let factor = left_factor(&Sparse { rows, columns: 5 }, 2, 1.0, 3);
        let lengths: Vec<f32> = (0..2)
            .map(|c| {
                (0..5)
                    .map(|r| factor[r * 2 + c].powi(2))
                    .sum::<f32>()
                    .sqrt()
            })
            .collect();
        assert!(
            (lengths[0] - 5.0).abs() < 1e-4 && (lengths[1] - 4.0).abs() < 1e-4,
            "{lengths:?}"
        );
    }
}
