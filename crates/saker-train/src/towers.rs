//! The two towers of retrieval (Yi et al. 2019): one turns a user into a vector, the other an item, and their inner
//! product says how well they fit.
//!
//! They learn from positives alone. Within a batch, every other item is a negative (sampled softmax), and since popular
//! items are sampled more often, log of the probability of being sampled is taken off each logit (logQ correction).

use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use saker_pipeline::training::{Schedule, Towers as Sizes};

use crate::Error;
use crate::data::{Dataset, Split, Table};
use crate::evaluate::{Held, retrieval_metrics, top_k};
use crate::layers::{
    Codes, Dense, DenseLeaves, Embedding, codes_at, continuous_at, dense_stack, embed,
    embedding_width, host, matrix, pretrained_at, stack, update_embeddings,
};
use crate::parameter::{Parameter, RowUpdates, Step};
use crate::progress::{Epoch, Progress, Stage, keep_best};
use crate::sampling::{Masks, Positives, learning_rate};

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
    codes: Codes,
    continuous: Vec<f32>,
    pretrained: Vec<Vec<f32>>,
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

    fn leaves(&self, rows: &Rows, device: &Device) -> Leaves {
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
    fn forward(&self, leaves: &Leaves, rows: &Rows, device: &Device) -> Tensor<2> {
        let mut parts = vec![leaves.embedded.clone()];
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

    fn update(
        &mut self,
        leaves: &Leaves,
        rows: &Rows,
        gradients: &mut burn::tensor::Gradients,
        updates: &mut RowUpdates,
        dense: Step,
        embedding: Step,
    ) {
        if let Some(gradient) = leaves.embedded.grad_remove(gradients) {
            update_embeddings(
                &mut self.embeddings,
                &rows.codes,
                &host(gradient),
                updates,
                embedding,
            );
        }
        if let (Some(layer), Some(leaves)) = (&mut self.projection, &leaves.projection) {
            layer.update(leaves, gradients, dense);
        }
        for ((_, layer), leaves) in self.pretrained.iter_mut().zip(&leaves.pretrained) {
            layer.update(leaves, gradients, dense);
        }
        for (layer, leaves) in self.layers.iter_mut().zip(&leaves.layers) {
            layer.update(leaves, gradients, dense);
        }
    }

    fn vectors(&self, rows: impl Fn(&[u32]) -> Rows, count: usize) -> Vec<f32> {
        const CHUNK: usize = 4096;
        let device = Device::flex();
        let all: Vec<u32> = (0..count as u32).collect();
        all.chunks(CHUNK)
            .flat_map(|chunk| {
                let rows = rows(chunk);
                host(self.forward(&self.leaves(&rows, &device), &rows, &device))
            })
            .collect()
    }
}

/// Both towers.
#[derive(Clone, Debug)]
pub struct Towers {
    /// User features to a vector.
    pub query: Tower,
    /// Item features to a vector of the same width.
    pub candidate: Tower,
}

impl Towers {
    /// Towers of these sizes for the features of `data`, not trained yet.
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
        }
    }

    /// Vectors of all users: `[users, dim]`, row-major.
    pub fn user_vectors(&self, data: &Dataset) -> Vec<f32> {
        self.query
            .vectors(|rows| user_rows(data, rows), data.users.rows)
    }

    /// Vectors of all items: `[items, dim]`, row-major.
    pub fn item_vectors(&self, data: &Dataset) -> Vec<f32> {
        self.candidate
            .vectors(|rows| item_rows(data, rows), data.items.rows)
    }

    /// The `k` items of the catalogue with the largest inner product for every user, best first; nothing is left out
    /// for having been seen, as in the index.
    pub fn retrieve(&self, data: &Dataset, k: usize) -> Vec<Vec<u32>> {
        let scores = self.scores(data);
        let catalogue = data.in_vocabulary();
        scores
            .chunks_exact(data.items.rows.max(1))
            .map(|scores| top_k(scores, k, |item| catalogue[item]))
            .collect()
    }

    /// Inner products of all users and items: `[users, items]`, row-major.
    pub fn scores(&self, data: &Dataset) -> Vec<f32> {
        let device = Device::flex();
        let users = matrix(self.user_vectors(data), data.users.rows, &device);
        let items = matrix(self.item_vectors(data), data.items.rows, &device);
        host(users.matmul(items.transpose()))
    }

    /// Trains on the training positives of `data` and keeps the epoch with the best validation recall@100 (`NDCG@10`
    /// decides between equals).
    ///
    /// # Errors
    /// [`Error::Data`] without positives, [`Error::Diverged`], [`Error::Stopped`], or a mask of unknown features.
    pub fn train(
        &mut self,
        data: &Dataset,
        sizes: &Sizes,
        training: &saker_pipeline::training::Training,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Epoch>, Error> {
        let schedule: &Schedule = &training.towers;
        let mut rng = StdRng::seed_from_u64(training.seed.wrapping_add(1));
        let positives = Positives::new(data, training)?;
        let masks = Masks::new(data, training)?;
        let held = Held::new(data, Split::Validation);
        let log_q = positives.item_log_probability(data);
        let device = Device::flex().autodiff();
        let mut updates = RowUpdates::default();
        let mut number = 0;
        let mut step = |model: &mut Self, batch: &[u32], rng: &mut StdRng| -> f64 {
            number += 1;
            let rate = learning_rate(schedule.warmup_steps, number);
            let users: Vec<u32> = batch
                .iter()
                .map(|&row| data.interactions.user[row as usize])
                .collect();
            let items: Vec<u32> = batch
                .iter()
                .map(|&row| data.interactions.item[row as usize])
                .collect();
            let weights: Vec<f32> = batch.iter().map(|&row| positives.weight(row)).collect();
            let mut queries = user_rows(data, &users);
            masks.hide_user(&mut queries.codes, rng);
            let candidates = item_rows(data, &items);
            let query_leaves = model.query.leaves(&queries, &device);
            let candidate_leaves = model.candidate.leaves(&candidates, &device);
            let query = model.query.forward(&query_leaves, &queries, &device);
            let candidate = model
                .candidate
                .forward(&candidate_leaves, &candidates, &device);
            let loss = in_batch_softmax(
                query,
                candidate,
                &items,
                &weights,
                &log_q,
                sizes.temperature,
                &device,
            );
            let value = f64::from(loss.clone().into_scalar::<f32>());
            let mut gradients = loss.backward();
            let dense = Step {
                number,
                rate: rate * schedule.learning_rate,
                decay: 0.0,
            };
            let embedding = Step {
                number,
                rate: rate * schedule.embedding_learning_rate,
                decay: schedule.weight_decay,
            };
            model.query.update(
                &query_leaves,
                &queries,
                &mut gradients,
                &mut updates,
                dense,
                embedding,
            );
            model.candidate.update(
                &candidate_leaves,
                &candidates,
                &mut gradients,
                &mut updates,
                dense,
                embedding,
            );
            value
        };
        keep_best(
            self,
            Stage::Towers,
            schedule.epochs,
            schedule.patience,
            progress,
            |model, report| {
                let batches = positives.batches(schedule.batch_size, &mut rng);
                let mut total = 0.0;
                for (done, batch) in batches.iter().enumerate() {
                    total += step(model, batch, &mut rng);
                    report(done + 1, batches.len())?;
                }
                let metrics = retrieval_metrics(&model.scores(data), data, &held);
                Ok((
                    total / batches.len() as f64,
                    metrics.recall_100 + 1e-3 * metrics.ndcg_10,
                    metrics.into(),
                ))
            },
        )
    }
}

