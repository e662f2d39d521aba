//! A complete evaluation: all methods, for all users and for parts of them.

use std::collections::BTreeMap;

use rayon::prelude::*;
use saker_pipeline::training::Training;
use serde::{Deserialize, Serialize};

use super::classification::{Classification, classify};
use super::methods::{Baselines, Tuned};
use super::serving::Serving;
use super::statistics::{Difference, paired_bootstrap, standard_error};
use super::{Case, Held, LENGTHS, LONGEST, ListMetrics, items_of, ranked_lists};
use crate::Error;
use crate::data::{ByUser, Dataset, Split};
use crate::encoded::{UNKNOWN, UserAt};
use crate::factorization::FoldIn;
use crate::metrics::{auc, log_loss, recall, top_k};
use crate::ranker::Ranker;
use crate::towers::{ItemVectors, Towers};

/// The metrics of one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodMetrics {
    /// Name of the method.
    pub method: String,
    /// Lists over the whole catalogue (over the candidates for the served ones and the ranked list). With several seeds, the mean.
    pub list: ListMetrics,
    /// Standard error of the mean NDCG@10 over the requests.
    #[serde(default)]
    pub ndcg_10_error: Option<f64>,
    /// Standard error of the mean NDCG@10 over models of several seeds; `None` for one seed and for methods that are not trained.
    #[serde(default)]
    pub ndcg_10_seeds: Option<f64>,
    /// NDCG@10 minus that of the method above, on the same requests.
    #[serde(default)]
    pub above: Option<Difference>,
    /// Share of the held-out items among the first items of the list, for each of [`LENGTHS`].
    pub recall_at: Vec<(usize, f64)>,
    /// Mean over users of the area under the ROC curve among the retrieved, unseen candidates: the same items for every
    /// method.
    pub auc: f64,
}

/// A part of the requests, measured separately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Population {
    /// `warm users`, `new users`, `unknown users` or `new items`.
    pub name: String,
    /// Description of its requests.
    pub description: String,
    /// Requests measured.
    pub users: usize,
    /// All methods that can answer them.
    pub methods: Vec<MethodMetrics>,
}

/// Requests with one value of a breakdown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The value.
    pub value: String,
    /// Requests measured.
    pub users: usize,
    /// NDCG@10 by method.
    pub ndcg_10: BTreeMap<String, f64>,
}

/// A complete evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The measured part: `validation` or `test`.
    pub split: String,
    /// Users measured.
    pub users: usize,
    /// Users with held-out items; more than [`Evaluation::users`] if a sample was measured.
    pub users_held: usize,
    /// Number of candidates that retrieval returns per request.
    pub retrieval_topk: usize,
    /// Number of seeds that the models were trained with.
    pub seeds: usize,
    /// Retrieval, ranked list, and the baselines: in ascending order of NDCG@10, the best possible last.
    pub methods: Vec<MethodMetrics>,
    /// Mean negative log-likelihood of the ranker on the candidates, in nats.
    pub ranker_log_loss: f64,
    /// The baselines' settings that were tuned on the validation part.
    pub tuned: Tuned,
    /// Parts of the requests.
    pub populations: Vec<Population>,
    /// Requests by a value such as the device, for the models of the first seed.
    pub groups: BTreeMap<String, Vec<Group>>,
    /// The first seed's ranker as a classifier; `None` without positives or without negatives.
    pub classification: Option<Classification>,
}

/// Knows the user's true preference for each item, which is the upper bound for every method.
pub trait Oracle: Sync {
    /// Scores of all items, `[items]`, for the user's row at the moment of an interaction's row. For [`UNKNOWN`], the best scores that the
    /// context alone allows.
    fn scores(&self, user: u32, moment: u32) -> Vec<f32>;
}

/// A breakdown of requests by a value.
pub struct Grouping<'a> {
    /// Name, such as `hour`.
    pub name: String,
    /// The value for the interaction of a row; `None` if the row belongs to no group.
    pub value: Box<dyn Fn(u32) -> Option<String> + 'a>,
}

/// Options of an evaluation.
pub struct Options<'a> {
    /// Validation or test part.
    pub split: Split,
    /// Number of candidates that retrieval returns per request.
    pub topk: usize,
    /// Maximum number of measured users, evenly spread over all; 0: all.
    pub users: usize,
    /// The definition's table, for the negatives of [`Classification`].
    pub training: &'a Training,
    /// Breakdowns of the requests.
    pub groupings: Vec<Grouping<'a>>,
    /// The best possible answer, if it is known.
    pub oracle: Option<&'a dyn Oracle>,
    /// Receives a line per step of the work.
    pub progress: &'a mut dyn FnMut(&str),
}

