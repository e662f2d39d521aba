//! The baselines: popularity and item-item neighbours, fitted on the training part and tuned on the validation part.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Case, Held, ListMetrics, top_k};
use crate::baselines::{ItemNeighbours, popularity};
use crate::data::{ByUser, Dataset, Split};

/// The best neighbours on the validation part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// Neighbours kept per item, history unweighted.
    pub k: usize,
    /// Neighbours kept per item, history weighted by recency.
    pub recency_k: usize,
    /// Half-life of an interaction's weight, in interactions.
    pub recency_half_life: f32,
}

const NEIGHBOURS: [usize; 7] = [5, 10, 20, 50, 100, 200, 400];
const HALF_LIVES: [f32; 4] = [5.0, 10.0, 20.0, 50.0];
/// Users that the neighbours' settings are tried on.
const TUNING_USERS: usize = 2000;

/// What is learned from the training part without a model.
pub(super) struct Baselines {
    /// Number of training interactions of each item: `[items]`.
    pub popularity: Vec<f32>,
    /// Training items of each user, oldest first.
    pub history: ByUser,
    neighbours: ItemNeighbours,
    pub tuned: Tuned,
}

impl Baselines {
    pub(super) fn fit(data: &Dataset) -> Self {
        let history = data.history(Split::Train);
        let neighbours = ItemNeighbours::fit(&history, data.items.rows);
        let validation = Held::new(data, Split::Validation, TUNING_USERS);
        let catalogue = data.in_vocabulary();
        let ndcg = |k: usize, half_life: Option<f32>| {
            let of_cases: Vec<ListMetrics> = validation
                .cases
                .par_iter()
                .map(|case| {
                    let history = history.of(case.user as usize);
                    let scores = neighbour_scores(&neighbours, history, k, half_life);
                    let list = top_k(&scores, 10, |item| {
                        catalogue[item] && case.is_unseen(item as u32)
                    });
                    ListMetrics::of(&list, &case.relevant)
                })
                .collect();
            ListMetrics::mean(&of_cases).ndcg_10
        };
        let (k, _) = best(NEIGHBOURS.map(|k| (k, None)), ndcg);
        let with_recency = NEIGHBOURS
            .iter()
            .flat_map(|&k| HALF_LIVES.map(|half_life| (k, Some(half_life))));
        let (recency_k, half_life) = best(with_recency, ndcg);
        Self {
            popularity: popularity(history.iter(), data.items.rows),
            history,
            neighbours,
            tuned: Tuned {
                k,
                recency_k,
                recency_half_life: half_life.unwrap_or(HALF_LIVES[0]),
            },
        }
    }

    /// Scores of all items by the neighbours of what the user has met: `[items]`.
    pub(super) fn neighbour_scores(&self, case: &Case, recency: bool) -> Vec<f32> {
        let history = self.history.of(case.user as usize);
        let tuned = &self.tuned;
        let (k, half_life) = if recency {
            (tuned.recency_k, Some(tuned.recency_half_life))
        } else {
            (tuned.k, None)
        };
        neighbour_scores(&self.neighbours, history, k, half_life)
    }
}

type Setting = (usize, Option<f32>);

/// The setting with the largest value, the first one among equals.
fn best(
    settings: impl IntoIterator<Item = Setting>,
    value: impl Fn(usize, Option<f32>) -> f64,
) -> Setting {
    let mut kept = ((NEIGHBOURS[0], None), f64::MIN);
    for setting in settings {
        let value = value(setting.0, setting.1);
        if value > kept.1 {
            kept = (setting, value);
        }
    }
    kept.0
}

fn neighbour_scores(
    neighbours: &ItemNeighbours,
    history: &[u32],
    k: usize,
    half_life: Option<f32>,
) -> Vec<f32> {
    let weight = |age: usize| half_life.map_or(1.0, |half| 0.5f32.powf(age as f32 / half));
    let weighted = history.iter().rev().enumerate();
    neighbours.scores(weighted.map(|(age, &item)| (item, weight(age))), k)
}
