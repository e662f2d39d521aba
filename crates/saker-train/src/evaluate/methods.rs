//! The baselines, fitted on the training part and tuned on the validation part.

use rayon::prelude::*;
use saker_pipeline::training::Factorization;
use serde::{Deserialize, Serialize};

use super::{Case, Held, ListMetrics};
use crate::baselines::context::{ContextTable, Setting};
use crate::baselines::{Ease, ItemNeighbours, distinct, faded_popularity, popularity, weighted};
use crate::data::{ByUser, Dataset, Split};
use crate::factorization::{Factors, FoldIn};
use crate::metrics::top_k;

/// The baselines' settings that were tuned on the validation part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// Neighbours kept per item, history unweighted.
    pub k: usize,
    /// Neighbours kept per item, history weighted by recency.
    pub recency_k: usize,
    /// Half-life of an interaction's weight, in interactions.
    pub recency_half_life: f32,
    /// Settings of the counting table: the column of the items, the half-life in days (`None`: no decay), and the width of an hour's
    /// window.
    pub context: TunedContext,
    /// λ of EASE, history unweighted; `None` if the catalogue is too large for it.
    pub ease: Option<f64>,
    /// λ of EASE and the half-life, history weighted by recency.
    pub ease_recency: Option<(f64, f32)>,
    /// Regularization and confidence of iALS; `None` if the catalogue is too large for it.
    pub ials: Option<(f32, f32)>,
}

/// The tuned settings of the counting table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedContext {
    /// Column of the items.
    pub column: String,
    /// Half-life of a count, in days.
    pub half_life_days: Option<f64>,
    /// Standard deviation of the weight of other hours.
    pub hours: f64,
}

const NEIGHBOURS: [usize; 7] = [5, 10, 20, 50, 100, 200, 400];
const HALF_LIVES: [f32; 7] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0];
const FADE_DAYS: [Option<f64>; 4] = [None, Some(7.0), Some(4.0), Some(2.0)];
const WINDOWS: [f64; 3] = [0.75, 1.5, 3.0];
const RIDGES: [f64; 7] = [10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];
const REGULARIZATIONS: [f32; 4] = [3.0, 10.0, 30.0, 100.0];
const CONFIDENCES: [f32; 3] = [2.0, 5.0, 15.0];
/// Width of the factors of iALS, and the maximum number of users whose histories it is fitted on, evenly spread.
const FACTORS: usize = 64;
const FACTOR_USERS: usize = 20_000;
/// The largest catalogue for iALS, which solves a system of equations for every item.
const FACTOR_ITEMS: usize = 20_000;
/// Maximum number of values of a column in the counting table, which has a cell for each value and hour.
const TABLE_VALUES: usize = 20_000;
/// Number of users on which settings are tuned.
const TUNING_USERS: usize = 2000;

/// Half-life, in days, of the fallback's popularity counts: the default of `saker updater --popularity-half-life`.
const SERVING_HALF_LIFE: f64 = 7.0;

/// Statistics of the training part that need neither towers nor ranker.
pub(super) struct Baselines {
    /// Number of training interactions of each item: `[items]`.
    pub popularity: Vec<f32>,
    /// The same with the decay of the fallback's counts: `[items]`.
    pub faded: Vec<f32>,
    /// Training items of each user, oldest first. An item occurs once, at its latest position.
    pub history: ByUser,
    context: ContextTable,
    neighbours: ItemNeighbours,
    ease: Option<[Ease; 2]>,
    ials: Option<(Factorization, Factors)>,
    pub tuned: Tuned,
}

