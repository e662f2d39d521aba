//! The two towers of retrieval (Yi et al. 2019). One computes a user's vector, the other an item's, and their inner product is the score
//! of the pair.

mod softmax;
mod train;

use burn::tensor::{Device as Backend, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use saker_pipeline::training::Towers as Sizes;

use crate::Error;
use crate::data::{ByUser, Dataset, OUT_OF_VOCABULARY, Table};
use crate::device::Device;
use crate::encoded::{self, UserAt};
use crate::factorization::Factors;
use crate::layers::{
    BatchCodes, Dense, DenseLeaves, Embedding, dense_stack, embed, embedding_width, host, matrix,
    stack,
};
use crate::metrics::top_k;
use crate::parameter::Parameter;

/// One tower: embeddings, a projection of the continuous features, projections of pretrained vectors, layers.
#[derive(Clone, Debug)]
pub struct Tower {
    pub(crate) embeddings: Vec<Embedding>,
    pub(crate) continuous: Vec<String>,
    pub(crate) projection: Option<Dense>,
    pub(crate) pretrained: Vec<(String, Dense)>,
    pub(crate) layers: Vec<Dense>,
    pub(crate) normalize: bool,
}

/// A batch for one tower.
struct Rows {
    count: usize,
    codes: BatchCodes,
    continuous: Vec<f32>,
    pretrained: Vec<Vec<f32>>,
    /// Factors of the embeddings, `[rows, width]`; empty means 1.
    dropout: Vec<f32>,
}

/// The tensors of a tower in one step.
struct Leaves {
    embedded: Tensor<2>,
    projection: Option<DenseLeaves>,
    pretrained: Vec<DenseLeaves>,
    layers: Vec<DenseLeaves>,
}

impl Tower {
    fn new(sizes: &Sizes, table: &Table, pretrained: &[(String, usize)], rng: &mut StdRng) -> Self {
        let embeddings: Vec<Embedding> = table
            .categorical
            .iter()
            .map(|column| Embedding {
                name: column.name.clone(),
                table: Parameter::normal(
                    column.cardinality,
                    column.embedding_dim.unwrap_or(sizes.embedding_dim),
                    0.05,
                    rng,
                ),
            })
            .collect();
        let continuous: Vec<String> = table
            .continuous
            .iter()
            .map(|column| column.name.clone())
            .collect();
        let projection = (!continuous.is_empty())
            .then(|| Dense::new(continuous.len(), sizes.continuous_projection, rng));
        let pretrained: Vec<(String, Dense)> = pretrained
            .iter()
            .map(|(name, dim)| {
                (
                    name.clone(),
                    Dense::new(*dim, sizes.pretrained_projection, rng),
                )
            })
            .collect();
        let width = embedding_width(&embeddings)
            + projection.as_ref().map_or(0, |layer| layer.weight.columns)
            + pretrained.len() * sizes.pretrained_projection;
        let layers = dense_stack(width, &sizes.layers, rng);
        Self {
            embeddings,
            continuous,
            projection,
            pretrained,
            layers,
            normalize: sizes.normalize,
        }
    }

    /// Width of the vectors.
    pub fn dim(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.weight.columns)
    }

    fn leaves(&self, rows: &Rows, device: &Backend) -> Leaves {
        let embedded = matrix(
            embed(&self.embeddings, &rows.codes, rows.count),
            rows.count,
            device,
        );
        Leaves {
            embedded: if device.is_autodiff() {
                embedded.require_grad()
            } else {
                embedded
            },
            projection: self.projection.as_ref().map(|layer| layer.leaves(device)),
            pretrained: self
                .pretrained
                .iter()
                .map(|(_, layer)| layer.leaves(device))
                .collect(),
            layers: self
                .layers
                .iter()
                .map(|layer| layer.leaves(device))
                .collect(),
        }
    }

    /// `[rows, dim]`
    fn forward(&self, leaves: &Leaves, rows: &Rows, device: &Backend) -> Tensor<2> {
        let mut embedded = leaves.embedded.clone();
        if !rows.dropout.is_empty() {
            embedded = embedded * matrix(rows.dropout.clone(), rows.count, device);
        }
        let mut parts = vec![embedded];
        if let Some(projection) = &leaves.projection {
            parts.push(projection.forward(matrix(rows.continuous.clone(), rows.count, device)));
        }
        for (projection, vectors) in leaves.pretrained.iter().zip(&rows.pretrained) {
            parts.push(projection.forward(matrix(vectors.clone(), rows.count, device)));
        }
        let output = stack(&leaves.layers, Tensor::cat(parts, 1), false);
        if !self.normalize {
            return output;
        }
        let norm = (output.clone() * output.clone())
            .sum_dim(1)
            .sqrt()
            .clamp_min(1e-12);
        output / norm
    }

    fn start_from(
        &mut self,
        table: &Table,
        id: &str,
        factors: &[f32],
        dim: usize,
    ) -> Result<(), Error> {
        let place = self.embeddings.iter().position(|of| of.name == id);
        let width = |of: &Embedding| of.table.columns;
        let offset = place.map(|place| self.embeddings[..place].iter().map(width).sum::<usize>());
        let (Some(place), Some(offset), [layer], false) =
            (place, offset, &mut self.layers[..], self.normalize)
        else {
            return Err(Error::Definition(format!(
                "training.towers.factorization needs towers of one layer that are not normalized; towers.layers has {}",
                self.layers.len()
            )));
        };
        let embedding = &mut self.embeddings[place].table;
        let Some(column) = table.category(id).filter(|_| embedding.columns == dim) else {
            return Err(Error::Definition(format!(
                "training.towers.factorization needs embeddings of {id} as wide as the towers' vectors, {dim}; they have {}",
                embedding.columns
            )));
        };
        layer.weight.values.fill(0.0);
        for place in 0..dim {
            layer.weight.values[(offset + place) * dim + place] = 1.0;
        }
        let rows = factors.len() / dim.max(1);
        let mut mean = vec![0.0; dim];
        for row in factors.chunks_exact(dim) {
            mean.iter_mut()
                .zip(row)
                .for_each(|(mean, value)| *mean += value / rows as f32);
        }
        for row in embedding.values.chunks_exact_mut(dim) {
            row.copy_from_slice(&mean);
        }
        for (code, factors) in column.codes.iter().zip(factors.chunks_exact(dim)) {
            if code > OUT_OF_VOCABULARY {
                embedding.values[code as usize * dim..][..dim].copy_from_slice(factors);
            }
        }
        Ok(())
    }

    /// Dropout factors of the embeddings: `[count, width]`, 0 or 1 / (1 - share).
    fn dropout(&self, share: f32, count: usize, rng: &mut StdRng) -> Vec<f32> {
        if share == 0.0 {
            return Vec::new();
        }
        let kept = 1.0 / (1.0 - share);
        let factor = |_| match rng.random::<f32>() < share {
            true => 0.0,
            false => kept,
        };
        (0..count * embedding_width(&self.embeddings))
            .map(factor)
            .collect()
    }

    /// All layers, in the order of [`Leaves::gradients`].
    fn layers_mut(&mut self) -> Vec<&mut Parameter> {
        let pretrained = self.pretrained.iter_mut().map(|(_, layer)| layer);
        self.projection
            .iter_mut()
            .chain(pretrained)
            .chain(&mut self.layers)
            .flat_map(Dense::parameters)
            .collect()
    }

    /// `[count, dim]`
    fn vectors(
        &self,
        device: &Device,
        count: usize,
        rows: impl Fn(std::ops::Range<usize>) -> Rows + Sync,
    ) -> Vec<f32> {
        let blocks: Vec<Vec<f32>> = device
            .blocks(count)
            .into_par_iter()
            .map(|block| {
                let (rows, device) = (rows(block), device.plain());
                host(self.forward(&self.leaves(&rows, &device), &rows, &device))
            })
            .collect();
        blocks.concat()
    }
}

