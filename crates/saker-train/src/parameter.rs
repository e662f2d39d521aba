//! Parameters and Adam's state for them, on the host.
//!
//! A parameter is a matrix. A step touches a few rows of an embedding table, and all rows of a layer's weight. Adam (Kingma & Ba 2015) with
//! decoupled weight decay (Loshchilov & Hutter 2019) updates only the touched rows, so the cost of a step does not depend on the size of the
//! vocabulary. The moments of the other rows stay unchanged, as in the "lazy" or "sparse" Adam of other libraries.

use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// Settings of Adam for one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Number of the step, from 1.
    pub number: i32,
    /// Step size.
    pub rate: f32,
    /// Weight decay: the share of the step size by which a touched value shrinks.
    pub decay: f32,
}

/// A trainable matrix, `[rows, columns]`, row-major.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
    pub first_moment: Vec<f32>,
    pub second_moment: Vec<f32>,
}

impl Parameter {
    pub(crate) fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        let zeros = vec![0.0; values.len()];
        Self {
            rows,
            columns,
            values,
            first_moment: zeros.clone(),
            second_moment: zeros,
        }
    }

    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self::new(rows, columns, vec![0.0; rows * columns])
    }

    /// Uniform in ±sqrt(6 / (rows + columns)) (Glorot & Bengio 2010).
    pub(crate) fn glorot(rows: usize, columns: usize, rng: &mut StdRng) -> Self {
        let bound = (6.0 / (rows + columns) as f32).sqrt();
        let values = (0..rows * columns)
            .map(|_| rng.random_range(-bound..bound))
            .collect();
        Self::new(rows, columns, values)
    }

    /// Normal with this standard deviation.
    pub(crate) fn normal(rows: usize, columns: usize, deviation: f32, rng: &mut StdRng) -> Self {
        let normal =
            |_| deviation * <StandardNormal as Distribution<f32>>::sample(&StandardNormal, rng);
        let values = (0..rows * columns).map(normal).collect();
        Self::new(rows, columns, values)
    }

    /// A copy as a tensor `[rows, columns]`.
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(
            TensorData::new(self.values.clone(), [self.rows, self.columns]),
            device,
        )
    }

    /// Updates every row by a gradient `[rows, columns]`.
    pub(crate) fn update(&mut self, gradient: &[f32], step: Step) {
        adam(
            &mut self.values,
            &mut self.first_moment,
            &mut self.second_moment,
            gradient,
            step,
        );
    }

    fn update_row(&mut self, row: usize, gradient: &[f32], step: Step) {
        let range = row * self.columns..(row + 1) * self.columns;
        adam(
            &mut self.values[range.clone()],
            &mut self.first_moment[range.clone()],
            &mut self.second_moment[range],
            gradient,
            step,
        );
    }
}

fn adam(values: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], step: Step) {
    const BETA1: f32 = 0.9;
    const BETA2: f32 = 0.999;
    const EPSILON: f32 = 1e-8;
    let correct1 = 1.0 / (1.0 - BETA1.powi(step.number));
    let correct2 = 1.0 / (1.0 - BETA2.powi(step.number));
    let keep = 1.0 - step.rate * step.decay;
    for (((value, first), second), &gradient) in
        values.iter_mut().zip(first).zip(second).zip(gradient)
    {
        *first = BETA1 * *first + (1.0 - BETA1) * gradient;
        *second = BETA2 * *second + (1.0 - BETA2) * gradient * gradient;
        *value = *value * keep
            - step.rate * (*first * correct1) / ((*second * correct2).sqrt() + EPSILON);
    }
}

/// Sums the gradients of a batch per row of one table, then updates these rows.
#[derive(Debug, Default)]
pub(crate) struct RowUpdates {
    /// Index of a table's row in `rows`, plus one; 0 if the batch does not touch the row. Only touched entries are cleared after use, so
    /// the vector's length does not matter.
    place: Vec<u32>,
    rows: Vec<usize>,
    sums: Vec<f32>,
}

impl RowUpdates {
    /// `codes`: `[batch]`; `gradient`: `[batch, width]`. The columns `offset..offset + table.columns` belong to the table.
    pub(crate) fn add(
        &mut self,
        table: &Parameter,
        codes: &[i32],
        gradient: &[f32],
        width: usize,
        offset: usize,
    ) {
        let columns = table.columns;
        if self.place.len() < table.rows {
            self.place.resize(table.rows, 0);
        }
        for (&code, row) in codes.iter().zip(gradient.chunks_exact(width)) {
            let place = &mut self.place[code as usize];
            if *place == 0 {
                self.rows.push(code as usize);
                *place = self.rows.len() as u32;
                self.sums.resize(self.rows.len() * columns, 0.0);
            }
            let sum = &mut self.sums[(*place as usize - 1) * columns..][..columns];
            sum.iter_mut()
                .zip(&row[offset..])
                .for_each(|(sum, value)| *sum += value);
        }
    }

    /// Updates the rows by the added gradients, and clears the gradients.
    pub(crate) fn finish(&mut self, table: &mut Parameter, step: Step) {
        for (&row, sum) in self.rows.iter().zip(self.sums.chunks_exact(table.columns)) {
            table.update_row(row, sum, step);
            self.place[row] = 0;
        }
        self.rows.clear();
        self.sums.clear();
    }
}

/// Copies the rows `codes` of a table into columns `offset..` of `out`, `[batch, width]`.
pub(crate) fn gather(
    table: &[f32],
    columns: usize,
    codes: &[i32],
    out: &mut [f32],
    width: usize,
    offset: usize,
) {
    for (&code, row) in codes.iter().zip(out.chunks_exact_mut(width)) {
        row[offset..offset + columns].copy_from_slice(&table[code as usize * columns..][..columns]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_touched_rows_change_and_repeated_rows_add_up() {
        let step = Step {
            number: 1,
            rate: 0.1,
            decay: 0.0,
        };
        let mut table = Parameter::zeros(1000, 2);
        let mut updates = RowUpdates::default();
        // Width 3; the table's columns begin at 1.
        updates.add(&table, &[7, 9], &[0.0, 1.0, 2.0, 0.0, 3.0, 0.0], 3, 1);
        updates.add(&table, &[7], &[0.0, 1.0, -2.0], 3, 1);
        updates.finish(&mut table, step);
        let changed: Vec<usize> = (0..1000)
            .filter(|r| table.values[r * 2..r * 2 + 2] != [0.0, 0.0])
            .collect();
        assert_eq!(changed, [7, 9]);
        // Adam's first step is minus the rate, by the sign of the sum. The sum 2 - 2 = 0 leaves the value unchanged.
        assert!((table.values[14] + 0.1).abs() < 1e-6 && table.values[15] == 0.0);
        assert!((table.first_moment[14] - 0.2).abs() < 1e-6);
        updates.add(&table, &[9], &[0.0, 1.0, 1.0], 3, 1);
        updates.finish(&mut table, step);
        assert!((table.first_moment[18] - 0.9 * 0.3 - 0.1).abs() < 1e-6);
    }
}
