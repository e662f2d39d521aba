//! Measuring on held-out interactions: retrieval, the ranked list, and baselines on the same split.
//!
//! For every method, items that the user met before the held-out part are removed from the lists: training items for validation, training
//! and validation items for the test. Such items do not count as held out either. Users without held-out items do not count.

mod classification;
mod methods;
mod report;
mod serving;
mod statistics;

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Split};
use crate::encoded::{UNKNOWN, UserAt};
use crate::metrics::{hit, ndcg, recall, top_k};
use crate::ranker::Ranker;
use crate::towers::{ItemVectors, Towers};

pub use classification::{Bin, Classification};
pub use methods::{Tuned, TunedContext};
pub use report::{
    Evaluation, Group, Grouping, MethodMetrics, Models, Options, Oracle, Population, evaluate,
};
pub use serving::Serving;
pub use statistics::{Difference, paired_bootstrap, standard_error};

/// Length of the longest list that is measured.
pub const LONGEST: usize = 300;

/// Lengths of lists for the recall curve.
pub const LENGTHS: [usize; 9] = [1, 2, 5, 10, 20, 50, 100, 200, LONGEST];

/// A request whose best answer is known: a user at the moment of the first interaction of the held-out part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The user's row, or [`UNKNOWN`].
    pub user: u32,
    /// Row of the interaction that holds the context.
    pub moment: u32,
    /// Item rows that the user met in the part but not before, so a list should contain them. In ascending order.
    pub relevant: Vec<u32>,
    /// Item rows that the user met before, so a list must not contain them. In ascending order.
    pub seen: Vec<u32>,
}

impl Case {
    /// Whether the item may be returned.
    pub fn is_unseen(&self, item: u32) -> bool {
        self.seen.binary_search(&item).is_err()
    }

    /// Whether the item should be found.
    pub fn is_relevant(&self, item: u32) -> bool {
        self.relevant.binary_search(&item).is_ok()
    }

    fn user_at(&self) -> UserAt {
        (self.user, self.moment)
    }
}

/// The held-out part of a split.
#[derive(Clone, Debug)]
pub struct Held {
    /// One per measured user, in the order of the users.
    pub cases: Vec<Case>,
    /// Users with held-out items, measured or not.
    pub users: usize,
}

impl Held {
    /// The validation or test part of `data`, with at most `limit` users (0: all), evenly spread.
    pub fn new(data: &Dataset, split: Split, limit: usize) -> Self {
        let held = data.history(split);
        // Includes interactions that are not positives: a view before the first click already reveals the click.
        let moments = data.first_rows(split);
        let mut before = vec![data.history(Split::Train)];
        if split == Split::Test {
            before.push(data.history(Split::Validation));
        }
        let sorted = |mut items: Vec<u32>| {
            items.sort_unstable();
            items.dedup();
            items
        };
        let case = |user: usize| {
            let seen = before.iter().flat_map(|history| history.of(user));
            let seen = sorted(seen.copied().collect());
            let mut relevant = sorted(held.of(user).to_vec());
            relevant.retain(|item| seen.binary_search(item).is_err());
            let moment = moments[user]?;
            (!relevant.is_empty()).then_some(Case {
                user: user as u32,
                moment,
                relevant,
                seen,
            })
        };
        let measurable: Vec<usize> = (0..held.users())
            .into_par_iter()
            .filter(|&user| !held.of(user).is_empty() && case(user).is_some())
            .collect();
        let users = measurable.len();
        let cases = match limit {
            0 => users,
            limit => limit.min(users),
        };
        let cases = (0..cases)
            .into_par_iter()
            .filter_map(|place| case(measurable[place * users / cases]))
            .collect();
        Self { cases, users }
    }

    /// The user and the moment of each request.
    pub(crate) fn users_at(&self) -> Vec<UserAt> {
        self.cases.iter().map(Case::user_at).collect()
    }