impl Baselines {
    pub(super) fn fit(data: &Dataset, seed: u64, say: &mut dyn FnMut(&str)) -> Self {
        let events = data.history(Split::Train);
        let history: ByUser = events.iter().map(distinct).collect();
        let tuning = Tuning {
            data,
            history: &history,
            validation: Held::new(data, Split::Validation, TUNING_USERS),
            catalogue: data.in_vocabulary(),
        };
        let neighbours = ItemNeighbours::fit(&history, data.items.rows);
        say("tuning the neighbours");
        let ((k, _), _) = tuning.best(NEIGHBOURS.map(|k| (k, None)), |&(k, half_life), history| {
            neighbours.scores(weighted(history, half_life), k)
        });
        let with_recency = NEIGHBOURS
            .iter()
            .flat_map(|&k| HALF_LIVES.map(|half_life| (k, half_life)));
        let ((recency_k, recency_half_life), _) = tuning
            .best(with_recency, |&(k, half_life), history| {
                neighbours.scores(weighted(history, Some(half_life)), k)
            });
        say("tuning the counting table");
        let (setting, context) = tuning.context();
        say("tuning EASE");
        let ease = (data.items.rows <= Ease::MOST_ITEMS).then(|| tuning.ease());
        say("tuning iALS");
        let ials = (data.items.rows <= FACTOR_ITEMS).then(|| tuning.ials(seed));
        let (chosen, ease) = ease.unzip();
        Self {
            popularity: popularity(events.iter(), data.items.rows),
            faded: faded_popularity(data, SERVING_HALF_LIFE),
            context,
            neighbours,
            ease,
            tuned: Tuned {
                k,
                recency_k,
                recency_half_life,
                context: TunedContext {
                    column: data.items.categorical[setting.column].name.clone(),
                    half_life_days: setting.half_life_days,
                    hours: setting.hours,
                },
                ease: chosen.map(|(plain, _)| plain),
                ease_recency: chosen.map(|(_, recent)| recent),
                ials: ials
                    .as_ref()
                    .map(|(settings, _)| (settings.regularization, settings.confidence)),
            },
            ials,
            history,
        }
    }

    /// Scores of all items for the context alone: `[items]`.
    pub(super) fn context_scores(&self, data: &Dataset, case: &Case) -> Vec<f32> {
        self.context.scores(data, case.moment)
    }

    /// Scores of all items by the neighbours of the items that the user has met: `[items]`.
    pub(super) fn neighbour_scores(&self, case: &Case, recency: bool) -> Vec<f32> {
        let history = self.history.of(case.user as usize);
        let tuned = &self.tuned;
        match recency {
            true => {
                let history = weighted(history, Some(tuned.recency_half_life));
                self.neighbours.scores(history, tuned.recency_k)
            }
            false => self.neighbours.scores(weighted(history, None), tuned.k),
        }
    }

    /// Scores of all items by EASE: `[items]`; `None` if the catalogue is too large for it.
    pub(super) fn ease_scores(&self, case: &Case, recency: bool) -> Option<Vec<f32>> {
        let ease = &self.ease.as_ref()?[usize::from(recency)];
        let half_life = self.tuned.ease_recency.map(|(_, half_life)| half_life);
        let half_life = half_life.filter(|_| recency);
        Some(ease.scores(weighted(self.history.of(case.user as usize), half_life)))
    }

    /// The input of [`Baselines::ials_scores`]; `None` if the catalogue is too large for iALS.
    pub(super) fn ials(&self) -> Option<FoldIn<'_>> {
        let (settings, factors) = self.ials.as_ref()?;
        Some(FoldIn::new(factors, settings))
    }

    /// Scores of all items by iALS: `[items]`.
    pub(super) fn ials_scores(&self, ials: &FoldIn<'_>, case: &Case) -> Vec<f32> {
        ials.scores(self.history.of(case.user as usize))
    }
}

/// The validation part, on which settings are chosen.
struct Tuning<'a> {
    data: &'a Dataset,
    history: &'a ByUser,
    validation: Held,
    catalogue: Vec<bool>,
}