impl Leaves {
    /// Gradients of the layers, and of the embeddings.
    fn gradients(
        &self,
        gradients: &mut burn::tensor::Gradients,
    ) -> (Vec<Option<Vec<f32>>>, Option<Vec<f32>>) {
        let layers = self
            .projection
            .iter()
            .chain(&self.pretrained)
            .chain(&self.layers)
            .flat_map(|layer| layer.gradients(gradients))
            .collect();
        (layers, self.embedded.grad_remove(gradients).map(host))
    }
}

/// Both towers.
#[derive(Clone, Debug)]
pub struct Towers {
    /// The query tower, from user features to a vector.
    pub query: Tower,
    /// The candidate tower, from item features to a vector of the same width.
    pub candidate: Tower,
    device: Device,
}

impl Towers {
    /// Untrained towers of these sizes for the features of `data`.
    pub fn new(sizes: &Sizes, data: &Dataset, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let pretrained: Vec<(String, usize)> = data
            .pretrained
            .iter()
            .map(|table| (table.name.clone(), table.dim))
            .collect();
        Self {
            query: Tower::new(sizes, &data.users, &[], &mut rng),
            candidate: Tower::new(sizes, &data.items, &pretrained, &mut rng),
            device: Device::cpu(),
        }
    }

    /// The same towers on another device.
    pub fn on(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Starts from a factorisation: the embeddings of the two ids become its factors. Each tower's only layer passes them unchanged, and
    /// the other features have no effect yet. A user or item outside the vocabulary gets the mean.
    ///
    /// # Errors
    /// Returns [`Error::Definition`] if the towers have other widths or more layers.
    pub(crate) fn start_from(&mut self, factors: &Factors, data: &Dataset) -> Result<(), Error> {
        let sides = [
            (&mut self.query, &data.users, &data.user_id, &factors.users),
            (
                &mut self.candidate,
                &data.items,
                &data.item_id,
                &factors.items,
            ),
        ];
        for (tower, table, id, factors_of) in sides {
            tower.start_from(table, id, factors_of, factors.dim)?;
        }
        Ok(())
    }

    /// Vectors of users: `[users, dim]`, row-major.
    pub fn vectors_of(&self, data: &Dataset, users: &[UserAt]) -> Vec<f32> {
        self.query.vectors(&self.device, users.len(), |block| {
            user_rows(data, users[block].iter().copied())
        })
    }

    /// Vectors of all users as of their last training interaction ([`Dataset::users_when_trained`]): `[users, dim]`, row-major.
    pub fn user_vectors(&self, data: &Dataset) -> Vec<f32> {
        self.vectors_of(data, &data.users_when_trained())
    }

    /// Vectors of all items: `[items, dim]`, row-major.
    pub fn item_vectors(&self, data: &Dataset) -> Vec<f32> {
        self.candidate
            .vectors(&self.device, data.items.rows, |block| {
                item_rows(data, block.start as u32..block.end as u32)
            })
    }

    /// The `k` items of the catalogue with the largest inner product for every user at the time of the last training interaction
    /// ([`Dataset::users_when_trained`]), best first. Seen items are not removed, as in the index.
    pub fn retrieve(&self, data: &Dataset, k: usize) -> ByUser {
        self.retrieve_for(data, &data.users_when_trained(), k)
    }

    /// Like [`Towers::retrieve`], for these users at these moments.
    pub(crate) fn retrieve_for(&self, data: &Dataset, users: &[UserAt], k: usize) -> ByUser {
        // A block of users, which bounds the memory for their scores.
        const USERS: usize = 1 << 14;
        let items = ItemVectors::new(self, data);
        users
            .chunks(USERS)
            .flat_map(|users| {
                items.map(&self.vectors_of(data, users), |_, scores| {
                    top_k(scores, k, |item| items.catalogue[item])
                })
            })
            .collect()
    }
}

/// The candidate tower's output for the whole catalogue, ready for the product with users' vectors.
pub struct ItemVectors {
    /// `[dim, items]`
    transposed: Tensor<2>,
    items: usize,
    dim: usize,
    device: Device,
    /// Whether an item has its own code: `[items]`.
    pub catalogue: Vec<bool>,
}

impl ItemVectors {
    /// Runs the candidate tower over all items.
    pub fn new(towers: &Towers, data: &Dataset) -> Self {
        // The host reads the inner products at once, and they are too few per transferred value for another device.
        let device = Device::cpu();
        let vectors = matrix(towers.item_vectors(data), data.items.rows, &device.plain());
        Self {
            transposed: vectors.transpose(),
            items: data.items.rows,
            dim: towers.candidate.dim(),
            device,
            catalogue: data.in_vocabulary(),
        }
    }

