//! Measuring on held-out interactions: retrieval, the ranked list, and the baselines on the same split.
//!
//! Whatever the user has met before the held-out part is taken out of every list, for every method: training items
//! when validating, training and validation items when testing. Users without held-out items do not count.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::baselines::{ItemNeighbours, popularity};
use crate::data::{Dataset, Split};
use crate::metrics::{auc, hit, log_loss, ndcg, recall};
use crate::ranker::Ranker;
use crate::towers::Towers;

/// The held-out part of a split.
#[derive(Clone, Debug)]
pub struct Held {
    /// Item rows that each user met in the part: what should be found. `[users]`
    pub relevant: Vec<HashSet<u32>>,
    /// Item rows that each user met before: what must not be returned. `[users]`
    pub seen: Vec<HashSet<u32>>,
    /// The user's first interaction of the part: the moment of the request. `[users]`
    pub moment: Vec<Option<u32>>,
}

impl Held {
    /// The validation or test part of `data`.
    pub fn new(data: &Dataset, split: Split) -> Self {
        let rows = data.positives(split);
        let moment = rows.iter().map(|rows| rows.first().copied()).collect();
        let set = |history: Vec<Vec<u32>>| -> Vec<HashSet<u32>> {
            history
                .into_iter()
                .map(|items| items.into_iter().collect())
                .collect()
        };
        let mut seen = set(data.history(Split::Train));
        if split == Split::Test {
            for (seen, more) in seen.iter_mut().zip(data.history(Split::Validation)) {
                seen.extend(more);
            }
        }
        Self {
            relevant: set(data.history(split)),
            seen,
            moment,
        }
    }

    fn users(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.relevant.len()).filter(|&user| !self.relevant[user].is_empty())
    }
}

/// Means over the users of a held-out part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListMetrics {
    /// Share of the held-out items among the first 10.
    pub recall_10: f64,
    /// … among the first 100.
    pub recall_100: f64,
    /// … among the first 300.
    pub recall_300: f64,
    /// Normalised discounted cumulative gain of the first 10.
    pub ndcg_10: f64,
    /// Share of users with a held-out item among the first 10.
    pub hit_10: f64,
}

