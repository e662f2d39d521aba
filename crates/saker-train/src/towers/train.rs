//! Trains the towers on positives only. Within a batch, every other item is a negative (sampled softmax). Popular items are sampled more
//! often, so the logarithm of the sampling probability is subtracted from each logit.

use std::collections::BTreeMap;
use std::ops::Range;

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
use crate::sampling::{Hidden, Masks, Positives, Rates};

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

/// The positives of a batch, row by row.
struct Batch {
    users: Vec<UserAt>,
    items: Vec<u32>,
    weights: Vec<f32>,
    /// The user features that are hidden.
    hidden: Vec<Hidden>,
}

/// Values of a block of rows that the forward pass keeps for the backward pass.
struct Block {
    /// Places of the rows in the batch.
    rows: Range<usize>,
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

impl TowersLearner<'_> {
    /// Users, items and weights of the interactions `rows`.
    fn batch(&self, rows: &[u32], hidden: Vec<Hidden>) -> Batch {
        let interactions = &self.data.interactions;
        let user = |&row: &u32| (interactions.user[row as usize], row);
        let item = |&row: &u32| interactions.item[row as usize];
        let weight = |&row: &u32| self.learning.positives.weight(row);
        Batch {
            users: rows.iter().map(user).collect(),
            items: rows.iter().map(item).collect(),
            weights: rows.iter().map(weight).collect(),
            hidden,
        }
    }

    /// Runs both towers on a block of rows of the batch. The block's first row and the seed determine its dropout.
    fn forward(
        &self,
        model: &Towers,
        batch: &Batch,
        rows: Range<usize>,
        dropout_seed: u64,
    ) -> Block {
        let mut rng = StdRng::seed_from_u64(dropout_seed.wrapping_add(rows.start as u64));
        let mut queries = user_rows(self.data, batch.users[rows.clone()].iter().copied());
        self.masks
            .hide_users(&mut queries.codes, &batch.hidden[rows.clone()]);
        queries.dropout = model.query.dropout(self.dropout, queries.count, &mut rng);
        let mut candidates = item_rows(self.data, batch.items[rows.clone()].iter().copied());
        let learning = model.device.learning();
        if !self.learning.candidate_learns {
            let query = Forward::new(&model.query, queries, &learning);
            let of_query = host(query.vectors.clone().inner());
            let candidate = Forward::new(&model.candidate, candidates, &model.device.plain());
            return Block {
                rows,
                query,
                candidate: None,
                vectors: [of_query, host(candidate.vectors)],
            };
        }
        candidates.dropout = model
            .candidate
            .dropout(self.dropout, candidates.count, &mut rng);
        let query = Forward::new(&model.query, queries, &learning);
        let of_query = host(query.vectors.clone().inner());
        let candidate = Forward::new(&model.candidate, candidates, &learning);
        let of_candidate = host(candidate.vectors.clone().inner());
        Block {
            rows,
            query,
            candidate: Some(candidate),
            vectors: [of_query, of_candidate],
        }
    }

    /// The loss of the batch, and its gradients with respect to the outputs of both towers.
    fn output_gradients(
        &self,
        model: &Towers,
        batch: &Batch,
        blocks: &[Block],
    ) -> softmax::Gradients {
        let all = |side: usize| -> Vec<f32> {
            let of_block = |block: &Block| block.vectors[side].clone();
            blocks.iter().flat_map(of_block).collect()
        };
        softmax::gradients(
            all(0),
            all(1),
            &softmax::Batch {
                items: &batch.items,
                weights: &batch.weights,
                log_q: &self.log_q,
                temperature: self.temperature,
            },
            &model.device,
        )
    }
}

/// Continues the backward pass from the outputs of both towers through their layers. Returns the gradients of the query tower's
/// blocks and of the candidate tower's; a frozen tower has none.
fn backward(
    model: &Towers,
    blocks: Vec<Block>,
    outputs: &softmax::Gradients,
) -> (Vec<BlockGradients>, Vec<BlockGradients>) {
    let (dim, learning) = (model.query.dim(), model.device.learning());
    let (queries, candidates): (Vec<_>, Vec<_>) = blocks
        .into_par_iter()
        .map(|block| {
            let part = block.rows.start * dim..block.rows.end * dim;
            let mut towards = block.query.towards(&outputs.query[part.clone()], &learning);
            if let Some(candidate) = &block.candidate {
                towards = towards + candidate.towards(&outputs.candidate[part], &learning);
            }
            let mut found = towards.backward();
            let candidate = block.candidate;
            (
                block.query.gradients(&mut found),
                candidate.map(|candidate| candidate.gradients(&mut found)),
            )
        })
        .unzip();
    (queries, candidates.into_iter().flatten().collect())
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
        let hidden = self.masks.draw(batch.len(), rng);
        let positives = self.batch(batch, hidden);
        let dropout_seed = rng.random::<u64>();
        let blocks: Vec<Block> = model
            .device
            .blocks(batch.len())
            .into_par_iter()
            .map(|rows| self.forward(model, &positives, rows, dropout_seed))
            .collect();
        let gradients = self.output_gradients(model, &positives, &blocks);
        let (queries, candidates) = backward(model, blocks, &gradients);
        update_embeddings(
            &mut model.query.embeddings,
            &queries,
            &mut self.query_updates,
            embedding,
        );
        update_dense(model.query.layers_mut(), &queries, dense);
        update_embeddings(
            &mut model.candidate.embeddings,
            &candidates,
            &mut self.candidate_updates,
            embedding,
        );
        update_dense(model.candidate.layers_mut(), &candidates, dense);
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
