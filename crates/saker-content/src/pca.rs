//! Principal components (Pearson 1901): the directions of largest variance.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::Error;

/// The mean and the leading eigenvectors of the covariance of the vectors it was fitted on.
#[derive(Clone, Debug)]
pub struct Pca {
    mean: DVector<f64>,
    /// `[width, components]`
    components: DMatrix<f64>,
    explained: f64,
}

impl Pca {
    /// Fits `components` components on `vectors`, row-major `[rows, width]`.
    ///
    /// The largest entry of a component is positive, so equal vectors give equal components.
    ///
    /// # Errors
    /// Returns an error if there are no rows, or if `components` exceeds `width`.
    pub fn fit<'v>(
        vectors: impl Iterator<Item = &'v [f32]> + Clone,
        width: usize,
        components: usize,
    ) -> Result<Self, Error> {
        if components > width {
            return Err(Error::Components {
                asked: components,
                width,
            });
        }
        let mut rows = 0;
        let mut mean = DVector::<f64>::zeros(width);
        for vector in vectors.clone() {
            rows += 1;
            mean.iter_mut()
                .zip(vector)
                .for_each(|(sum, &value)| *sum += f64::from(value));
        }
        if rows == 0 {
            return Err(Error::NoVectors);
        }
        mean /= rows as f64;

        // In blocks of rows: rank-1 updates would be slow, and all rows in f64 would need much memory.
        const BLOCK: usize = 1024;
        let mut covariance = DMatrix::<f64>::zeros(width, width);
        let mut block = DMatrix::<f64>::zeros(width, BLOCK);
        let mut vectors = vectors.peekable();
        while vectors.peek().is_some() {
            let mut filled = 0;
            for (mut column, vector) in block.column_iter_mut().zip(vectors.by_ref().take(BLOCK)) {
                let centred = vector.iter().zip(mean.iter());
                column
                    .iter_mut()
                    .zip(centred)
                    .for_each(|(to, (&value, mean))| *to = f64::from(value) - mean);
                filled += 1;
            }
            let filled = block.columns(0, filled);
            covariance += filled * filled.transpose();
        }
        covariance /= rows as f64;

        let total = covariance.trace();
        let eigen = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let mut matrix = DMatrix::zeros(width, components);
        let mut explained = 0.0;
        for (mut column, &index) in matrix.column_iter_mut().zip(&order) {
            let value = eigen.eigenvalues[index];
            // Directions without variance stay zero: rounding would fill them with noise.
            if value <= 1e-12 * total {
                break;
            }
            explained += value;
            let vector = eigen.eigenvectors.column(index);
            column.copy_from(&(vector * vector[vector.iamax()].signum()));
        }
        Ok(Self {
            mean,
            components: matrix,
            explained: if total > 0.0 { explained / total } else { 1.0 },
        })
    }

    /// Share of the vectors' variance that the components keep, 0 to 1.
    pub fn explained(&self) -> f64 {
        self.explained
    }

    /// The components of a vector of the fitted width.
    pub fn project(&self, vector: &[f32]) -> Vec<f32> {
        let centred = DVector::from_iterator(
            self.mean.len(),
            vector
                .iter()
                .zip(self.mean.iter())
                .map(|(&value, mean)| f64::from(value) - mean),
        );
        let projected = self.components.tr_mul(&centred);
        projected.iter().map(|&value| value as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fit(vectors: &[f32], width: usize, components: usize) -> Pca {
        Pca::fit(vectors.chunks_exact(width), width, components).unwrap()
    }

    #[test]
    fn a_line_has_one_component() {
        // Points at -2 … 2 along (3, 4) / 5 about (10, 20).
        let vectors: Vec<f32> = (-2..=2)
            .flat_map(|step| [10.0 + 0.6 * step as f32, 20.0 + 0.8 * step as f32])
            .collect();
        let pca = fit(&vectors, 2, 2);
        assert!((pca.explained() - 1.0).abs() < 1e-9);
        for (row, step) in vectors.chunks_exact(2).zip(-2..=2) {
            let projected = pca.project(row);
            assert!((projected[0] - step as f32).abs() < 1e-4, "{projected:?}");
            assert!(projected[1].abs() < 1e-4, "{projected:?}");
        }
    }

    #[test]
    fn the_first_of_two_axes_explains_its_share() {
        let pca = fit(&[3.0, 0.0, -3.0, 0.0, 0.0, 1.0, 0.0, -1.0], 2, 1);
        assert!((pca.explained() - 0.9).abs() < 1e-9);
        assert_eq!(pca.project(&[3.0, 5.0]), [3.0]);
    }

    #[test]
    fn what_cannot_be_fitted_says_so() {
        let none: [f32; 0] = [];
        assert!(matches!(
            Pca::fit(none.chunks_exact(2), 2, 1),
            Err(Error::NoVectors)
        ));
        let error = Pca::fit([1.0, 2.0].chunks_exact(2), 2, 3).unwrap_err();
        assert!(error.to_string().starts_with("3 components"), "{error}");
        // A single vector has no variance.
        assert_eq!(fit(&[1.0, 2.0], 2, 2).project(&[5.0, 5.0]), [0.0, 0.0]);
    }

    proptest! {
        /// All components together are a rotation: distances stay the same, and the components do not correlate.
        #[test]
        fn all_components_keep_every_distance(vectors in prop::collection::vec(-10f32..10.0, 30 * 5)) {
            let width = 5;
            let pca = fit(&vectors, width, width);
            let projected: Vec<Vec<f32>> = vectors.chunks_exact(width).map(|row| pca.project(row)).collect();
            let distance = |a: &[f32], b: &[f32]| -> f32 {
                a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
            };
            let rows: Vec<&[f32]> = vectors.chunks_exact(width).collect();
            for (i, row) in rows.iter().enumerate() {
                prop_assert!((distance(row, rows[0]) - distance(&projected[i], &projected[0])).abs() < 1e-3);
            }
            let mut variances = vec![];
            for a in 0..width {
                for b in 0..=a {
                    let moment = projected.iter().map(|row| row[a] * row[b]).sum::<f32>() / rows.len() as f32;
                    if a == b {
                        variances.push(moment);
                    } else {
                        prop_assert!(moment.abs() < 1e-2, "components {a} and {b}: {moment}");
                    }
                }
            }
            prop_assert!(variances.is_sorted_by(|a, b| *a >= b - 1e-3), "{variances:?}");
        }

        /// The order of the rows and a shift of all of them change nothing.
        #[test]
        fn order_and_shift_do_not_matter(vectors in prop::collection::vec(-1f32..1.0, 20 * 4)) {
            let pca = fit(&vectors, 4, 2);
            let moved: Vec<f32> = vectors.chunks_exact(4).rev().flatten().map(|value| value + 8.0).collect();
            let other = fit(&moved, 4, 2);
            prop_assert!((pca.explained() - other.explained()).abs() < 1e-4);
        }
    }
}