    /// Calls `use_scores` with each user's index and inner products with all items, `[items]`. It runs on all cores and returns the results
    /// in the order of the users.
    ///
    /// # Shapes
    /// - `users`: `[users, dim]`
    pub fn map<T: Send>(
        &self,
        users: &[f32],
        use_scores: impl Fn(usize, &[f32]) -> T + Sync,
    ) -> Vec<T> {
        let dim = self.dim.max(1);
        let of_blocks: Vec<Vec<T>> = self
            .device
            .blocks(users.len() / dim)
            .into_par_iter()
            .map(|block| {
                let vectors = users[block.start * dim..block.end * dim].to_vec();
                let vectors = matrix(vectors, block.len(), &self.device.plain());
                let scores = host(vectors.matmul(self.transposed.clone()));
                block
                    .zip(scores.chunks_exact(self.items.max(1)))
                    .map(|(user, scores)| use_scores(user, scores))
                    .collect()
            })
            .collect();
        of_blocks.into_iter().flatten().collect()
    }
}

fn user_rows(data: &Dataset, users: impl ExactSizeIterator<Item = UserAt> + Clone) -> Rows {
    let count = users.len();
    let width = data.users.continuous.len();
    let mut continuous = vec![0.0; count * width];
    encoded::user_numbers(data, users.clone(), &mut continuous, width, 0);
    Rows {
        count,
        codes: encoded::user_codes(data, users),
        continuous,
        pretrained: Vec::new(),
        dropout: Vec::new(),
    }
}

fn item_rows(data: &Dataset, items: impl ExactSizeIterator<Item = u32> + Clone) -> Rows {
    let count = items.len();
    let width = data.items.continuous.len();
    let mut continuous = vec![0.0; count * width];
    encoded::numbers(&data.items, items.clone(), &mut continuous, width, 0);
    Rows {
        count,
        codes: encoded::codes(&data.items, items.clone()),
        continuous,
        pretrained: encoded::pretrained(data, items),
        dropout: Vec::new(),
    }
}
