//! Trains the ranker with binary cross-entropy, on positives and on negatives sampled for each positive.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::{Device as Backend, Tensor, activation};
use rand::rngs::StdRng;
use rayon::prelude::*;
use saker_pipeline::training::Training;

use super::{Ranker, Request, rows};
use crate::Error;
use crate::candidates::Candidates;
use crate::data::Dataset;
use crate::evaluate::ranked_metrics;
use crate::layers::{BlockGradients, matrix, update_dense, update_embeddings};
use crate::learning::{Learner, Session, learn};
use crate::parameter::{RowUpdates, Step};
use crate::progress::{Epoch, Stage};
use crate::sampling::{Hidden, Masks, Negatives, Positives, Rates};

impl Ranker {
    /// Trains on the training positives of `data`, each with sampled negatives. Some negatives come from `candidates`, the items that
    /// retrieval returns for each user. Keeps the epoch whose ranked lists have the best validation NDCG@10.
    ///
    /// # Errors
    /// Returns [`Error::Data`] without positives or with the wrong number of lists, [`Error::Diverged`], [`Error::Stopped`], an error for a
    /// mask of unknown features, and an error if a checkpoint cannot be written or read.
    pub fn train(
        &mut self,
        data: &Dataset,
        training: &Training,
        candidates: &Candidates,
        session: &mut Session<'_>,
    ) -> Result<Vec<Epoch>, Error> {
        let positives = Positives::new(data, training)?;
        let rates = Rates::from(&training.ranker);
        self.learn(data, training, candidates, (positives, rates), session)
    }

    /// Continues the training with `rows` of the interactions, at the step sizes of `training.finetune`. The model stays unchanged if no
    /// epoch is better on the validation part.
    ///
    /// # Errors
    /// Returns an error as [`Ranker::train`] does.
    pub fn finetune(
        &mut self,
        data: &Dataset,
        training: &Training,
        candidates: &Candidates,
        rows: &[u32],
        session: &mut Session<'_>,
    ) -> Result<Vec<Epoch>, Error> {
        let rates = Rates::from(&training.ranker).finetuned(&training.finetune);
        let positives = Positives::of(rows, data, training)?;
        self.learn(data, training, candidates, (positives, rates), session)
    }

    fn learn(
        &mut self,
        data: &Dataset,
        training: &Training,
        candidates: &Candidates,
        (positives, rates): (Positives, Rates),
        session: &mut Session<'_>,
    ) -> Result<Vec<Epoch>, Error> {
        if candidates.of_users.users() != data.users.rows {
            return Err(Error::Data(format!(
                "there are candidates for {} users; each of the {} users needs one list",
                candidates.of_users.users(),
                data.users.rows
            )));
        }
        let hard_negatives = training.ranker.hard_negatives;
        let met = data.learned();
        let learner = RankerLearner {
            data,
            rates,
            per_positive: training.ranker.negatives,
            candidates,
            masks: Masks::new(data, training)?,
            negatives: Negatives::new(data, &candidates.of_users, met, hard_negatives),
            positives,
            updates: Vec::new(),
        };
        learn(self, learner, training.seed, session)
    }
}

struct RankerLearner<'a> {
    data: &'a Dataset,
    rates: Rates,
    /// Negatives of a positive.
    per_positive: usize,
    candidates: &'a Candidates,
    masks: Masks,
    negatives: Negatives<'a>,
    positives: Positives,
    updates: Vec<RowUpdates>,
}

/// The positives of a batch and their negatives, row by row.
#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    /// 1 for a positive, 0 for a negative.
    labels: Vec<f32>,
    /// They add up to 1.
    weights: Vec<f32>,
    hidden: Vec<Hidden>,
}

impl RankerLearner<'_> {
    /// The positives in the rows `positives` of the interactions, each with its negatives.
    fn batch(&self, positives: &[u32], rng: &mut StdRng) -> Batch {
        let interactions = &self.data.interactions;
        let mut batch = Batch::default();
        // A positive and its negatives are one request, so the same features are hidden in all of them.
        let masks = self.masks.draw(positives.len(), rng);
        for (&row, mask) in positives.iter().zip(masks) {
            let user = interactions.user[row as usize];
            let unknown = self.masks.hides_user(mask);
            let mut add = |item: u32, label: f32| {
                batch.requests.push((user, row, item));
                batch.labels.push(label);
                batch.weights.push(self.positives.weight(row));
                batch.hidden.push(mask);
            };
            add(interactions.item[row as usize], 1.0);
            for _ in 0..self.per_positive {
                if let Some(item) = self.negatives.draw(user, unknown, rng) {
                    add(item, 0.0);
                }
            }
        }
        let total: f32 = batch.weights.iter().sum();
        batch.weights.iter_mut().for_each(|weight| *weight /= total);
        batch
    }

    /// The forward and the backward pass of a block of rows of the batch.
    fn gradients(&self, model: &Ranker, batch: &Batch, block: Range<usize>) -> BlockGradients {
        let device = model.device.learning();
        let mut rows = rows(self.data, &batch.requests[block.clone()]);
        let mut others = rows.codes.split_off(self.data.users.categorical.len());
        let hidden = &batch.hidden[block.clone()];
        self.masks.hide_users(&mut rows.codes, hidden);
        self.masks.hide_context(&mut others, hidden);
        rows.codes.append(&mut others);
        let leaves = model.leaves(&rows, &device);
        let loss = cross_entropy(
            model.forward(&leaves, &rows, &device),
            &batch.labels[block.clone()],
            &batch.weights[block],
            &device,
        );
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let mut gradients = loss.backward();
        let (dense, embedded) = leaves.gradients(&mut gradients);
        BlockGradients {
            loss: value,
            codes: rows.codes,
            embedded,
            dense,
        }
    }
}

impl Learner for RankerLearner<'_> {
    type Model = Ranker;
    const STAGE: Stage = Stage::Ranker;

    fn rates(&self) -> &Rates {
        &self.rates
    }

    fn positives(&self) -> &Positives {
        &self.positives
    }

    fn rows_per_positive(&self) -> usize {
        1 + self.per_positive
    }

    fn step(
        &mut self,
        model: &mut Ranker,
        batch: &[u32],
        (dense, embedding): (Step, Step),
        rng: &mut StdRng,
    ) -> f64 {
        let batch = self.batch(batch, rng);
        let blocks: Vec<BlockGradients> = model
            .device
            .blocks(batch.requests.len())
            .into_par_iter()
            .map(|block| self.gradients(model, &batch, block))
            .collect();
        update_embeddings(&mut model.embeddings, &blocks, &mut self.updates, embedding);
        update_dense(model.layers_mut(), &blocks, dense);
        blocks.iter().map(|block| block.loss).sum()
    }

    fn validate(&self, model: &Ranker) -> (f64, BTreeMap<String, f64>) {
        let metrics = ranked_metrics(
            model,
            self.data,
            &self.candidates.held,
            &self.candidates.of_held,
        );
        (metrics.ndcg_10, metrics.into())
    }
}

/// Weighted sum of the binary cross-entropy in nats; the weights of a batch add up to 1.
fn cross_entropy(
    logits: Tensor<2>,
    labels: &[f32],
    weights: &[f32],
    device: &Backend,
) -> Tensor<1> {
    let rows = labels.len();
    // -log sigmoid(z) for a positive and -log sigmoid(-z) for a negative: change the sign of the logit.
    let signs = labels.iter().map(|label| 2.0 * label - 1.0).collect();
    let fits = logits * matrix(signs, rows, device);
    -(activation::log_sigmoid(fits) * matrix(weights.to_vec(), rows, device)).sum()
}
