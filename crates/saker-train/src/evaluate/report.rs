//! A whole evaluation: all methods, for all users and for parts of them.

use std::collections::BTreeMap;

use rayon::prelude::*;
use saker_pipeline::training::Training;
use serde::{Deserialize, Serialize};

use super::classification::{Classification, classify};
use super::methods::{Baselines, Tuned};
use super::{Case, Held, LENGTHS, LONGEST, ListMetrics, items_of, ranked_lists, top_k};
use crate::data::{ByUser, Dataset, Split};
use crate::encoded::{UNKNOWN, UserAt};
use crate::metrics::{auc, log_loss, recall};
use crate::ranker::Ranker;
use crate::towers::{ItemVectors, Towers};

/// How one method does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodMetrics {
    /// Name of the method.
    pub method: String,
    /// Lists over the whole catalogue (over the candidates for the ranked list).
    pub list: ListMetrics,
    /// Share of the held-out items among the first so many, for each of [`LENGTHS`].
    pub recall_at: Vec<(usize, f64)>,
    /// Mean over users of the area under the ROC curve among the retrieved, unseen candidates: the same items for every
    /// method.
    pub auc: f64,
}

/// A part of the requests, measured by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Population {
    /// `warm users`, `new users`, `unknown users` or `new items`.
    pub name: String,
    /// What belongs to it.
    pub description: String,
    /// Requests measured.
    pub users: usize,
    /// All methods that can answer them.
    pub methods: Vec<MethodMetrics>,
}

/// Requests with one value of something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The value.
    pub value: String,
    /// Requests measured.
    pub users: usize,
    /// NDCG@10 by method.
    pub ndcg_10: BTreeMap<String, f64>,
}

/// A whole evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Part that was measured: `validation` or `test`.
    pub split: String,
    /// Users measured.
    pub users: usize,
    /// Users with held-out items; more than [`Evaluation::users`] where a sample was measured.
    pub users_held: usize,
    /// Candidates asked of retrieval.
    pub retrieval_topk: usize,
    /// Retrieval, ranked list, and the baselines.
    pub methods: Vec<MethodMetrics>,
    /// Mean negative log-likelihood of the ranker on the candidates, in nats.
    pub ranker_log_loss: f64,
    /// What was tuned on the validation part for the neighbours: `k`, and the weight of recency.
    pub neighbours: Tuned,
    /// Parts of the requests.
    pub populations: Vec<Population>,
    /// Requests by the value of something, such as the device.
    pub groups: BTreeMap<String, Vec<Group>>,
    /// The ranker as a classifier; `None` where there are no rows of both kinds.
    pub classification: Option<Classification>,
}

/// Knows how much a user would really like each item: the best that any method could do.
pub trait Oracle: Sync {
    /// Scores of all items, `[items]`, for the user's row at the moment of an interaction's row; for [`UNKNOWN`] the best
    /// that can be known of the context alone.
    fn scores(&self, user: u32, moment: u32) -> Vec<f32>;
}

/// Something by which requests are told apart.
pub struct Grouping<'a> {
    /// Name, such as `hour`.
    pub name: String,
    /// The value for the interaction of this row; `None`: it belongs nowhere.
    pub value: Box<dyn Fn(u32) -> Option<String> + 'a>,
}

/// What is measured, and how.
pub struct Options<'a> {
    /// Validation or test part.
    pub split: Split,
    /// Candidates asked of retrieval.
    pub topk: usize,
    /// Users measured at most, evenly spread over all; 0: all.
    pub users: usize,
    /// The definition's table, for the negatives of [`Classification`].
    pub training: &'a Training,
    /// What requests are told apart by.
    pub groupings: Vec<Grouping<'a>>,
    /// The best possible, where it is known.
    pub oracle: Option<&'a dyn Oracle>,
    /// Told the number of requests answered and of all.
    pub progress: &'a mut dyn FnMut(usize, usize),
}

const RETRIEVAL: &str = "retrieval";
const RANKED: &str = "ranked list";
const POPULARITY: &str = "popularity";
const NEIGHBOURS: &str = "item-item neighbours";
const RECENT: &str = "item-item neighbours, recent items weighted";
const BEST: &str = "best possible";

/// What one method answered to one request.
struct Answer {
    method: &'static str,
    list: ListMetrics,
    recall_at: [f64; LENGTHS.len()],
    /// The same list against new items alone, where some of them are relevant.
    new_items: Option<ListMetrics>,
    auc: Option<f64>,
}

/// Everything about one request.
struct Answered {
    answers: Vec<Answer>,
    candidates: Vec<u32>,
    /// The ranker's probabilities of the candidates.
    outcomes: Vec<(f32, bool)>,
}

/// What answers requests.
struct Methods<'a> {
    data: &'a Dataset,
    towers: &'a Towers,
    items: ItemVectors,
    ranker: &'a Ranker,
    baselines: &'a Baselines,
    oracle: Option<&'a dyn Oracle>,
    new_items: &'a [bool],
    topk: usize,
}