    /// The same requests from a user missing from the store: without features and history, so no item counts as seen.
    pub fn as_unknown(&self, data: &Dataset, split: Split) -> Self {
        let held = data.history(split);
        let unknown = |case: &Case| {
            let mut relevant = held.of(case.user as usize).to_vec();
            relevant.sort_unstable();
            relevant.dedup();
            Case {
                user: UNKNOWN,
                moment: case.moment,
                relevant,
                seen: Vec::new(),
            }
        };
        Self {
            cases: self.cases.iter().map(unknown).collect(),
            users: self.users,
        }
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

impl ListMetrics {
    /// One list, best first, against the relevant items in ascending order.
    pub fn of(ranked: &[u32], relevant: &[u32]) -> Self {
        Self {
            recall_10: recall(ranked, relevant, 10),
            recall_100: recall(ranked, relevant, 100),
            recall_300: recall(ranked, relevant, LONGEST),
            ndcg_10: ndcg(ranked, relevant, 10),
            hit_10: hit(ranked, relevant, 10),
        }
    }

    /// The means of several metrics; zeros if there are none.
    pub fn mean<'a>(of: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        let mut count = 0usize;
        for one in of {
            sum.recall_10 += one.recall_10;
            sum.recall_100 += one.recall_100;
            sum.recall_300 += one.recall_300;
            sum.ndcg_10 += one.ndcg_10;
            sum.hit_10 += one.hit_10;
            count += 1;
        }
        let mean = |value: f64| value / count.max(1) as f64;
        Self {
            recall_10: mean(sum.recall_10),
            recall_100: mean(sum.recall_100),
            recall_300: mean(sum.recall_300),
            ndcg_10: mean(sum.ndcg_10),
            hit_10: mean(sum.hit_10),
        }
    }
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

/// Measures the towers' lists of 300 items over the whole catalogue.
pub fn retrieval_metrics(towers: &Towers, data: &Dataset, held: &Held) -> ListMetrics {
    let items = ItemVectors::new(towers, data);
    let of_cases: Vec<ListMetrics> = held
        .cases
        .chunks(CHUNK)
        .flat_map(|cases| {
            let users: Vec<UserAt> = cases.iter().map(Case::user_at).collect();
            items.map(&towers.vectors_of(data, &users), |place, scores| {
                let case = &cases[place];
                let list = top_k(scores, LONGEST, |item| {
                    items.catalogue[item] && case.is_unseen(item as u32)
                });
                ListMetrics::of(&list, &case.relevant)
            })
        })
        .collect();
    ListMetrics::mean(&of_cases)
}

/// Cases that are computed together, which bounds the memory.
const CHUNK: usize = 4096;

/// The lists that serving would answer: these candidates in the ranker's order, without the items that the user has met. Each item has its
/// probability.
pub fn ranked_lists(
    ranker: &Ranker,
    data: &Dataset,
    cases: &[Case],
    candidates: impl Fn(usize) -> Vec<u32>,
) -> Vec<Vec<(u32, f32)>> {
    let mut requests = Vec::new();
    let mut lengths = Vec::new();
    for (place, case) in cases.iter().enumerate() {
        let before = requests.len();
        let unseen = candidates(place)
            .into_iter()
            .filter(|&item| case.is_unseen(item));
        requests.extend(unseen.map(|item| (case.user, case.moment, item)));
        lengths.push(requests.len() - before);
    }
    let scores = ranker.scores(data, &requests);
    let mut scored = requests
        .iter()
        .zip(scores)
        .map(|(request, score)| (request.2, score));
    lengths
        .into_iter()
        .map(|length| {
            let mut list: Vec<(u32, f32)> = scored.by_ref().take(length).collect();
            // A stable sort: ties keep the order of retrieval, as in serving.
            list.sort_by(|a, b| b.1.total_cmp(&a.1));
            list
        })
        .collect()
}

/// Measures the ranker's lists over these candidates, a list for each case.
pub(crate) fn ranked_metrics(
    ranker: &Ranker,
    data: &Dataset,
    held: &Held,
    candidates: &crate::data::ByUser,
) -> ListMetrics {
    let mut of_cases = Vec::with_capacity(held.cases.len());
    for (chunk, cases) in held.cases.chunks(CHUNK).enumerate() {
        let lists = ranked_lists(ranker, data, cases, |place| {
            candidates.of(chunk * CHUNK + place).to_vec()
        });
        for (list, case) in lists.iter().zip(cases) {
            of_cases.push(ListMetrics::of(&items_of(list), &case.relevant));
        }
    }
    ListMetrics::mean(&of_cases)
}

/// Metrics of the answers of serving to these requests: of the `topk` retrieved items, and of the same items in the ranker's order.
pub fn served_metrics(
    towers: &Towers,
    ranker: &Ranker,
    data: &Dataset,
    held: &Held,
    topk: usize,
) -> (ListMetrics, ListMetrics) {
    let candidates = towers.retrieve_for(data, &held.users_at(), topk);
    let of_case = |(case, candidates): (&Case, &[u32])| {
        let mut list = candidates.to_vec();
        list.retain(|&item| case.is_unseen(item));
        ListMetrics::of(&list, &case.relevant)
    };
    let retrieval: Vec<ListMetrics> = held
        .cases
        .iter()
        .zip(candidates.iter())
        .map(of_case)
        .collect();
    (
        ListMetrics::mean(&retrieval),
        ranked_metrics(ranker, data, held, &candidates),
    )
}

/// A list without its scores.
fn items_of(list: &[(u32, f32)]) -> Vec<u32> {
    list.iter().map(|&(item, _)| item).collect()
}