impl From<ListMetrics> for BTreeMap<String, f64> {
    fn from(metrics: ListMetrics) -> Self {
        [
            ("recall@10", metrics.recall_10),
            ("recall@100", metrics.recall_100),
            ("recall@300", metrics.recall_300),
            ("ndcg@10", metrics.ndcg_10),
            ("hit@10", metrics.hit_10),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// Measures one list per user, best first.
pub fn list_metrics<'a>(
    held: &Held,
    list: impl Fn(usize) -> std::borrow::Cow<'a, [u32]>,
) -> ListMetrics {
    let mut sum = ListMetrics::default();
    let mut users = 0usize;
    for user in held.users() {
        let (ranked, relevant) = (list(user), &held.relevant[user]);
        sum.recall_10 += recall(&ranked, relevant, 10);
        sum.recall_100 += recall(&ranked, relevant, 100);
        sum.recall_300 += recall(&ranked, relevant, 300);
        sum.ndcg_10 += ndcg(&ranked, relevant, 10);
        sum.hit_10 += hit(&ranked, relevant, 10);
        users += 1;
    }
    let mean = |value: f64| value / users.max(1) as f64;
    ListMetrics {
        recall_10: mean(sum.recall_10),
        recall_100: mean(sum.recall_100),
        recall_300: mean(sum.recall_300),
        ndcg_10: mean(sum.ndcg_10),
        hit_10: mean(sum.hit_10),
    }
}

/// The `k` items with the largest scores among those kept, best first; ties by item row.
pub fn top_k(scores: &[f32], k: usize, keep: impl Fn(usize) -> bool) -> Vec<u32> {
    let mut items: Vec<u32> = (0..scores.len() as u32)
        .filter(|&item| keep(item as usize))
        .collect();
    let order = |a: &u32, b: &u32| {
        scores[*b as usize]
            .total_cmp(&scores[*a as usize])
            .then(a.cmp(b))
    };
    if k < items.len() {
        items.select_nth_unstable_by(k, order);
        items.truncate(k);
    }
    items.sort_unstable_by(order);
    items
}

/// Measures full lists of 300 from scores of all items: `[users, items]`.
pub fn retrieval_metrics(scores: &[f32], data: &Dataset, held: &Held) -> ListMetrics {
    let catalogue = data.in_vocabulary();
    list_metrics(held, |user| {
        let of_user = &scores[user * data.items.rows..][..data.items.rows];
        top_k(of_user, 300, |item| {
            catalogue[item] && !held.seen[user].contains(&(item as u32))
        })
        .into()
    })
}

/// The lists that serving would answer: candidates of retrieval, what was seen taken out, in the ranker's order. With
/// each item its probability. `[users]`; empty for users without held-out items.
pub fn ranked_lists(
    ranker: &Ranker,
    data: &Dataset,
    held: &Held,
    candidates: &[Vec<u32>],
) -> Vec<Vec<(u32, f32)>> {
    let mut requests = Vec::new();
    for user in held.users() {
        let Some(moment) = held.moment[user] else {
            continue;
        };
        let unseen = candidates[user]
            .iter()
            .filter(|item| !held.seen[user].contains(item));
        requests.extend(unseen.map(|&item| (user as u32, moment, item)));
    }
    let scores = ranker.scores(data, &requests);
    let mut lists = vec![Vec::new(); data.users.rows];
    for (&(user, _, item), score) in requests.iter().zip(scores) {
        lists[user as usize].push((item, score));
    }
    for list in &mut lists {
        // A stable sort: ties keep the order of retrieval, as in serving.
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
    }
    lists
}

/// How one method does on the test part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodMetrics {
    /// Name of the method.
    pub method: String,
    /// Lists over the whole catalogue (over the candidates for the ranked list).
    pub list: ListMetrics,
    /// Mean over users of the area under the ROC curve among the retrieved, unseen candidates: the same items for every
    /// method.
    pub auc: f64,
}

/// A whole evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Part that was measured: `validation` or `test`.
    pub split: String,
    /// Users with held-out items.
    pub users: usize,
    /// Candidates asked of retrieval.
    pub retrieval_topk: usize,
    /// Retrieval, ranked list, and the baselines.
    pub methods: Vec<MethodMetrics>,
    /// Mean negative log-likelihood of the ranker on the candidates, in nats.
    pub ranker_log_loss: f64,
    /// What was tuned on the validation part for the neighbours: `k`, and the weight of recency.
    pub neighbours: Tuned,
}

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