/// Measures the models and the baselines. Baselines learn from the training part and are tuned on the validation part, as
/// the models are. Memory is bounded by the number of users measured, whatever the number of all.
pub fn evaluate(
    data: &Dataset,
    towers: &Towers,
    ranker: &Ranker,
    options: &mut Options<'_>,
) -> Evaluation {
    let split = options.split;
    let held = Held::new(data, split, options.users);
    let unknown = held.as_unknown(data, split);
    let baselines = Baselines::fit(data);
    let new_items = new_items(data);
    let methods = Methods {
        data,
        towers,
        items: ItemVectors::new(towers, data),
        ranker,
        baselines: &baselines,
        oracle: options.oracle,
        new_items: &new_items,
        topk: options.topk,
    };
    let all = held.cases.len() + unknown.cases.len();
    let answered = methods.answer(&held.cases, &mut |done| (options.progress)(done, all));
    let of_unknown = methods.answer(&unknown.cases, &mut |done| {
        (options.progress)(held.cases.len() + done, all);
    });

    let is_warm = |case: &Case| !baselines.history.of(case.user as usize).is_empty();
    let part = |warm: bool| {
        let cases = held.cases.iter().zip(&answered);
        cases
            .filter(|(case, _)| is_warm(case) == warm)
            .map(|(_, answered)| answered)
            .collect::<Vec<_>>()
    };
    let mut populations = vec![
        population(
            "warm users",
            "users with interactions in the training part",
            &part(true),
        ),
        population(
            "new users",
            "users without interactions in the training part, served with what the store holds of them",
            &part(false),
        ),
        population(
            "unknown users",
            "the same requests from an id that the store does not hold: only the context is known",
            &of_unknown.iter().collect::<Vec<_>>(),
        ),
        new_items_population(&answered),
    ];
    populations.retain(|population| population.users > 0);

    let outcomes: Vec<(f32, bool)> = answered
        .iter()
        .flat_map(|answered| answered.outcomes.iter().copied())
        .collect();
    let candidates: ByUser = answered
        .iter()
        .map(|answered| &answered.candidates)
        .collect();
    Evaluation {
        split: if split == Split::Test {
            "test"
        } else {
            "validation"
        }
        .to_owned(),
        users: held.cases.len(),
        users_held: held.users,
        retrieval_topk: options.topk,
        methods: means(&answered.iter().collect::<Vec<_>>()),
        ranker_log_loss: log_loss(&outcomes).unwrap_or(f64::NAN),
        neighbours: baselines.tuned,
        populations,
        groups: options
            .groupings
            .iter()
            .map(|grouping| (grouping.name.clone(), groups(grouping, &held, &answered)))
            .collect(),
        classification: classify(ranker, data, &held, split, &candidates, options.training),
    }
}

/// Items that came late: their first training interaction is in the newest tenth of the time that the training part
/// spans, or they have none. `[items]`
fn new_items(data: &Dataset) -> Vec<bool> {
    let mut first = vec![i32::MAX; data.items.rows];
    let (mut from, mut to) = (i32::MAX, i32::MIN);
    let interactions = &data.interactions;
    let rows = 0..interactions.user.len() as u32;
    for row in rows.filter(|&row| data.is_positive(row, Split::Train)) {
        let time = interactions.timestamp[row as usize];
        let first = &mut first[interactions.item[row as usize] as usize];
        *first = time.min(*first);
        (from, to) = (from.min(time), to.max(time));
    }
    let newest = f64::from(to) - 0.1 * (f64::from(to) - f64::from(from));
    first
        .iter()
        .map(|&first| f64::from(first) >= newest)
        .collect()
}

