//! The ranker: a DLRM (Naumov et al. 2019) that says how probable a click is, for a user, a moment and an item.
//!
//! Every categorical feature has an embedding of one width; continuous features go through the bottom layers, pretrained
//! vectors through a projection, to the same width. The dot products of all pairs, and the bottom layers' output, go
//! through the top layers to one logit.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use rand::SeedableRng;
use rand::rngs::StdRng;
use saker_pipeline::training::{Ranker as Sizes, Training};

use crate::Error;
use crate::data::{Categorical, Dataset, OUT_OF_VOCABULARY, Split, Table};
use crate::evaluate::{Held, list_metrics, ranked_lists};
use crate::layers::{
    Codes, Dense, DenseLeaves, Embedding, dense_stack, embed, host, matrix, pretrained_at, stack,
    update_embeddings,
};
use crate::parameter::{Parameter, RowUpdates, Step};
use crate::progress::{Epoch, Progress, Stage, keep_best};
use crate::sampling::{Masks, Negatives, Positives, learning_rate};
use crate::towers::Towers;

/// A user's row, the interaction row that holds the context, an item's row.
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
}

/// Which row of a table a request asks for.
type RowOf = fn(&Request) -> u32;

/// A batch.
struct Rows {
    count: usize,
    codes: Codes,
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
    /// A ranker of these sizes for the features of `data`, not trained yet.
    pub fn new(sizes: &Sizes, data: &Dataset, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(2));
        let dim = sizes.embedding_dim;
        // Dot products of two random vectors of this deviation have one of about 1/8 at the usual width of 64.
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
        }
    }

    /// Starts from what retrieval has learned: the embeddings of the user's and the item's id become their towers'
    /// vectors, so that their dot product is the score of retrieval. `false`, and nothing is changed, when the widths
    /// differ.
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
            for (&code, vector) in column.codes.iter().zip(vectors.chunks_exact(dim)) {
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

    fn leaves(&self, rows: &Rows, device: &Device) -> Leaves {
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
    fn forward(&self, leaves: &Leaves, rows: &Rows, device: &Device) -> Tensor<2> {
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
        const CHUNK: usize = 4096;
        let device = Device::flex();
        requests
            .chunks(CHUNK)
            .flat_map(|chunk| {
                let rows = rows(data, chunk);
                host(activation::sigmoid(self.forward(
                    &self.leaves(&rows, &device),
                    &rows,
                    &device,
                )))
            })
            .collect()
    }

    /// Trains on the training positives of `data`, each with sampled negatives, some of them from `candidates` (what
    /// retrieval returns for each user), and keeps the epoch whose ranked lists have the best validation NDCG@10.
    ///
    /// # Errors
    /// [`Error::Data`] without positives or with the wrong number of lists, [`Error::Diverged`], [`Error::Stopped`], or a
    /// mask of unknown features.
    pub fn train(
        &mut self,
        data: &Dataset,
        training: &Training,
        candidates: &[Vec<u32>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Epoch>, Error> {
        if candidates.len() != data.users.rows {
            return Err(Error::Data(format!(
                "there are candidates for {} users; one list for each of the {} users is needed",
                candidates.len(),
                data.users.rows
            )));
        }
        let schedule = &training.ranker;
        let mut rng = StdRng::seed_from_u64(training.seed.wrapping_add(3));
        let positives = Positives::new(data, training)?;
        let masks = Masks::new(data, training)?;
        let negatives = Negatives::new(data, candidates, schedule.hard_negatives);
        let held = Held::new(data, Split::Validation);
        let device = Device::flex().autodiff();
        let mut updates = RowUpdates::default();
        let mut number = 0;
        let mut step = |model: &mut Self, batch: &[u32], rng: &mut StdRng| -> f64 {
            number += 1;
            let rate = learning_rate(schedule.warmup_steps, number);
            let (mut requests, mut labels, mut weights, mut hidden) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for &row in batch {
                let user = data.interactions.user[row as usize];
                // A positive and its negatives are one request: the same is hidden in all of them.
                let mask = masks.draw(rng);
                let items = std::iter::once(Some(data.interactions.item[row as usize])).chain(
                    (0..schedule.negatives)
                        .map(|_| negatives.draw(user, rng))
                        .collect::<Vec<_>>(),
                );
                for (place, item) in items
                    .enumerate()
                    .filter_map(|(place, item)| Some((place, item?)))
                {
                    requests.push((user, row, item));
                    labels.push(if place == 0 { 1.0 } else { 0.0 });
                    weights.push(positives.weight(row));
                    hidden.push(mask.clone());
                }
            }
            let mut rows = rows(data, &requests);
            let of_user = data.users.categorical.len();
            for (place, (users, context)) in hidden.iter().enumerate() {
                users
                    .iter()
                    .for_each(|&column| rows.codes[column][place] = OUT_OF_VOCABULARY);
                context
                    .iter()
                    .for_each(|&column| rows.codes[of_user + column][place] = OUT_OF_VOCABULARY);
            }
            let leaves = model.leaves(&rows, &device);
            let loss = cross_entropy(
                model.forward(&leaves, &rows, &device),
                &labels,
                &weights,
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
            if let Some(gradient) = leaves.embedded.grad_remove(&mut gradients) {
                update_embeddings(
                    &mut model.embeddings,
                    &rows.codes,
                    &host(gradient),
                    &mut updates,
                    embedding,
                );
            }
            for ((_, layer), leaves) in model.pretrained.iter_mut().zip(&leaves.pretrained) {
                layer.update(leaves, &mut gradients, dense);
            }
            for (layer, leaves) in model.bottom.iter_mut().zip(&leaves.bottom) {
                layer.update(leaves, &mut gradients, dense);
            }
            for (layer, leaves) in model.top.iter_mut().zip(&leaves.top) {
                layer.update(leaves, &mut gradients, dense);
            }
            value
        };
        keep_best(
            self,
            Stage::Ranker,
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
                let lists = ranked_lists(model, data, &held, candidates);
                let metrics = list_metrics(&held, |user| {
                    lists[user]
                        .iter()
                        .map(|&(item, _)| item)
                        .collect::<Vec<_>>()
                        .into()
                });
                Ok((
                    total / batches.len() as f64,
                    metrics.ndcg_10,
                    metrics.into(),
                ))
            },
        )
    }
}

/// The categorical features: user, context, item.
fn categorical(data: &Dataset) -> impl Iterator<Item = &Categorical> {
    [&data.users, &data.context, &data.items]
        .into_iter()
        .flat_map(|table| &table.categorical)
}

fn rows(data: &Dataset, requests: &[Request]) -> Rows {
    let parts: [(&Table, RowOf); 3] = [
        (&data.users, |r| r.0),
        (&data.context, |r| r.1),
        (&data.items, |r| r.2),
    ];
    let codes = parts
        .iter()
        .flat_map(|(table, row)| table.categorical.iter().map(move |column| (column, row)))
        .map(|(column, row)| {
            requests
                .iter()
                .map(|request| column.codes[row(request) as usize])
                .collect()
        })
        .collect();
    let columns: Vec<_> = parts
        .iter()
        .flat_map(|(table, row)| table.continuous.iter().map(move |column| (column, row)))
        .collect();
    let continuous = requests
        .iter()
        .flat_map(|request| {
            columns
                .iter()
                .map(move |(column, row)| column.values[row(request) as usize])
        })
        .collect();
    let ids: Vec<i32> = requests
        .iter()
        .map(|request| data.item_codes()[request.2 as usize])
        .collect();
    let pretrained = data
        .pretrained
        .iter()
        .map(|table| pretrained_at(table, &ids))
        .collect();
    Rows {
        count: requests.len(),
        codes,
        continuous,
        pretrained,
    }
}

/// The dot products are divided by the square root of the width, so that they start near 0 at any width.
pub(crate) fn scale(dim: usize) -> f32 {
    1.0 / (dim as f32).sqrt()
}

/// Places of the pairs (i, j), j < i, in a flattened `[vectors, vectors]` matrix.
pub(crate) fn pairs(vectors: usize) -> Vec<i64> {
    (0..vectors)
        .flat_map(|i| (0..i).map(move |j| (i * vectors + j) as i64))
        .collect()
}

/// Weighted mean of the binary cross-entropy in nats.
fn cross_entropy(logits: Tensor<2>, labels: &[f32], weights: &[f32], device: &Device) -> Tensor<1> {
    let rows = labels.len();
    let total: f32 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|weight| weight / total).collect();
    // -log sigmoid(z) for a positive and -log sigmoid(-z) for a negative: turn the sign of the logit.
    let signs = labels.iter().map(|label| 2.0 * label - 1.0).collect();
    let fits = logits * matrix(signs, rows, device);
    -(activation::log_sigmoid(fits) * matrix(weights, rows, device)).sum()
}