/// Models of one seed.
pub struct Models<'a> {
    /// Retrieval.
    pub towers: &'a Towers,
    /// Ranking.
    pub ranker: &'a Ranker,
    /// Retrieval as in serving; `None`: exact, with an exact seen filter.
    pub serving: Option<&'a dyn Serving>,
}

const RETRIEVAL: &str = "retrieval";
const SERVED: &str = "retrieval, as served";
const RANKED: &str = "ranked list";
const POPULARITY: &str = "popularity";
const FADED: &str = "popularity, as the fallback counts it";
const CONTEXT: &str = "popularity by device, hour and weekend";
const NEIGHBOURS: &str = "item-item neighbours";
const RECENT: &str = "item-item neighbours, recent items weighted";
const EASE: &str = "EASE";
const EASE_RECENT: &str = "EASE, recent items weighted";
const IALS: &str = "iALS";
const BEST: &str = "best possible";

/// Methods that depend on the seed of the training.
const TRAINED: [&str; 3] = [RETRIEVAL, SERVED, RANKED];

/// The answer of one method to one request.
struct Answer {
    method: &'static str,
    list: ListMetrics,
    recall_at: [f64; LENGTHS.len()],
    /// Metrics of the same list for new items only, if some of them are relevant.
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

/// The models and baselines that answer requests.
struct Methods<'a> {
    data: &'a Dataset,
    models: &'a Models<'a>,
    items: ItemVectors,
    baselines: &'a Baselines,
    ials: Option<&'a FoldIn<'a>>,
    oracle: Option<&'a dyn Oracle>,
    new_items: &'a [bool],
    topk: usize,
}

/// Measures the models and the baselines. Baselines are fitted on the training part and tuned on the validation part, like the models. For
/// models of several seeds, the means are measured. The measured users bound the memory, not all users.
///
/// # Errors
/// Returns [`Error::Data`] without models, and the errors of [`Serving`].
pub fn evaluate(
    data: &Dataset,
    models: &[Models<'_>],
    options: &mut Options<'_>,
) -> Result<Evaluation, Error> {
    let Some(first) = models.first() else {
        return Err(Error::Data("there are no models to measure".to_owned()));
    };
    let split = options.split;
    let held = Held::new(data, split, options.users);
    let unknown = held.as_unknown(data, split);
    let baselines = Baselines::fit(data, options.training.seed, options.progress);
    let (ials, new_items) = (baselines.ials(), new_items(data));
    let (mut of_known, mut of_unknown) = (Vec::new(), Vec::new());
    for (seed, models) in models.iter().enumerate() {
        let methods = Methods {
            data,
            models,
            items: ItemVectors::new(models.towers, data),
            baselines: &baselines,
            ials: ials.as_ref(),
            oracle: options.oracle,
            new_items: &new_items,
            topk: options.topk,
        };
        let all = held.cases.len() + unknown.cases.len();
        let mut say = |done: usize| {
            let seed = seed + 1;
            (options.progress)(&format!("models {seed}: {done} of {all} requests answered"));
        };
        of_known.push(methods.answer(&held.cases, &mut say)?);
        of_unknown.push(methods.answer(&unknown.cases, &mut |done| say(held.cases.len() + done))?);
    }

    let answered = &of_known[0];
    let outcomes: Vec<(f32, bool)> = answered
        .iter()
        .flat_map(|answered| answered.outcomes.iter().copied())
        .collect();
    let candidates: ByUser = answered
        .iter()
        .map(|answered| &answered.candidates)
        .collect();
    let groupings = options.groupings.iter();
    Ok(Evaluation {
        split: match split {
            Split::Test => "test",
            _ => "validation",
        }
        .to_owned(),
        users: held.cases.len(),
        users_held: held.users,
        retrieval_topk: options.topk,
        seeds: models.len(),
        methods: means(&chosen(&of_known, |_, _| true), |answer| &answer.list),
        ranker_log_loss: log_loss(&outcomes).unwrap_or(f64::NAN),
        populations: populations(&baselines, &held, &of_known, &of_unknown),
        tuned: baselines.tuned.clone(),
        groups: groupings
            .map(|grouping| (grouping.name.clone(), groups(grouping, &held, answered)))
            .collect(),
        classification: classify(
            first.ranker,
            data,
            &held,
            split,
            &candidates,
            options.training,
        ),
    })
}

/// The requests for which `is_chosen` (by index and answers) returns true, of each seed.
fn chosen<'a>(
    of_seeds: &'a [Vec<Answered>],
    is_chosen: impl Fn(usize, &Answered) -> bool,
) -> Vec<Vec<&'a Answered>> {
    let of_seed = |answered: &'a Vec<Answered>| {
        let numbered = answered.iter().enumerate();
        let chosen = numbered.filter(|(place, answered)| is_chosen(*place, answered));
        chosen.map(|(_, answered)| answered).collect()
    };
    of_seeds.iter().map(of_seed).collect()
}

