//! The ranker: a DLRM (Naumov et al. 2019) that computes the probability of a click for a user, a moment and an item.
//!
//! All embeddings of categorical features have one width. The bottom layers bring the continuous features to this width, and projections
//! the pretrained vectors. The dot products of all pairs and the bottom layers' output are the input of the top layers, which return one
//! logit.

mod train;

use burn::tensor::{Device as Backend, Int, Tensor, TensorData, activation};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rayon::prelude::*;
use saker_pipeline::training::Ranker as Sizes;

use crate::data::{Categorical, Dataset, OUT_OF_VOCABULARY};
use crate::device::Device;
use crate::encoded;
use crate::layers::{
    BatchCodes, Dense, DenseLeaves, Embedding, dense_stack, embed, host, matrix, stack,
};
use crate::parameter::Parameter;
use crate::towers::Towers;

/// A user's row (or [`encoded::UNKNOWN`]), the row of the interaction with the context, and an item's row.
pub type Request = (u32, u32, u32);

/// The ranking model.
#[derive(Clone, Debug)]
pub struct Ranker {
    /// User, context, item features, in this order.
    pub(crate) embeddings: Vec<Embedding>,
    /// User, context, item features, in this order.
    pub(crate) continuous: Vec<String>,
    pub(crate) pretrained: Vec<(String, Dense)>,
    pub(crate) bottom: Vec<Dense>,
    pub(crate) top: Vec<Dense>,
    pub(crate) dim: usize,
    device: Device,
}

/// A batch.
struct Rows {
    count: usize,
    codes: BatchCodes,
    continuous: Vec<f32>,
    pretrained: Vec<Vec<f32>>,
}

/// The tensors of one step.
struct Leaves {
    embedded: Tensor<2>,
    pretrained: Vec<DenseLeaves>,
    bottom: Vec<DenseLeaves>,
    top: Vec<DenseLeaves>,
}

impl Ranker {
    /// An untrained ranker of these sizes for the features of `data`.
    pub fn new(sizes: &Sizes, data: &Dataset, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(2));
        let dim = sizes.embedding_dim;
        // Dot products of two random vectors of this deviation have a deviation of about 1/8 at the usual width of 64.
        let deviation = (dim as f32).powf(-0.5);
        let embeddings: Vec<Embedding> = categorical(data)
            .map(|column| Embedding {
                name: column.name.clone(),
                table: Parameter::normal(column.cardinality, dim, deviation, &mut rng),
            })
            .collect();
        let tables = [&data.users, &data.context, &data.items];
        let continuous: Vec<String> = tables
            .iter()
            .flat_map(|table| &table.continuous)
            .map(|column| column.name.clone())
            .collect();
        let pretrained: Vec<(String, Dense)> = data
            .pretrained
            .iter()
            .map(|table| (table.name.clone(), Dense::new(table.dim, dim, &mut rng)))
            .collect();
        let bottom = match continuous.len() {
            0 => Vec::new(),
            inputs => dense_stack(inputs, &sizes.bottom_layers, &mut rng),
        };
        let vectors = embeddings.len() + pretrained.len() + usize::from(!bottom.is_empty());
        let inputs = pairs(vectors).len() + if bottom.is_empty() { 0 } else { dim };
        let widths: Vec<usize> = sizes.top_layers.iter().copied().chain([1]).collect();
        let top = dense_stack(inputs, &widths, &mut rng);
        Self {
            embeddings,
            continuous,
            pretrained,
            bottom,
            top,
            dim,
            device: Device::cpu(),
        }
    }

    /// A ranker with these parameters of an export.
    pub(crate) fn from_parts(
        embeddings: Vec<Embedding>,
        continuous: Vec<String>,
        pretrained: Vec<(String, Dense)>,
        bottom: Vec<Dense>,
        top: Vec<Dense>,
    ) -> Self {
        let dim = embeddings.first().map_or(0, |first| first.table.columns);
        Self {
            embeddings,
            continuous,
            pretrained,
            bottom,
            top,
            dim,
            device: Device::cpu(),
        }
    }

    /// The same ranker on another device.
    pub fn on(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Starts from the trained retrieval: the embeddings of the user's and the item's id become their towers'
    /// vectors, so their dot product is the retrieval score. If the widths differ, this returns `false` and changes nothing.
    pub fn warm_start(&mut self, towers: &Towers, data: &Dataset) -> bool {
        let dim = self.dim;
        if towers.query.dim() != dim || towers.candidate.dim() != dim {
            return false;
        }
        let sides = [
            (
                data.users.category(&data.user_id),
                towers.user_vectors(data),
            ),
            (
                data.items.category(&data.item_id),
                towers.item_vectors(data),
            ),
        ];
        for (column, vectors) in sides {
            let Some(column) = column else { continue };
            let Some(embedding) = self.embeddings.iter_mut().find(|of| of.name == column.name)
            else {
                continue;
            };
            for (code, vector) in column.codes.iter().zip(vectors.chunks_exact(dim)) {
                if code > OUT_OF_VOCABULARY {
                    embedding.table.values[code as usize * dim..][..dim].copy_from_slice(vector);
                }
            }
        }
        true
    }

    /// Number of vectors whose pairs are multiplied.
    pub(crate) fn vectors(&self) -> usize {
        self.embeddings.len() + self.pretrained.len() + usize::from(!self.bottom.is_empty())
    }

    fn leaves(&self, rows: &Rows, device: &Backend) -> Leaves {
        let embedded = matrix(
            embed(&self.embeddings, &rows.codes, rows.count),
            rows.count,
            device,
        );
        let leaves = |layers: &[Dense]| layers.iter().map(|layer| layer.leaves(device)).collect();
        Leaves {
            embedded: if device.is_autodiff() {
                embedded.require_grad()
            } else {
                embedded
            },
            pretrained: self
                .pretrained
                .iter()
                .map(|(_, layer)| layer.leaves(device))
                .collect(),
            bottom: leaves(&self.bottom),
            top: leaves(&self.top),
        }
    }

    /// Logits `[rows, 1]`.
    fn forward(&self, leaves: &Leaves, rows: &Rows, device: &Backend) -> Tensor<2> {
        let (count, dim, vectors) = (rows.count, self.dim, self.vectors());
        let mut parts = vec![leaves.embedded.clone()];
        for (projection, values) in leaves.pretrained.iter().zip(&rows.pretrained) {
            parts.push(projection.forward(matrix(values.clone(), count, device)));
        }
        let bottom = (!leaves.bottom.is_empty()).then(|| {
            stack(
                &leaves.bottom,
                matrix(rows.continuous.clone(), count, device),
                true,
            )
        });
        parts.extend(bottom.clone());
        let stacked = Tensor::cat(parts, 1).reshape([count, vectors, dim]);
        let products = stacked
            .clone()
            .matmul(stacked.swap_dims(1, 2))
            .reshape([count, vectors * vectors]);
        let pairs: Vec<i64> = pairs(vectors);
        let number = pairs.len();
        let pairs = Tensor::<1, Int>::from_data(TensorData::new(pairs, [number]), device);
        let mut inputs = vec![products.select(1, pairs) * scale(dim)];
        inputs.extend(bottom);
        stack(&leaves.top, Tensor::cat(inputs, 1), false)
    }

    /// Probabilities of a click: `[requests]`.
    pub fn scores(&self, data: &Dataset, requests: &[Request]) -> Vec<f32> {
        let blocks: Vec<Vec<f32>> = self
            .device
            .blocks(requests.len())
            .into_par_iter()
            .map(|block| {
                let (rows, device) = (rows(data, &requests[block]), self.device.plain());
                let leaves = self.leaves(&rows, &device);
                host(activation::sigmoid(self.forward(&leaves, &rows, &device)))
            })
            .collect();
        blocks.concat()
    }

    /// All layers, in the order of [`Leaves::gradients`].
    fn layers_mut(&mut self) -> Vec<&mut Parameter> {
        self.pretrained
            .iter_mut()
            .map(|(_, layer)| layer)
            .chain(&mut self.bottom)
            .chain(&mut self.top)
            .flat_map(Dense::parameters)
            .collect()
    }
}