fn user_rows(data: &Dataset, rows: &[u32]) -> Rows {
    Rows {
        count: rows.len(),
        codes: codes_at(data.users.categorical.iter(), rows),
        continuous: continuous_at(&data.users.continuous, rows),
        pretrained: Vec::new(),
    }
}

fn item_rows(data: &Dataset, rows: &[u32]) -> Rows {
    let ids: Vec<i32> = rows
        .iter()
        .map(|&row| data.item_codes()[row as usize])
        .collect();
    Rows {
        count: rows.len(),
        codes: codes_at(data.items.categorical.iter(), rows),
        continuous: continuous_at(&data.items.continuous, rows),
        pretrained: data
            .pretrained
            .iter()
            .map(|table| pretrained_at(table, &ids))
            .collect(),
    }
}

/// Weighted mean over the batch of -log softmax of the own item's logit among all items of the batch. Another row with
/// the same item is no negative.
fn in_batch_softmax(
    query: Tensor<2>,
    candidate: Tensor<2>,
    items: &[u32],
    weights: &[f32],
    log_q: &[f32],
    temperature: f32,
    device: &Device,
) -> Tensor<1> {
    let rows = items.len();
    let mut offsets = Vec::with_capacity(rows * rows);
    for (row, own) in items.iter().enumerate() {
        offsets.extend(items.iter().enumerate().map(|(column, item)| {
            if row != column && own == item {
                -1e9
            } else {
                -log_q[*item as usize]
            }
        }));
    }
    let own_offsets: Vec<f32> = items.iter().map(|&item| -log_q[item as usize]).collect();
    let total: f32 = weights.iter().sum();
    let weights = matrix(
        weights.iter().map(|weight| weight / total).collect(),
        rows,
        device,
    );
    let query = query / temperature;
    let own = (query.clone() * candidate.clone()).sum_dim(1) + matrix(own_offsets, rows, device);
    let logits = query.matmul(candidate.transpose()) + matrix(offsets, rows, device);
    let largest = logits.clone().detach().max_dim(1);
    let log_sum = (logits - largest.clone()).exp().sum_dim(1).log() + largest;
    ((log_sum - own) * weights).sum()
}