/// The parts of the requests that are not empty.
fn populations(
    baselines: &Baselines,
    held: &Held,
    of_known: &[Vec<Answered>],
    of_unknown: &[Vec<Answered>],
) -> Vec<Population> {
    let is_warm = |place: usize| {
        let user = held.cases[place].user as usize;
        !baselines.history.of(user).is_empty()
    };
    let population = |name: &str, description: &str, answered: Vec<Vec<&Answered>>| Population {
        name: name.to_owned(),
        description: description.to_owned(),
        users: answered[0].len(),
        methods: means(&answered, |answer| &answer.list),
    };
    let with_new = chosen(of_known, |_, answered| {
        answered
            .answers
            .iter()
            .any(|answer| answer.new_items.is_some())
    });
    let mut populations = vec![
        population(
            "warm users",
            "users with interactions in the training part",
            chosen(of_known, |place, _| is_warm(place)),
        ),
        population(
            "new users",
            "users without interactions in the training part, served with their features in the store",
            chosen(of_known, |place, _| !is_warm(place)),
        ),
        population(
            "unknown users",
            "the same requests from an id that the store does not hold: only the context is known",
            chosen(of_unknown, |_, _| true),
        ),
        Population {
            name: "new items".to_owned(),
            description: "held-out items first met in the newest tenth of the training part's time, or only after it: the same \
                          lists, measured against these items alone"
                .to_owned(),
            users: with_new[0].len(),
            methods: means(&with_new, |answer| {
                answer.new_items.as_ref().unwrap_or(&answer.list)
            }),
        },
    ];
    populations.retain(|population| population.users > 0);
    populations
}

