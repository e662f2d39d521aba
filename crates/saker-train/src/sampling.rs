//! Which rows are learned from, in which order, how much each counts, and what is hidden in them.

use std::collections::HashSet;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use saker_pipeline::training::Training;

use crate::Error;
use crate::data::{Categorical, Dataset, OUT_OF_VOCABULARY, Split};
use crate::layers::Codes;

/// Share of the step size in this step: grows from 0 over `warmup` steps.
pub(crate) fn learning_rate(warmup: usize, number: i32) -> f32 {
    if warmup == 0 {
        1.0
    } else {
        (number as f32 / warmup as f32).min(1.0)
    }
}

/// The positive training interactions and their weights.
pub(crate) struct Positives {
    rows: Vec<u32>,
    /// By interaction row; 0 for the others.
    weights: Vec<f32>,
}

impl Positives {
    pub(crate) fn new(data: &Dataset, training: &Training) -> Result<Self, Error> {
        let mut rows = Vec::new();
        let mut weights = vec![0.0; data.interactions.user.len()];
        for of_user in data.positives(Split::Train) {
            for (place, &row) in of_user.iter().enumerate() {
                let age = 1.0 - (place + 1) as f32 / of_user.len() as f32;
                weights[row as usize] = training.recency.map_or(1.0, |recency| {
                    (-age / recency).exp() + training.recency_floor
                });
            }
            rows.extend(of_user);
        }
        if rows.len() < 2 {
            return Err(Error::Data(format!(
                "there are {} positive training interactions; training needs at least 2",
                rows.len()
            )));
        }
        Ok(Self { rows, weights })
    }

    pub(crate) fn weight(&self, row: u32) -> f32 {
        self.weights[row as usize]
    }

    /// All rows once, shuffled, in batches of `size`; a last batch of one row is left out, as it has no negatives.
    pub(crate) fn batches(&self, size: usize, rng: &mut StdRng) -> Vec<Vec<u32>> {
        let mut rows = self.rows.clone();
        rows.shuffle(rng);
        rows.chunks(size)
            .filter(|batch| batch.len() > 1)
            .map(<[u32]>::to_vec)
            .collect()
    }

    /// Logarithm of the probability that a row drawn from these is of the item: `[items]`.
    pub(crate) fn item_log_probability(&self, data: &Dataset) -> Vec<f32> {
        let mut counts = vec![0usize; data.items.rows];
        for &row in &self.rows {
            counts[data.interactions.item[row as usize] as usize] += 1;
        }
        counts
            .iter()
            .map(|&count| (count.max(1) as f32 / self.rows.len() as f32).ln())
            .collect()
    }
}

/// Features that are hidden in a share of the training rows.
pub(crate) struct Masks {
    /// Rate, columns of the users, columns of the context.
    masks: Vec<(f32, Vec<usize>, Vec<usize>)>,
}

impl Masks {
    pub(crate) fn new(data: &Dataset, training: &Training) -> Result<Self, Error> {
        let find = |columns: &[Categorical], name: &str| {
            columns.iter().position(|column| column.name == name)
        };
        let (users, context) = (&data.users.categorical, &data.context.categorical);
        if training.mask.is_empty() {
            const RATE: f32 = 0.05;
            let unknown = (0..users.len())
                .filter(|&column| users[column].cold_start == OUT_OF_VOCABULARY)
                .collect();
            let mut masks = vec![(RATE, unknown, Vec::new())];
            masks.extend(
                find(context, "device_type").map(|column| (RATE, Vec::new(), vec![column])),
            );
            return Ok(Self { masks });
        }
        let masks = training
            .mask
            .iter()
            .map(|mask| {
                let (mut of_user, mut of_context) = (Vec::new(), Vec::new());
                for name in &mask.features {
                    match (find(users, name), find(context, name)) {
                        (Some(column), _) => of_user.push(column),
                        (None, Some(column)) => of_context.push(column),
                        (None, None) => {
                            let known: Vec<&str> =
                                users.iter().chain(context).map(|column| column.name.as_str()).collect();
                            return Err(Error::Definition(format!(
                                "training.mask.features names {name}; accepted are the categorical user and context \
                                 features: {}",
                                known.join(", ")
                            )));
                        }
                    }
                }
                Ok((mask.rate, of_user, of_context))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { masks })
    }

    /// Hides user features in the codes of a batch.
    pub(crate) fn hide_user(&self, users: &mut Codes, rng: &mut StdRng) {
        let rows = users.first().map_or(0, Vec::len);
        for (rate, columns, _) in self.masks.iter().filter(|mask| !mask.1.is_empty()) {
            for row in (0..rows)
                .filter(|_| rng.random::<f32>() < *rate)
                .collect::<Vec<_>>()
            {
                columns
                    .iter()
                    .for_each(|&column| users[column][row] = OUT_OF_VOCABULARY);
            }
        }
    }

    /// Draws what is hidden in one row: columns of the users and of the context.
    pub(crate) fn draw(&self, rng: &mut StdRng) -> (Vec<usize>, Vec<usize>) {
        let (mut users, mut context) = (Vec::new(), Vec::new());
        for (rate, of_user, of_context) in &self.masks {
            if rng.random::<f32>() < *rate {
                users.extend(of_user);
                context.extend(of_context);
            }
        }
        (users, context)
    }
}

/// Where sampled negatives come from: the user's retrieved candidates, and the whole catalogue.
pub(crate) struct Negatives {
    catalogue: Vec<u32>,
    /// For each user, what retrieval returns, training positives left out.
    hard: Vec<Vec<u32>>,
    met: Vec<HashSet<u32>>,
    hard_share: f32,
}

impl Negatives {
    pub(crate) fn new(data: &Dataset, candidates: &[Vec<u32>], hard_share: f32) -> Self {
        let met: Vec<HashSet<u32>> = data
            .history(Split::Train)
            .into_iter()
            .map(|history| history.into_iter().collect())
            .collect();
        let hard = candidates
            .iter()
            .zip(&met)
            .map(|(candidates, met)| {
                candidates
                    .iter()
                    .copied()
                    .filter(|item| !met.contains(item))
                    .collect()
            })
            .collect();
        let known = data.in_vocabulary();
        let catalogue = (0..data.items.rows as u32)
            .filter(|&item| known[item as usize])
            .collect();
        Self {
            catalogue,
            hard,
            met,
            hard_share,
        }
    }

    /// An item that the user has not met in the training data.
    pub(crate) fn draw(&self, user: u32, rng: &mut StdRng) -> Option<u32> {
        const TRIES: usize = 100;
        let hard = self
            .hard
            .get(user as usize)
            .filter(|items| !items.is_empty());
        if let Some(items) = hard
            && rng.random::<f32>() < self.hard_share
        {
            return Some(items[rng.random_range(0..items.len())]);
        }
        if self.catalogue.is_empty() {
            return None;
        }
        (0..TRIES)
            .map(|_| self.catalogue[rng.random_range(0..self.catalogue.len())])
            .find(|item| !self.met[user as usize].contains(item))
    }
}
