//! Dense layers and embeddings: forward in Burn, parameters on the host.

use burn::tensor::{Device, Gradients, Tensor, TensorData, activation};
use rand::rngs::StdRng;
use rayon::prelude::*;

use crate::data::Pretrained;
use crate::parameter::{Parameter, RowUpdates, Step, gather};

/// y = x · weight + bias; weight `[inputs, outputs]`, bias `[1, outputs]`.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    pub weight: Parameter,
    pub bias: Parameter,
}

impl Dense {
    pub(crate) fn new(inputs: usize, outputs: usize, rng: &mut StdRng) -> Self {
        Self {
            weight: Parameter::glorot(inputs, outputs, rng),
            bias: Parameter::zeros(1, outputs),
        }
    }

    /// The parameters as tensors of one step.
    pub(crate) fn leaves(&self, device: &Device) -> DenseLeaves {
        let leaf = |parameter: &Parameter| {
            let tensor = parameter.tensor(device);
            if device.is_autodiff() {
                tensor.require_grad()
            } else {
                tensor
            }
        };
        DenseLeaves {
            weight: leaf(&self.weight),
            bias: leaf(&self.bias),
        }
    }

    pub(crate) fn parameters(&mut self) -> [&mut Parameter; 2] {
        [&mut self.weight, &mut self.bias]
    }
}

/// The tensors of a [`Dense`] in one step.
pub(crate) struct DenseLeaves {
    weight: Tensor<2>,
    bias: Tensor<2>,
}

impl DenseLeaves {
    /// Gradients of weight and bias, if the loss depends on them.
    pub(crate) fn gradients(&self, gradients: &mut Gradients) -> [Option<Vec<f32>>; 2] {
        [&self.weight, &self.bias].map(|leaf| leaf.grad_remove(gradients).map(host))
    }

    /// `[rows, inputs]` -> `[rows, outputs]`
    pub(crate) fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        input.matmul(self.weight.clone()) + self.bias.clone()
    }
}

/// Layers with ReLU between them, and also after the last one with `relu_last`.
pub(crate) fn stack(layers: &[DenseLeaves], input: Tensor<2>, relu_last: bool) -> Tensor<2> {
    let mut value = input;
    for (place, layer) in layers.iter().enumerate() {
        value = layer.forward(value);
        if relu_last || place + 1 < layers.len() {
            value = activation::relu(value);
        }
    }
    value
}

/// Layers of these widths over `inputs` numbers.
pub(crate) fn dense_stack(inputs: usize, widths: &[usize], rng: &mut StdRng) -> Vec<Dense> {
    let mut from = inputs;
    widths
        .iter()
        .map(|&to| {
            let layer = Dense::new(from, to, rng);
            from = to;
            layer
        })
        .collect()
}

/// The embedding table of a feature: `[cardinality, width]`.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub name: String,
    pub table: Parameter,
}

/// Codes of each categorical feature for the rows of a batch: `[features][rows]`.
pub(crate) type BatchCodes = Vec<Vec<i32>>;

/// The gradients of one block of a batch.
pub(crate) struct BlockGradients {
    /// Sum of the block's part of the loss.
    pub loss: f64,
    /// `[features][rows]`
    pub codes: BatchCodes,
    /// Gradients of the result of [`embed`].
    pub embedded: Option<Vec<f32>>,
    /// Gradients of the layers in the model's order: weight, bias, weight, bias, …
    pub dense: Vec<Option<Vec<f32>>>,
}

/// Updates layers by the sum of their gradients over the blocks of a batch. Blocks are added in their order, so the result does not depend
/// on the number of threads.
pub(crate) fn update_dense(parameters: Vec<&mut Parameter>, blocks: &[BlockGradients], step: Step) {
    parameters
        .into_par_iter()
        .enumerate()
        .for_each(|(place, parameter)| {
            let mut of_blocks = blocks
                .iter()
                .filter_map(|block| block.dense[place].as_ref());
            let Some(first) = of_blocks.next() else {
                return;
            };
            let mut sum = first.clone();
            for gradient in of_blocks {
                sum.iter_mut()
                    .zip(gradient)
                    .for_each(|(sum, value)| *sum += value);
            }
            parameter.update(&sum, step);
        });
}

/// The concatenated embeddings of a batch: `[rows, sum of widths]`.
pub(crate) fn embed(embeddings: &[Embedding], codes: &BatchCodes, rows: usize) -> Vec<f32> {
    let width = embedding_width(embeddings);
    let mut out = vec![0.0; rows * width];
    let mut offset = 0;
    for (embedding, codes) in embeddings.iter().zip(codes) {
        gather(
            &embedding.table.values,
            embedding.table.columns,
            codes,
            &mut out,
            width,
            offset,
        );
        offset += embedding.table.columns;
    }
    out
}

/// Updates the tables by the gradients of the result of [`embed`]. `updates` has an entry per table, or is empty at first.
pub(crate) fn update_embeddings(
    embeddings: &mut [Embedding],
    blocks: &[BlockGradients],
    updates: &mut Vec<RowUpdates>,
    step: Step,
) {
    let width = embedding_width(embeddings);
    updates.resize_with(embeddings.len(), RowUpdates::default);
    let offsets: Vec<usize> = embeddings
        .iter()
        .scan(0, |next, embedding| {
            *next += embedding.table.columns;
            Some(*next - embedding.table.columns)
        })
        .collect();
    embeddings
        .par_iter_mut()
        .zip(updates)
        .enumerate()
        .for_each(|(place, (embedding, updates))| {
            for block in blocks {
                if let Some(gradient) = &block.embedded {
                    let codes = &block.codes[place];
                    updates.add(&embedding.table, codes, gradient, width, offsets[place]);
                }
            }
            updates.finish(&mut embedding.table, step);
        });
}

pub(crate) fn embedding_width(embeddings: &[Embedding]) -> usize {
    embeddings
        .iter()
        .map(|embedding| embedding.table.columns)
        .sum()
}

/// Pretrained vectors of items with these codes: `[rows, dim]`.
pub(crate) fn pretrained_at(table: &Pretrained, codes: &[i32]) -> Vec<f32> {
    let mut out = vec![0.0; codes.len() * table.dim];
    gather(&table.values, table.dim, codes, &mut out, table.dim, 0);
    out
}

/// A tensor `[rows, columns]` from row-major numbers.
pub(crate) fn matrix(values: Vec<f32>, rows: usize, device: &Device) -> Tensor<2> {
    let columns = values.len() / rows.max(1);
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// The numbers of a tensor, row-major.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .try_into_vec()
        .expect("float tensors are f32 on this backend")
}