impl Methods<'_> {
    fn answer(&self, cases: &[Case], progress: &mut dyn FnMut(usize)) -> Vec<Answered> {
        // The ranker's rows of so many requests are in memory together.
        const CHUNK: usize = 256;
        let mut answered = Vec::with_capacity(cases.len());
        for cases in cases.chunks(CHUNK) {
            let users: Vec<UserAt> = cases.iter().map(Case::user_at).collect();
            let vectors = self.towers.vectors_of(self.data, &users);
            let retrieved = self.items.map(&vectors, |place, scores| {
                let catalogue = &self.items.catalogue;
                let candidates = top_k(scores, self.topk, |item| catalogue[item]);
                let answer = self.by_scores(RETRIEVAL, &cases[place], &candidates, scores);
                (candidates, answer)
            });
            let ranked = ranked_lists(self.ranker, self.data, cases, |place| {
                retrieved[place].0.clone()
            });
            answered.par_extend(
                cases
                    .par_iter()
                    .zip(retrieved)
                    .zip(ranked)
                    .map(|((case, retrieved), ranked)| self.with_others(case, retrieved, &ranked)),
            );
            progress(answered.len());
        }
        answered
    }

    fn with_others(
        &self,
        case: &Case,
        (candidates, retrieval): (Vec<u32>, Answer),
        ranked: &[(u32, f32)],
    ) -> Answered {
        let outcomes: Vec<(f32, bool)> = ranked
            .iter()
            .map(|&(item, score)| (score, case.is_relevant(item)))
            .collect();
        let mut answers = vec![
            retrieval,
            self.measured(RANKED, case, &items_of(ranked), auc(&outcomes)),
            self.by_scores(POPULARITY, case, &candidates, &self.baselines.popularity),
        ];
        if case.user != UNKNOWN {
            for (name, recency) in [(NEIGHBOURS, false), (RECENT, true)] {
                let scores = self.baselines.neighbour_scores(case, recency);
                answers.push(self.by_scores(name, case, &candidates, &scores));
            }
        }
        if let Some(oracle) = self.oracle {
            let scores = oracle.scores(case.user, case.moment);
            answers.push(self.by_scores(BEST, case, &candidates, &scores));
        }
        Answered {
            answers,
            candidates,
            outcomes,
        }
    }

    fn by_scores(
        &self,
        method: &'static str,
        case: &Case,
        candidates: &[u32],
        scores: &[f32],
    ) -> Answer {
        // The best possible knows items that came after the training, the others cannot.
        let knows = |item: usize| method == BEST || self.items.catalogue[item];
        let list = top_k(scores, LONGEST, |item| {
            knows(item) && case.is_unseen(item as u32)
        });
        let scored: Vec<(f32, bool)> = candidates
            .iter()
            .filter(|&&item| case.is_unseen(item))
            .map(|&item| (scores[item as usize], case.is_relevant(item)))
            .collect();
        self.measured(method, case, &list, auc(&scored))
    }

    fn measured(
        &self,
        method: &'static str,
        case: &Case,
        list: &[u32],
        auc: Option<f64>,
    ) -> Answer {
        let mut new = case.relevant.clone();
        new.retain(|&item| self.new_items[item as usize]);
        Answer {
            method,
            list: ListMetrics::of(list, &case.relevant),
            recall_at: LENGTHS.map(|length| recall(list, &case.relevant, length)),
            new_items: (!new.is_empty()).then(|| ListMetrics::of(list, &new)),
            auc,
        }
    }
}

fn population(name: &str, description: &str, answered: &[&Answered]) -> Population {
    Population {
        name: name.to_owned(),
        description: description.to_owned(),
        users: answered.len(),
        methods: means(answered),
    }
}

fn new_items_population(answered: &[Answered]) -> Population {
    let with_new: Vec<&Answered> = answered
        .iter()
        .filter(|answered| {
            answered
                .answers
                .iter()
                .any(|answer| answer.new_items.is_some())
        })
        .collect();
    let mut population = population(
        "new items",
        "held-out items first met in the newest tenth of the training part's time, or not at all in it: the same lists, \
         measured against these items alone",
        &with_new,
    );
    for (place, method) in population.methods.iter_mut().enumerate() {
        let lists = with_new
            .iter()
            .filter_map(|answered| answered.answers[place].new_items.as_ref());
        method.list = ListMetrics::mean(lists);
    }
    population
}

/// Means by method; every request has been answered by the same ones.
fn means(answered: &[&Answered]) -> Vec<MethodMetrics> {
    let methods = answered.first().map_or(0, |first| first.answers.len());
    let of_method = |place: usize| {
        let answers = || {
            answered
                .iter()
                .map(move |answered| &answered.answers[place])
        };
        let aucs: Vec<f64> = answers().filter_map(|answer| answer.auc).collect();
        MethodMetrics {
            method: answered[0].answers[place].method.to_owned(),
            list: ListMetrics::mean(answers().map(|answer| &answer.list)),
            recall_at: LENGTHS
                .iter()
                .enumerate()
                .map(|(place, &length)| {
                    let sum: f64 = answers().map(|answer| answer.recall_at[place]).sum();
                    (length, sum / answered.len() as f64)
                })
                .collect(),
            auc: aucs.iter().sum::<f64>() / aucs.len().max(1) as f64,
        }
    };
    (0..methods).map(of_method).collect()
}

fn groups(grouping: &Grouping<'_>, held: &Held, answered: &[Answered]) -> Vec<Group> {
    let mut parts: BTreeMap<(usize, String), Vec<&Answered>> = BTreeMap::new();
    for (case, answered) in held.cases.iter().zip(answered) {
        if let Some(value) = (grouping.value)(case.moment) {
            // By length first, so that numbers are in their order.
            let key = (value.len(), value);
            parts.entry(key).or_default().push(answered);
        }
    }
    let group = |((_, value), part): ((usize, String), Vec<&Answered>)| Group {
        value,
        users: part.len(),
        ndcg_10: means(&part)
            .into_iter()
            .map(|method| (method.method, method.list.ndcg_10))
            .collect(),
    };
    parts.into_iter().map(group).collect()
}
