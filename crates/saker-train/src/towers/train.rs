//! Trains the towers on positives only. Within a batch, every other item is a negative (sampled softmax). Popular items are sampled more
//! often, so the logarithm of the sampling probability is subtracted from each logit.

use std::collections::BTreeMap;

use burn::tensor::{Device as Backend, Gradients, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use saker_pipeline::training::{Keep, Towers as Sizes, Training};

use super::{Leaves, Rows, Tower, Towers, item_rows, softmax, user_rows};
use crate::Error;
use crate::data::{Dataset, Split};
use crate::encoded::UserAt;
use crate::evaluate::{Held, retrieval_metrics};
use crate::factorization::Factors;
use crate::layers::{BlockGradients, host, matrix, update_dense, update_embeddings};
use crate::learning::{Learner, Session, learn};
use crate::parameter::{RowUpdates, Step};
use crate::progress::{Epoch, Stage};
use crate::sampling::{Masks, Positives, Rates};

impl Towers {
    /// Trains on the training positives of `data`. Keeps the best epoch on the validation part by `training.towers.keep`. If recalls are
    /// equal, the better NDCG@10 decides. With `training.towers.factorization` the start counts as an epoch too.
    ///
    /// # Errors
    /// Returns [`Error::Data`] without positives, [`Error::Diverged`], [`Error::Stopped`], an error for a mask of unknown features, and an
    /// error if a checkpoint cannot be written or read.
    pub fn train(
        &mut self,
        data: &Dataset,
        sizes: &Sizes,
        training: &Training,
        session: &mut Session<'_>,
    ) -> Result<Vec<Epoch>, Error> {
        let mut rates = Rates::from(&training.towers);
        if let Some(factorization) = &training.towers.factorization {
            let (met, dim) = (data.history(Split::Train), self.query.dim());
            let factors = Factors::learn(&met, data.items.rows, dim, factorization, training.seed);
            self.start_from(&factors, data)?;
            rates.is_trained = true;
        }
        let learning = Learning {
            positives: Positives::new(data, training)?,
            rates,
            candidate_learns: true,
        };
        self.learn(data, sizes, training, learning, session)
    }

    /// Continues the training with `rows` of the interactions, at the step sizes of `training.finetune`. The candidate tower stays
    /// unchanged, and with it every vector in the index. The query tower stays too if no epoch is better on the validation part.
    ///
    /// # Errors
    /// Returns an error as [`Towers::train`] does.
    pub fn finetune(
        &mut self,
        data: &Dataset,
        sizes: &Sizes,
        training: &Training,
        rows: &[u32],
        session: &mut Session<'_>,
    ) -> Result<Vec<Epoch>, Error> {
        let learning = Learning {
            positives: Positives::of(rows, data, training)?,
            rates: Rates::from(&training.towers).finetuned(&training.finetune),
            candidate_learns: false,
        };
        self.learn(data, sizes, training, learning, session)
    }

    fn learn(
        &mut self,
        data: &Dataset,
        sizes: &Sizes,
        training: &Training,
        learning: Learning,
        session: &mut Session<'_>,
    ) -> Result<Vec<Epoch>, Error> {
        let log_q = learning.positives.item_log_probability(data);
        let learner = TowersLearner {
            data,
            learning,
            dropout: training.towers.dropout,
            keep: training.towers.keep,
            temperature: sizes.temperature,
            masks: Masks::new(data, training)?,
            held: Held::new(data, Split::Validation, training.validation_users),
            log_q,
            query_updates: Vec::new(),
            candidate_updates: Vec::new(),
        };
        learn(self, learner, training.seed, session)
    }
}

/// Training data and settings.
struct Learning {
    positives: Positives,
    rates: Rates,
    /// Whether the candidate tower is trained, too.
    candidate_learns: bool,
}

struct TowersLearner<'a> {
    data: &'a Dataset,
    learning: Learning,
    dropout: f32,
    keep: Keep,
    temperature: f32,
    masks: Masks,
    held: Held,
    log_q: Vec<f32>,
    query_updates: Vec<RowUpdates>,
    candidate_updates: Vec<RowUpdates>,
}