impl Tuning<'_> {
    /// Mean NDCG@10 of the lists that these scores give.
    fn ndcg(&self, cases: &[Case], scores: impl Fn(&Case) -> Vec<f32> + Sync) -> f64 {
        let of_cases: Vec<ListMetrics> = cases
            .par_iter()
            .map(|case| {
                let list = top_k(&scores(case), 10, |item| {
                    self.catalogue[item] && case.is_unseen(item as u32)
                });
                ListMetrics::of(&list, &case.relevant)
            })
            .collect();
        ListMetrics::mean(&of_cases).ndcg_10
    }

    /// The setting with the best scores of a history, and their NDCG@10.
    fn best<S: Clone + Sync>(
        &self,
        settings: impl IntoIterator<Item = S>,
        scores: impl Fn(&S, &[u32]) -> Vec<f32> + Sync,
    ) -> (S, f64) {
        let of_setting = |setting: S| {
            let value = self.ndcg(&self.validation.cases, |case| {
                scores(&setting, self.history.of(case.user as usize))
            });
            (setting, value)
        };
        largest(settings.into_iter().map(of_setting))
    }

    /// The counting table, tuned for unknown users: it uses no data of the user.
    fn context(&self) -> (Setting, ContextTable) {
        let strangers = self.validation.as_unknown(self.data, Split::Validation);
        let values = |column: usize| self.data.items.categorical[column].cardinality;
        let mut columns: Vec<usize> = (0..self.data.items.categorical.len()).collect();
        columns.sort_by_key(|&column| values(column));
        // Always keep the column with the fewest values, so that a table exists.
        let fitting = columns.partition_point(|&column| values(column) <= TABLE_VALUES);
        columns.truncate(fitting.max(1));
        let settings = columns.into_iter().flat_map(|column| {
            FADE_DAYS.into_iter().flat_map(move |half_life_days| {
                WINDOWS.map(|hours| Setting {
                    column,
                    half_life_days,
                    hours,
                })
            })
        });
        let fitted = settings.map(|setting| {
            let table = ContextTable::fit(self.data, setting);
            let value = self.ndcg(&strangers.cases, |case| {
                table.scores(self.data, case.moment)
            });
            ((setting, table), value)
        });
        largest(fitted).0
    }

    /// λ of the plain method, and λ and half-life of the one with recency; the two models.
    fn ease(&self) -> ((f64, (f64, f32)), [Ease; 2]) {
        type Candidate = (f64, Option<f32>, Ease);
        let mut kept: [Option<(Candidate, f64)>; 2] = [None, None];
        for ridge in RIDGES {
            let ease = Ease::fit(self.history, self.data.items.rows, ridge);
            let weights = |half_life: &Option<f32>, history: &[u32]| {
                ease.scores(weighted(history, *half_life))
            };
            let found = [
                self.best([None], weights),
                self.best(HALF_LIVES.map(Some), weights),
            ];
            for (kept, (half_life, value)) in kept.iter_mut().zip(found) {
                if kept.as_ref().is_none_or(|(_, best)| value > *best) {
                    *kept = Some(((ridge, half_life, ease.clone()), value));
                }
            }
        }
        let [plain, recent] = kept.map(|kept| kept.expect("there is a setting to choose").0);
        let recency = (recent.0, recent.1.unwrap_or(HALF_LIVES[0]));
        ((plain.0, recency), [plain.2, recent.2])
    }

    fn ials(&self, seed: u64) -> (Factorization, Factors) {
        let users = self.history.users();
        let learned = users.min(FACTOR_USERS);
        let learned: ByUser = (0..learned)
            .map(|place| self.history.of(place * users / learned))
            .collect();
        let settings = REGULARIZATIONS.iter().flat_map(|&regularization| {
            CONFIDENCES.map(|confidence| Factorization {
                regularization,
                confidence,
                iterations: 10,
            })
        });
        let items = self.data.items.rows;
        let fitted = settings.map(|settings| {
            let factors = Factors::learn(&learned, items, FACTORS, &settings, seed);
            let value = {
                let folded = FoldIn::new(&factors, &settings);
                self.ndcg(&self.validation.cases, |case| {
                    folded.scores(self.history.of(case.user as usize))
                })
            };
            ((settings, factors), value)
        });
        largest(fitted).0
    }
}

/// The element with the largest value, the first one among equals.
fn largest<T>(values: impl IntoIterator<Item = (T, f64)>) -> (T, f64) {
    let larger = |kept: (T, f64), next: (T, f64)| if next.1 > kept.1 { next } else { kept };
    let best = values.into_iter().reduce(larger);
    best.expect("there is a setting to choose")
}