/// Measures the models and the baselines on the validation or the test part. Baselines learn from the training part and are tuned on the
/// validation part, as the models are.
pub fn evaluate(
    data: &Dataset,
    towers: &Towers,
    ranker: &Ranker,
    topk: usize,
    split: Split,
) -> Evaluation {
    let held = Held::new(data, split);
    let validation = Held::new(data, Split::Validation);
    let history = data.history(Split::Train);
    let items = data.items.rows;
    let scores = towers.scores(data);
    let catalogue = data.in_vocabulary();
    let candidates: Vec<Vec<u32>> = scores
        .chunks_exact(items.max(1))
        .map(|scores| top_k(scores, topk, |item| catalogue[item]))
        .collect();
    let ranked = ranked_lists(ranker, data, &held, &candidates);

    let fitted = ItemNeighbours::fit(&history, items);
    let plain = NEIGHBOURS.map(|k| (k, neighbour_scores(&fitted, &history, k, None)));
    let ndcg_of = |scores: &[f32]| retrieval_metrics(scores, data, &validation).ndcg_10;
    let (k, neighbours) = best(plain.into_iter(), ndcg_of);
    let recent = NEIGHBOURS
        .iter()
        .flat_map(|&k| HALF_LIVES.map(move |half_life| (k, half_life)));
    let recent = recent.map(|(k, half_life)| {
        (
            (k, half_life),
            neighbour_scores(&fitted, &history, k, Some(half_life)),
        )
    });
    let ((recency_k, recency_half_life), recent) = best(recent, ndcg_of);
    let popular = popularity(&history, items);
    let popular: Vec<f32> = (0..data.users.rows)
        .flat_map(|_| popular.iter().copied())
        .collect();

    let method = |name: &str, scores: &[f32]| MethodMetrics {
        method: name.to_owned(),
        list: retrieval_metrics(scores, data, &held),
        auc: candidate_auc(&held, &candidates, |user, item| {
            scores[user * items + item as usize]
        }),
    };
    let mut by_item = vec![f32::MIN; scores.len()];
    for (user, list) in ranked.iter().enumerate() {
        list.iter()
            .for_each(|&(item, score)| by_item[user * items + item as usize] = score);
    }
    let ranked_method = MethodMetrics {
        method: "ranked list".to_owned(),
        list: list_metrics(&held, |user| {
            ranked[user]
                .iter()
                .map(|&(item, _)| item)
                .collect::<Vec<_>>()
                .into()
        }),
        auc: candidate_auc(&held, &candidates, |user, item| {
            by_item[user * items + item as usize]
        }),
    };
    let outcomes: Vec<(f32, bool)> = ranked
        .iter()
        .enumerate()
        .flat_map(|(user, list)| list.iter().map(move |&(item, score)| (user, item, score)))
        .map(|(user, item, score)| (score, held.relevant[user].contains(&item)))
        .collect();
    Evaluation {
        split: if split == Split::Test {
            "test"
        } else {
            "validation"
        }
        .to_owned(),
        users: held.users().count(),
        retrieval_topk: topk,
        methods: vec![
            method("retrieval", &scores),
            ranked_method,
            method("popularity", &popular),
            method("item-item neighbours", &neighbours),
            method("item-item neighbours, recent items weighted", &recent),
        ],
        ranker_log_loss: log_loss(&outcomes).unwrap_or(f64::NAN),
        neighbours: Tuned {
            k,
            recency_k,
            recency_half_life,
        },
    }
}

fn best<S>(
    tried: impl Iterator<Item = (S, Vec<f32>)>,
    score: impl Fn(&[f32]) -> f64,
) -> (S, Vec<f32>) {
    let mut tried = tried.map(|(setting, scores)| (score(&scores), setting, scores));
    let mut kept = tried.next().expect("at least one setting is tried");
    for candidate in tried {
        if candidate.0 > kept.0 {
            kept = candidate;
        }
    }
    (kept.1, kept.2)
}

fn neighbour_scores(
    fitted: &ItemNeighbours,
    history: &[Vec<u32>],
    k: usize,
    half_life: Option<f32>,
) -> Vec<f32> {
    let weighted = |items: &[u32]| -> Vec<(u32, f32)> {
        let weight = |age: usize| half_life.map_or(1.0, |half| 0.5f32.powf(age as f32 / half));
        items
            .iter()
            .rev()
            .enumerate()
            .map(|(age, &item)| (item, weight(age)))
            .collect()
    };
    history
        .iter()
        .flat_map(|items| fitted.scores(weighted(items), k))
        .collect()
}

fn candidate_auc(held: &Held, candidates: &[Vec<u32>], score: impl Fn(usize, u32) -> f32) -> f64 {
    let of_users: Vec<f64> = held
        .users()
        .filter_map(|user| {
            let unseen = candidates[user]
                .iter()
                .filter(|item| !held.seen[user].contains(item));
            let scored: Vec<(f32, bool)> = unseen
                .map(|&item| (score(user, item), held.relevant[user].contains(&item)))
                .collect();
            auc(&scored)
        })
        .collect();
    of_users.iter().sum::<f64>() / of_users.len().max(1) as f64
}
