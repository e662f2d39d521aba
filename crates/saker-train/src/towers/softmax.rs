//! The loss of the towers: sampled softmax over the items of the batch, and its gradient in closed form.
//!
//! A batch of n rows has n × n logits. Automatic differentiation would keep several such matrices and read each of them. This module
//! multiplies a block of rows, replaces it by its gradient in place, and multiplies back, while the block is in the processor's cache.

use burn::tensor::{Device as Backend, Tensor};
use rayon::prelude::*;

use crate::device::Device;
use crate::layers::{host, matrix};

/// Rows of logits per block: with 1024 columns they take a quarter of a MiB.
const BLOCK: usize = 64;

/// A batch: one item per row.
pub(super) struct Batch<'a> {
    /// Item rows.
    pub items: &'a [u32],
    /// Weight of each row.
    pub weights: &'a [f32],
    /// Logarithm of the probability that a row has the item, by item.
    pub log_q: &'a [f32],
    /// Temperature: the divisor of the logits.
    pub temperature: f32,
}

/// The loss, and its gradients with respect to the vectors of the users and of the items.
pub(super) struct Gradients {
    pub loss: f64,
    /// `[rows, dim]`
    pub query: Vec<f32>,
    /// `[rows, dim]`
    pub candidate: Vec<f32>,
}

/// Weighted mean over the batch of -log softmax of the own item's logit among all items of the batch. Another row with the same item does
/// not count as a negative. From each logit, log_q of its item is subtracted (Yi et al. 2019).
///
/// # Shapes
/// - `query`, `candidate`: `[rows, dim]`
pub(super) fn gradients(
    query: Vec<f32>,
    candidate: Vec<f32>,
    batch: &Batch<'_>,
    device: &Device,
) -> Gradients {
    let rows = batch.items.len();
    let dim = query.len() / rows.max(1);
    let total: f32 = batch.weights.iter().sum();
    let backend = device.plain();
    let items = matrix(candidate, rows, &backend);
    let offsets: Vec<f32> = batch
        .items
        .iter()
        .map(|&item| -batch.log_q[item as usize])
        .collect();
    let blocks: Vec<(f64, Vec<f32>, Tensor<2>)> = query
        .par_chunks(BLOCK * dim.max(1))
        .enumerate()
        .map(|(block, query)| {
            let first = block * BLOCK;
            of_block(query, &items, first, &offsets, batch, total, &backend)
        })
        .collect();
    let mut candidate = vec![0.0; rows * dim];
    let mut gradients = Gradients {
        loss: 0.0,
        query: Vec::with_capacity(rows * dim),
        candidate: Vec::new(),
    };
    for (loss, query, of_items) in blocks {
        gradients.loss += loss;
        gradients.query.extend(query);
        candidate
            .iter_mut()
            .zip(host(of_items))
            .for_each(|(sum, value)| *sum += value);
    }
    gradients.candidate = candidate;
    gradients
}

/// Loss, gradient with respect to `query`, and the block's part of the gradient with respect to the items.
fn of_block(
    query: &[f32],
    items: &Tensor<2>,
    first: usize,
    offsets: &[f32],
    batch: &Batch<'_>,
    total: f32,
    backend: &Backend,
) -> (f64, Vec<f32>, Tensor<2>) {
    let columns = batch.items.len();
    let rows = query.len() / items.dims()[1].max(1);
    let scale = 1.0 / batch.temperature;
    let query = matrix(query.to_vec(), rows, backend);
    let mut logits = host(query.clone().matmul(items.clone().transpose()));
    let mut loss = 0.0;
    for (row, logits) in logits.chunks_exact_mut(columns).enumerate() {
        let own = first + row;
        let item = batch.items[own];
        let own_logit = logits[own] * scale + offsets[own];
        let mut largest = f32::MIN;
        for ((logit, &offset), &of) in logits.iter_mut().zip(offsets).zip(batch.items) {
            let value = *logit * scale + offset;
            // Its exponential is exactly 0.
            *logit = if of == item { -1e9 } else { value };
            largest = largest.max(*logit);
        }
        logits[own] = own_logit;
        largest = largest.max(own_logit);
        let mut sum = 0.0;
        for logit in logits.iter_mut() {
            *logit = (*logit - largest).exp();
            sum += *logit;
        }
        let weight = batch.weights[own] / total;
        loss += f64::from(weight) * f64::from(sum.ln() + largest - own_logit);
        let factor = weight * scale;
        logits
            .iter_mut()
            .for_each(|probability| *probability *= factor / sum);
        logits[own] -= factor;
    }
    let gradient = matrix(logits, rows, backend);
    let of_items = gradient.clone().transpose().matmul(query);
    (loss, host(gradient.matmul(items.clone())), of_items)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIM: usize = 3;

    fn loss(query: &[f32], candidate: &[f32], batch: &Batch<'_>) -> f64 {
        gradients(query.to_vec(), candidate.to_vec(), batch, &Device::cpu()).loss
    }

    #[test]
    fn the_loss_is_the_formula() {
        let batch = Batch {
            items: &[0, 1, 0],
            weights: &[1.0, 3.0, 0.0],
            log_q: &[-1.0, -2.0],
            temperature: 0.5,
        };
        let query = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let candidate = [0.5, 0.1, 0.0, 0.2, 0.3, 0.0, 0.5, 0.1, 0.0];
        // Row 0 has item 0 against item 1; row 1 has item 1 against item 0, twice.
        let first = (1.0 + 1.0f64) - ((1.0 + 1.0f64).exp() + (0.4 + 2.0f64).exp()).ln();
        let second = (0.6 + 2.0f64) - ((0.6 + 2.0f64).exp() + 2.0 * (0.2 + 1.0f64).exp()).ln();
        let expected = -(0.25 * first + 0.75 * second);
        assert!((loss(&query, &candidate, &batch) - expected).abs() < 1e-6);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let rows = BLOCK + 5;
        let items: Vec<u32> = (0..rows as u32).map(|row| row % 20).collect();
        let weights: Vec<f32> = (0..rows).map(|row| 0.5 + (row % 3) as f32).collect();
        let log_q: Vec<f32> = (0..20).map(|item| -1.0 - 0.1 * item as f32).collect();
        let batch = Batch {
            items: &items,
            weights: &weights,
            log_q: &log_q,
            temperature: 0.7,
        };
        let numbers = |phase: f32| -> Vec<f32> {
            (0..rows * DIM)
                .map(|place| (place as f32 * 0.37 + phase).sin())
                .collect()
        };
        let (query, candidate) = (numbers(0.0), numbers(1.0));
        let found = gradients(query.clone(), candidate.clone(), &batch, &Device::cpu());
        const STEP: f32 = 1e-2;
        for place in [0, 7, BLOCK * DIM + 1, rows * DIM - 1] {
            let slope =
                |vary: &dyn Fn(f32) -> f64| (vary(STEP) - vary(-STEP)) / f64::from(2.0 * STEP);
            let moved = |values: &[f32], by: f32| {
                let mut values = values.to_vec();
                values[place] += by;
                values
            };
            let by_query = slope(&|by| loss(&moved(&query, by), &candidate, &batch));
            let by_candidate = slope(&|by| loss(&query, &moved(&candidate, by), &batch));
            for (found, expected) in [
                (found.query[place], by_query),
                (found.candidate[place], by_candidate),
            ] {
                assert!(
                    (f64::from(found) - expected).abs() < 2e-5,
                    "{found} is not {expected}"
                );
            }
        }
    }
}
