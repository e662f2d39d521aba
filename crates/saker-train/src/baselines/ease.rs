//! EASE (Steck 2019): a linear model of items by items with a closed form.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use super::cooccurrence;
use crate::data::ByUser;

/// Weights B that minimise |X - X B|² + λ |B|² with a diagonal of zeros, where X is the user-item matrix. With P = (XᵀX + λ I)⁻¹ they
/// are B(i, j) = -P(i, j) / P(j, j).
#[derive(Clone, Debug)]
pub struct Ease {
    /// The weight of each history item for every candidate: `[items, items]`.
    weights: Array2<f32>,
}

impl Ease {
    /// The largest catalogue for a fit; the matrix to invert has the size of its square.
    pub const MOST_ITEMS: usize = 5000;

    /// Fits the weights. An item counts once per history.
    pub fn fit(histories: &ByUser, items: usize, regularization: f64) -> Self {
        let mut gram = Array2::zeros((items, items));
        for (item, row) in cooccurrence(histories.iter(), items)
            .into_iter()
            .enumerate()
        {
            for (other, both) in row {
                gram[(item, other as usize)] = f64::from(both);
            }
        }
        for history in histories.iter() {
            for item in super::distinct(history) {
                gram[(item as usize, item as usize)] += 1.0;
            }
        }
        for item in 0..items {
            gram[(item, item)] += regularization;
        }
        let inverse = inverse(gram.view());
        let weights = Array2::from_shape_fn((items, items), |(i, j)| match i == j {
            true => 0.0,
            false => (-inverse[(i, j)] / inverse[(j, j)]) as f32,
        });
        Self { weights }
    }

    /// Scores of all items for a user with this history, each entry with its weight (1 in the plain method): `[items]`.
    pub fn scores(&self, history: impl IntoIterator<Item = (u32, f32)>) -> Vec<f32> {
        let mut scores = vec![0.0; self.weights.ncols()];
        for (item, weight) in history {
            for (score, of) in scores.iter_mut().zip(self.weights.row(item as usize)) {
                *score += weight * of;
            }
        }
        scores
    }
}

/// The inverse of a symmetric positive definite matrix, computed by halves. The inverse of [A Bᵀ; B C] follows from the inverses of A and
/// of C - B A⁻¹ Bᵀ, which are symmetric and positive definite, too. Nearly all of the work is in matrix products.
fn inverse(matrix: ArrayView2<'_, f64>) -> Array2<f64> {
    /// Smaller matrices are inverted by elimination.
    const SMALL: usize = 32;
    let size = matrix.nrows();
    if size <= SMALL {
        return eliminated(matrix);
    }
    let half = size / 2;
    let b = matrix.slice(s![half.., ..half]);
    let a = inverse(matrix.slice(s![..half, ..half]));
    let ba = b.dot(&a);
    let rest = inverse((&matrix.slice(s![half.., half..]) - &ba.dot(&b.t())).view());
    let below = -rest.dot(&ba);
    let above = &a - &ba.t().dot(&below);
    let right = below.t().to_owned();
    let join = |axis, first: &Array2<f64>, second: &Array2<f64>| {
        concatenate(axis, &[first.view(), second.view()]).expect("the halves fit")
    };
    join(
        Axis(0),
        &join(Axis(1), &above, &right),
        &join(Axis(1), &below, &rest),
    )
}

/// The inverse by Gauss-Jordan elimination without pivoting: the pivots of a positive definite matrix are positive.
fn eliminated(matrix: ArrayView2<'_, f64>) -> Array2<f64> {
    let size = matrix.nrows();
    let mut left = matrix.to_owned();
    let mut right = Array2::eye(size);
    for pivot in 0..size {
        let scale = 1.0 / left[(pivot, pivot)];
        left.row_mut(pivot).mapv_inplace(|value| value * scale);
        right.row_mut(pivot).mapv_inplace(|value| value * scale);
        for row in (0..size).filter(|&row| row != pivot) {
            let factor = left[(row, pivot)];
            for matrix in [&mut left, &mut right] {
                let (mut of, from) = matrix.multi_slice_mut((s![row, ..], s![pivot, ..]));
                of.scaled_add(-factor, &from);
            }
        }
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_of_a_large_matrix_is_one() {
        // Symmetric, and positive definite by its diagonal.
        let size = 101;
        let matrix = Array2::from_shape_fn((size, size), |(i, j)| {
            let near = ((i * j + i + j) % 7) as f64 / 7.0;
            if i == j { 80.0 + near } else { near }
        });
        let product = matrix.dot(&inverse(matrix.view()));
        for ((i, j), value) in product.indexed_iter() {
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((value - expected).abs() < 1e-12, "({i}, {j}): {value}");
        }
    }

    /// Two items, λ = 1: users {0, 1}, {0, 1} and {0}. XᵀX + I = [4 2; 2 3], whose inverse is [3 -2; -2 4] / 8, so that
    /// B(0, 1) = 2/4 and B(1, 0) = 2/3.
    #[test]
    fn the_weights_are_the_closed_form() {
        let histories: ByUser = [vec![0, 1, 0], vec![1, 0], vec![0]].into_iter().collect();
        let ease = Ease::fit(&histories, 2, 1.0);
        let close = |found: &[f32], expected: [f32; 2]| {
            let near = |(found, expected): (&f32, f32)| (found - expected).abs() < 1e-6;
            assert!(found.iter().zip(expected).all(near), "{found:?}");
        };
        close(&ease.scores([(0, 1.0)]), [0.0, 0.5]);
        close(&ease.scores([(1, 1.0)]), [2.0 / 3.0, 0.0]);
        close(&ease.scores([(0, 0.5), (1, 1.0)]), [2.0 / 3.0, 0.25]);
    }
}