/// Values of a block of rows that the forward pass keeps for the backward pass.
struct Block {
    query: Forward,
    /// `None` if the tower is frozen.
    candidate: Option<Forward>,
    /// Outputs of both towers, `[rows, dim]`.
    vectors: [Vec<f32>; 2],
}

/// The forward pass of one tower.
struct Forward {
    rows: Rows,
    leaves: Leaves,
    vectors: Tensor<2>,
}

impl Forward {
    fn new(tower: &Tower, rows: Rows, device: &Backend) -> Self {
        let leaves = tower.leaves(&rows, device);
        let vectors = tower.forward(&leaves, &rows, device);
        Self {
            rows,
            leaves,
            vectors,
        }
    }

    /// A scalar whose gradient with respect to the output is `gradient`, so that Burn continues the backward pass from there.
    fn towards(&self, gradient: &[f32], device: &Backend) -> Tensor<1> {
        let gradient = matrix(gradient.to_vec(), self.rows.count, device);
        (self.vectors.clone() * gradient).sum()
    }

    fn gradients(self, found: &mut Gradients) -> BlockGradients {
        let (dense, embedded) = self.leaves.gradients(found);
        BlockGradients {
            loss: 0.0,
            codes: self.rows.codes,
            embedded,
            dense,
        }
    }
}

impl Learner for TowersLearner<'_> {
    type Model = Towers;
    const STAGE: Stage = Stage::Towers;

    fn rates(&self) -> &Rates {
        &self.learning.rates
    }

    fn positives(&self) -> &Positives {
        &self.learning.positives
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
            .map(|&row| self.learning.positives.weight(row))
            .collect();
        let hidden = self.masks.draw(batch.len(), rng);
        let learning = model.device.learning();
        let (dropout, of_dropout) = (self.dropout, rng.random::<u64>());
        let candidate_learns = self.learning.candidate_learns;
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
                if candidate_learns {
                    candidates.dropout = model.candidate.dropout(dropout, queries.count, &mut rng);
                }
                let query = Forward::new(&model.query, queries, &learning);
                let of_query = host(query.vectors.clone().inner());
                if !candidate_learns {
                    let plain = model.device.plain();
                    let candidate = Forward::new(&model.candidate, candidates, &plain);
                    return Block {
                        query,
                        candidate: None,
                        vectors: [of_query, host(candidate.vectors)],
                    };
                }
                let candidate = Forward::new(&model.candidate, candidates, &learning);
                let of_candidate = host(candidate.vectors.clone().inner());
                Block {
                    query,
                    candidate: Some(candidate),
                    vectors: [of_query, of_candidate],
                }
            })
            .collect();
        let all = |side: usize| -> Vec<f32> {
            let of_block = |block: &Block| block.vectors[side].clone();
            blocks.iter().flat_map(of_block).collect()
        };
        let gradients = softmax::gradients(
            all(0),
            all(1),
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
                let part = at.start * dim..at.end * dim;
                let mut towards = block
                    .query
                    .towards(&gradients.query[part.clone()], &learning);
                if let Some(candidate) = &block.candidate {
                    towards = towards + candidate.towards(&gradients.candidate[part], &learning);
                }
                let mut found = towards.backward();
                let candidate = block.candidate;
                (
                    block.query.gradients(&mut found),
                    candidate.map(|candidate| candidate.gradients(&mut found)),
                )
            })
            .unzip();
        let candidates: Vec<BlockGradients> = candidates.into_iter().flatten().collect();
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
        let score = match self.keep {
            Keep::Recall100 => metrics.recall_100 + 1e-3 * metrics.ndcg_10,
            Keep::Ndcg10 => metrics.ndcg_10,
        };
        (score, metrics.into())
    }
}
