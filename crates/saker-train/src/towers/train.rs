//! How the towers learn: from positives alone. Within a batch, every other item is a negative (sampled softmax), and
//! since popular items are sampled more often, the logarithm of the probability of being sampled is taken off each logit.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use saker_pipeline::training::{Schedule, Towers as Sizes, Training};

use super::{Leaves, Rows, Towers, item_rows, softmax, user_rows};
use crate::Error;
use crate::data::{Dataset, Split};
use crate::encoded::UserAt;
use crate::evaluate::{Held, retrieval_metrics};
use crate::layers::{BlockGradients, host, matrix, update_dense, update_embeddings};
use crate::learning::{Learner, Session, learn};
use crate::parameter::{RowUpdates, Step};
use crate::progress::{Epoch, Stage};
use crate::sampling::{Masks, Positives};

impl Towers {
    /// Trains on the training positives of `data` and keeps the epoch with the best validation recall@100 (`NDCG@10`
    /// decides between equals).
    ///
    /// # Errors
    /// [`Error::Data`] without positives, [`Error::Diverged`], [`Error::Stopped`], a mask of unknown features, or a
    /// checkpoint that cannot be written or read.
    pub fn train(
        &mut self,
        data: &Dataset,
        sizes: &Sizes,
        training: &Training,
        session: &mut Session<'_>,
    ) -> Result<Vec<Epoch>, Error> {
        let positives = Positives::new(data, training)?;
        let log_q = positives.item_log_probability(data);
        let learner = TowersLearner {
            data,
            schedule: &training.towers,
            temperature: sizes.temperature,
            masks: Masks::new(data, training)?,
            held: Held::new(data, Split::Validation, training.validation_users),
            positives: &positives,
            log_q,
            query_updates: Vec::new(),
            candidate_updates: Vec::new(),
        };
        learn(self, learner, training.seed, session)
    }
}

struct TowersLearner<'a> {
    data: &'a Dataset,
    schedule: &'a Schedule,
    temperature: f32,
    masks: Masks,
    held: Held,
    positives: &'a Positives,
    log_q: Vec<f32>,
    query_updates: Vec<RowUpdates>,
    candidate_updates: Vec<RowUpdates>,
}

/// What is kept of a block of rows between the way forward and the way back.
struct Block {
    queries: Rows,
    candidates: Rows,
    query_leaves: Leaves,
    candidate_leaves: Leaves,
    query: burn::tensor::Tensor<2>,
    candidate: burn::tensor::Tensor<2>,
}

impl Learner for TowersLearner<'_> {
    type Model = Towers;
    const STAGE: Stage = Stage::Towers;

    fn schedule(&self) -> crate::sampling::Rates {
        self.schedule.into()
    }

    fn positives(&self) -> &Positives {
        self.positives
    }

    fn rows_per_positive(&self) -> usize {
        1
    }

    fn step(
        &mut self,
        model: &mut Towers,
        batch: &[u32],
        (dense, embedding): (Step, Step),
        rng: &mut StdRng,
    ) -> f64 {
        let interactions = &self.data.interactions;
        let users: Vec<UserAt> = batch
            .iter()
            .map(|&row| (interactions.user[row as usize], row))
            .collect();
        let items: Vec<u32> = batch
            .iter()
            .map(|&row| interactions.item[row as usize])
            .collect();
        let weights: Vec<f32> = batch
            .iter()
            .map(|&row| self.positives.weight(row))
            .collect();
        let hidden = self.masks.draw(batch.len(), rng);
        let learning = model.device.learning();
        let (dropout, of_dropout) = (self.schedule.dropout, rng.random::<u64>());
        let blocks: Vec<Block> = model
            .device
            .blocks(batch.len())
            .into_par_iter()
            .map(|block| {
                let mut rng = StdRng::seed_from_u64(of_dropout.wrapping_add(block.start as u64));
                let mut queries = user_rows(self.data, users[block.clone()].iter().copied());
                self.masks
                    .hide_users(&mut queries.codes, &hidden[block.clone()]);
                let mut candidates = item_rows(self.data, items[block].iter().copied());
                queries.dropout = model.query.dropout(dropout, queries.count, &mut rng);
                candidates.dropout = model.candidate.dropout(dropout, queries.count, &mut rng);
                let query_leaves = model.query.leaves(&queries, &learning);
                let candidate_leaves = model.candidate.leaves(&candidates, &learning);
                let query = model.query.forward(&query_leaves, &queries, &learning);
                let candidate = &model.candidate;
                let candidate = candidate.forward(&candidate_leaves, &candidates, &learning);
                Block {
                    queries,
                    candidates,
                    query_leaves,
                    candidate_leaves,
                    query,
                    candidate,
                }
            })
            .collect();
        let all = |vectors: fn(&Block) -> &burn::tensor::Tensor<2>| -> Vec<f32> {
            let values = |block| host(vectors(block).clone().inner());
            blocks.iter().flat_map(values).collect()
        };
        let gradients = softmax::gradients(
            all(|block| &block.query),
            all(|block| &block.candidate),
            &softmax::Batch {
                items: &items,
                weights: &weights,
                log_q: &self.log_q,
                temperature: self.temperature,
            },
            &model.device,
        );
        let dim = model.query.dim();
        let (queries, candidates): (Vec<_>, Vec<_>) = blocks
            .into_par_iter()
            .zip(model.device.blocks(batch.len()))
            .map(|(block, at)| {
                // The inner product with the gradient has that gradient, so that Burn goes on from there.
                let part = |gradient: &[f32]| {
                    let part = gradient[at.start * dim..at.end * dim].to_vec();
                    matrix(part, at.len(), &learning)
                };
                let towards = (block.query * part(&gradients.query)).sum()
                    + (block.candidate * part(&gradients.candidate)).sum();
                let mut found = towards.backward();
                let of = |leaves: &Leaves, rows: Rows, found: &mut _| {
                    let (dense, embedded) = leaves.gradients(found);
                    BlockGradients {
                        loss: 0.0,
                        codes: rows.codes,
                        embedded,
                        dense,
                    }
                };
                (
                    of(&block.query_leaves, block.queries, &mut found),
                    of(&block.candidate_leaves, block.candidates, &mut found),
                )
            })
            .unzip();
        for (tower, blocks, updates) in [
            (&mut model.query, &queries, &mut self.query_updates),
            (
                &mut model.candidate,
                &candidates,
                &mut self.candidate_updates,
            ),
        ] {
            update_embeddings(&mut tower.embeddings, blocks, updates, embedding);
            update_dense(tower.layers_mut(), blocks, dense);
        }
        gradients.loss
    }

    fn validate(&self, model: &Towers) -> (f64, BTreeMap<String, f64>) {
        let metrics = retrieval_metrics(model, self.data, &self.held);
        (metrics.recall_100 + 1e-3 * metrics.ndcg_10, metrics.into())
    }
}