impl Leaves {
    /// Gradients of the layers, and of the embeddings.
    fn gradients(
        &self,
        gradients: &mut burn::tensor::Gradients,
    ) -> (Vec<Option<Vec<f32>>>, Option<Vec<f32>>) {
        let layers = self
            .pretrained
            .iter()
            .chain(&self.bottom)
            .chain(&self.top)
            .flat_map(|layer| layer.gradients(gradients))
            .collect();
        (layers, self.embedded.grad_remove(gradients).map(host))
    }
}

/// The categorical features: user, context, item.
fn categorical(data: &Dataset) -> impl Iterator<Item = &Categorical> {
    [&data.users, &data.context, &data.items]
        .into_iter()
        .flat_map(|table| &table.categorical)
}

fn rows(data: &Dataset, requests: &[Request]) -> Rows {
    let count = requests.len();
    let users = requests.iter().map(|&(user, moment, _)| (user, moment));
    let moments = requests.iter().map(|&(_, moment, _)| moment);
    let items = requests.iter().map(|&(_, _, item)| item);
    let mut codes = encoded::user_codes(data, users.clone());
    codes.extend(encoded::codes(&data.context, moments.clone()));
    codes.extend(encoded::codes(&data.items, items.clone()));
    let tables = [&data.users, &data.context, &data.items];
    let width = tables.iter().map(|table| table.continuous.len()).sum();
    let mut continuous = vec![0.0; count * width];
    let next = encoded::user_numbers(data, users, &mut continuous, width, 0);
    let next = encoded::numbers(&data.context, moments, &mut continuous, width, next);
    encoded::numbers(&data.items, items.clone(), &mut continuous, width, next);
    Rows {
        count,
        codes,
        continuous,
        pretrained: encoded::pretrained(data, items),
    }
}

/// Scale of the dot products: 1 / √width, so that they start near 0 at any width.
pub(crate) fn scale(dim: usize) -> f32 {
    1.0 / (dim as f32).sqrt()
}

/// Indices of the pairs (i, j), j < i, in a flattened `[vectors, vectors]` matrix.
pub(crate) fn pairs(vectors: usize) -> Vec<i64> {
    (0..vectors)
        .flat_map(|i| (0..i).map(move |j| (i * vectors + j) as i64))
        .collect()
}