/// Whether an item is new: its first training interaction is in the newest tenth of the training part's time, or it has none.
/// `[items]`
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
    fn answer(
        &self,
        cases: &[Case],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Answered>, Error> {
        // Bounds the memory for the ranker's rows of these requests.
        const CHUNK: usize = 256;
        let mut answered = Vec::with_capacity(cases.len());
        for cases in cases.chunks(CHUNK) {
            let users: Vec<UserAt> = cases.iter().map(Case::user_at).collect();
            let vectors = self.models.towers.vectors_of(self.data, &users);
            let retrieved = self.items.map(&vectors, |place, scores| {
                let catalogue = &self.items.catalogue;
                let candidates = top_k(scores, self.topk, |item| catalogue[item]);
                let answer = self.by_scores(RETRIEVAL, &cases[place], &candidates, scores);
                (candidates, answer)
            });
            let served = self.served(&vectors, cases, &retrieved)?;
            let ranked = ranked_lists(self.models.ranker, self.data, cases, |place| {
                served[place].clone()
            });
            let of_chunk = cases.par_iter().zip(retrieved).zip(served).zip(ranked);
            answered.par_extend(of_chunk.map(|(((case, retrieved), served), ranked)| {
                self.with_others(case, retrieved, &served, &ranked)
            }));
            progress(answered.len());
        }
        Ok(answered)
    }

    /// The candidates that serving passes to the ranker for each request.
    fn served(
        &self,
        vectors: &[f32],
        cases: &[Case],
        retrieved: &[(Vec<u32>, Answer)],
    ) -> Result<Vec<Vec<u32>>, Error> {
        let Some(serving) = self.models.serving else {
            let exact = cases.iter().zip(retrieved).map(|(case, (candidates, _))| {
                let candidates = candidates.iter().copied();
                candidates.filter(|&item| case.is_unseen(item)).collect()
            });
            return Ok(exact.collect());
        };
        let found = serving.candidates(vectors, self.topk)?;
        let of_cases = found.iter().zip(cases);
        of_cases
            .map(|(candidates, case)| serving.unseen(candidates, case))
            .collect()
    }

    fn with_others(
        &self,
        case: &Case,
        (candidates, retrieval): (Vec<u32>, Answer),
        served: &[u32],
        ranked: &[(u32, f32)],
    ) -> Answered {
        let outcomes: Vec<(f32, bool)> = ranked
            .iter()
            .map(|&(item, score)| (score, case.is_relevant(item)))
            .collect();
        let by = |method, scores: &[f32]| self.by_scores(method, case, &candidates, scores);
        let baselines = self.baselines;
        let mut answers = vec![
            by(POPULARITY, &baselines.popularity),
            by(FADED, &baselines.faded),
            by(CONTEXT, &baselines.context_scores(self.data, case)),
        ];
        if case.user != UNKNOWN {
            for (name, recency) in [(NEIGHBOURS, false), (RECENT, true)] {
                answers.push(by(name, &baselines.neighbour_scores(case, recency)));
            }
            for (name, recency) in [(EASE, false), (EASE_RECENT, true)] {
                let scores = baselines.ease_scores(case, recency);
                answers.extend(scores.map(|scores| by(name, &scores)));
            }
            let ials = self.ials.map(|ials| baselines.ials_scores(ials, case));
            answers.extend(ials.map(|scores| by(IALS, &scores)));
        }
        // The order of the index is that of the retrieval.
        let served_auc = retrieval.auc;
        answers.extend([
            retrieval,
            self.measured(SERVED, case, served, served_auc),
            self.measured(RANKED, case, &items_of(ranked), auc(&outcomes)),
        ]);
        if let Some(oracle) = self.oracle {
            answers.push(by(BEST, &oracle.scores(case.user, case.moment)));
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
        // The best possible answer has items from after the training; the other methods cannot.
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

/// Means by method, in ascending order of NDCG@10, the best possible last. The same methods answered every request, with models of every
/// seed.
fn means(
    of_seeds: &[Vec<&Answered>],
    list: impl Fn(&Answer) -> &ListMetrics,
) -> Vec<MethodMetrics> {
    let requests = of_seeds[0].len();
    let methods = of_seeds[0].first().map_or(0, |first| first.answers.len());
    let of_method = |method: usize| {
        let ndcg = |seed: usize, request: usize| {
            let answered: &Answered = of_seeds[seed][request];
            list(&answered.answers[method]).ndcg_10
        };
        let of_requests: Vec<f64> = (0..requests)
            .map(|request| mean((0..of_seeds.len()).map(|seed| ndcg(seed, request))))
            .collect();
        let means_of_seeds: Vec<f64> = (0..of_seeds.len())
            .map(|seed| mean((0..requests).map(|request| ndcg(seed, request))))
            .collect();
        let answers = || {
            let answered = of_seeds.iter().flatten();
            answered.map(|answered| &answered.answers[method])
        };
        let name = of_seeds[0][0].answers[method].method;
        let recall = |(place, &length): (usize, &usize)| {
            let recall = answers().map(|answer| answer.recall_at[place]);
            (length, mean(recall))
        };
        let metrics = MethodMetrics {
            method: name.to_owned(),
            list: ListMetrics::mean(answers().map(&list)),
            ndcg_10_error: standard_error(&of_requests),
            ndcg_10_seeds: standard_error(&means_of_seeds).filter(|_| TRAINED.contains(&name)),
            above: None,
            recall_at: LENGTHS.iter().enumerate().map(recall).collect(),
            auc: mean(answers().filter_map(|answer| answer.auc)),
        };
        (metrics, of_requests)
    };
    let mut methods: Vec<(MethodMetrics, Vec<f64>)> = (0..methods).map(of_method).collect();
    // A stable sort: equal methods keep their order.
    methods.sort_by(|(a, _), (b, _)| {
        let is_best = |metrics: &MethodMetrics| metrics.method == BEST;
        let by_kind = is_best(a).cmp(&is_best(b));
        by_kind.then(a.list.ndcg_10.total_cmp(&b.list.ndcg_10))
    });
    let above: Vec<Option<Difference>> = methods
        .par_windows(2)
        .map(|pair| paired_bootstrap(&pair[1].1, &pair[0].1))
        .collect();
    for ((metrics, _), above) in methods.iter_mut().skip(1).zip(above) {
        metrics.above = above;
    }
    methods.into_iter().map(|(metrics, _)| metrics).collect()
}

/// The mean; 0 without values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| {
        (sum + value, count + 1)
    });
    sum / count.max(1) as f64
}

fn groups(grouping: &Grouping<'_>, held: &Held, answered: &[Answered]) -> Vec<Group> {
    let mut parts: BTreeMap<(usize, String), Vec<&Answered>> = BTreeMap::new();
    for (case, answered) in held.cases.iter().zip(answered) {
        if let Some(value) = (grouping.value)(case.moment) {
            // By length first, so that numbers are in numerical order.
            let key = (value.len(), value);
            parts.entry(key).or_default().push(answered);
        }
    }
    let group = |((_, value), part): ((usize, String), Vec<&Answered>)| Group {
        value,
        users: part.len(),
        ndcg_10: means_by_name(&part),
    };
    parts.into_iter().map(group).collect()
}

fn means_by_name(answered: &[&Answered]) -> BTreeMap<String, f64> {
    let methods = answered.first().map_or(0, |first| first.answers.len());
    let of_method = |method: usize| {
        let ndcg = answered
            .iter()
            .map(|answered| answered.answers[method].list.ndcg_10);
        (answered[0].answers[method].method.to_owned(), mean(ndcg))
    };
    (0..methods).map(of_method).collect()
}
