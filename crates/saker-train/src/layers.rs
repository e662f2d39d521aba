//! Dense layers and embeddings: forward in Burn, parameters on the host.

use burn::tensor::{Device, Gradients, Tensor, TensorData, activation};
use rand::rngs::StdRng;

use crate::data::{Categorical, Continuous, Pretrained};
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

    pub(crate) fn update(&mut self, leaves: &DenseLeaves, gradients: &mut Gradients, step: Step) {
        for (parameter, leaf) in [
            (&mut self.weight, &leaves.weight),
            (&mut self.bias, &leaves.bias),
        ] {
            if let Some(gradient) = leaf.grad_remove(gradients) {
                parameter.update(&host(gradient), step);
            }
        }
    }
}

/// The tensors of a [`Dense`] in one step.
pub(crate) struct DenseLeaves {
    weight: Tensor<2>,
    bias: Tensor<2>,
}

impl DenseLeaves {
    /// `[rows, inputs]` -> `[rows, outputs]`
    pub(crate) fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        input.matmul(self.weight.clone()) + self.bias.clone()
    }
}

/// Layers with ReLU between them; with `relu_last` after the last one too.
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

/// An embedding table by the name of its feature: `[cardinality, width]`.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub name: String,
    pub table: Parameter,
}

/// Codes of one feature for the rows of a batch.
pub(crate) type Codes = Vec<Vec<i32>>;

/// The embeddings of a batch next to each other: `[rows, sum of widths]`.
pub(crate) fn embed(embeddings: &[Embedding], codes: &Codes, rows: usize) -> Vec<f32> {
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

/// Updates the tables by the gradient of what [`embed`] returned.
pub(crate) fn update_embeddings(
    embeddings: &mut [Embedding],
    codes: &Codes,
    gradient: &[f32],
    updates: &mut RowUpdates,
    step: Step,
) {
    let width = embedding_width(embeddings);
    let mut offset = 0;
    for (embedding, codes) in embeddings.iter_mut().zip(codes) {
        updates.apply(&mut embedding.table, codes, gradient, width, offset, step);
        offset += embedding.table.columns;
    }
}

pub(crate) fn embedding_width(embeddings: &[Embedding]) -> usize {
    embeddings
        .iter()
        .map(|embedding| embedding.table.columns)
        .sum()
}

/// Codes of each categorical column of `table` at `rows`.
pub(crate) fn codes_at<'a>(columns: impl Iterator<Item = &'a Categorical>, rows: &[u32]) -> Codes {
    columns
        .map(|column| rows.iter().map(|&row| column.codes[row as usize]).collect())
        .collect()
}

/// The continuous columns of `table` at `rows`, next to each other: `[rows, columns]`.
pub(crate) fn continuous_at(columns: &[Continuous], rows: &[u32]) -> Vec<f32> {
    rows.iter()
        .flat_map(|&row| {
            columns
                .iter()
                .map(move |column| column.values[row as usize])
        })
        .collect()
}

/// Pretrained vectors of items with these codes: `[rows, dim]`.
pub(crate) fn pretrained_at(table: &Pretrained, codes: &[i32]) -> Vec<f32> {
    let mut out = vec![0.0; codes.len() * table.dim];
    gather(&table.values, table.dim, codes, &mut out, table.dim, 0);
    out
}

/// `[rows, columns]` from row-major numbers.
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
