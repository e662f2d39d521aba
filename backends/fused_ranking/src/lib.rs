//! `fused_ranking`: from a query vector to the items that are shown, in one step: retrieval, the ranker over the whole catalogue's
//! precomputed rows, what the user has seen (asked of the store while the ranker runs), and the choice. README.md has the tensors,
//! the parameters and what happens at the edges.

mod catalogue;
mod ranker;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use saker_steps::retrieval::{self, Retrieval};
use saker_steps::seen::{self, Filter, PADDING, Row};
use saker_steps::select::{self, Choice};
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
};

use crate::catalogue::Catalogue;
use crate::ranker::{Features, Ranker, Run};

const IDS: &[DataType] = &[DataType::Int32, DataType::Int64];

/// Raw ids of the rows of the ranker's tables.
const CATALOGUE_FILE: &str = "items.npy";

/// Positions of the inputs that every model has.
const QUERY: usize = 0;
const USER: usize = 1;

/// Parameters in config.pbtxt, beside those of `faiss_retrieval`, `bloom_filter` and `softmax_sampling`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// The input with the users' top categories, whose popular items fill up.
    #[serde(default)]
    category_input: Option<String>,
    /// Threads of ONNX Runtime for one request.
    #[serde(default = "one", rename = "intra_op_thread_count")]
    threads: NonZeroUsize,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// A loaded model.
pub struct FusedRanking {
    retrieval: Retrieval,
    catalogue: Catalogue,
    ranker: Ranker,
    filter: Filter,
    choice: Choice,
    user_name: String,
    category: Option<usize>,
    item_type: DataType,
}

/// One instance: its session, its connections and its buffers.
pub struct Worker {
    run: Run,
    seen: seen::Worker,
    choice: select::Worker,
    queries: Vec<f32>,
    distances: Vec<f32>,
    found: Vec<i64>,
    rows: Vec<i32>,
    /// Scores of the candidates, user after user.
    scores: Vec<f32>,
}

/// The users of one request.
struct Share {
    /// Index in the batch.
    index: usize,
    users: Range<usize>,
}

impl Model for FusedRanking {
    type Parameters = (
        seen::Parameters,
        retrieval::Parameters,
        select::Parameters,
        Parameters,
    );
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new()
            .other_inputs(&[DataType::Fp32, DataType::Int32, DataType::Int64])
            .other_outputs(&[DataType::Fp32, DataType::Int32, DataType::Int64])
    }

    fn load(
        context: &Arc<ModelContext>,
        (seen, retrieval, choice, parameters): Self::Parameters,
    ) -> Result<Self, Error> {
        let config = context.config();
        let ([query, user, ..], [ids, scores]) = (config.inputs(), config.outputs()) else {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares {} inputs and {} outputs; accepted: the query vectors, the user ids and the \
                 ranker's features; the ids of the items that are shown, and their scores",
                config.inputs().len(),
                config.outputs().len()
            )));
        };
        let of_type = |what: &str, name: &str, found: DataType, accepted: &[DataType]| {
            let names: Vec<String> = accepted.iter().map(ToString::to_string).collect();
            match accepted.contains(&found) {
                true => Ok(()),
                false => Err(Error::invalid_argument(format!(
                    "{what} '{name}' is {found}; accepted: {}",
                    names.join(", ")
                ))),
            }
        };
        of_type("input", &query.name, query.data_type, &[DataType::Fp32])?;
        of_type("input", &user.name, user.data_type, IDS)?;
        of_type("output", &ids.name, ids.data_type, IDS)?;
        of_type("output", &scores.name, scores.data_type, &[DataType::Fp32])?;
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: several users come as rows of one flat tensor",
            ));
        }
        let category = match &parameters.category_input {
            None => None,
            Some(name) => {
                of_type("input", name, config.input(name)?.data_type, IDS)?;
                config.input_index(name)
            }
        };
        let is_feature = |place: usize| place > USER && Some(place) != category;
        Ok(Self {
            retrieval: Retrieval::load(context, query, &retrieval)?,
            catalogue: Catalogue::read(&context.version_dir().join(CATALOGUE_FILE))?,
            ranker: Ranker::load(context, parameters.threads.get(), is_feature)?,
            filter: Filter::load(context, &seen, user.data_type)?,
            choice: Choice::new(&choice)?,
            user_name: user.name.clone(),
            category,
            item_type: ids.data_type,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker {
            run: self.ranker.run()?,
            seen: seen::Worker::new(&self.filter),
            choice: self.choice.worker(),
            queries: Vec::new(),
            distances: Vec::new(),
            found: Vec::new(),
            rows: Vec::new(),
            scores: Vec::new(),
        })
    }
}

impl Instance<FusedRanking> for Worker {
    fn execute(&mut self, model: &FusedRanking, batch: &Batch<'_>) -> Result<(), Error> {
        let mut users = Vec::new();
        let mut shares: Vec<Share> = Vec::with_capacity(batch.len());
        self.queries.clear();
        for (index, request) in batch.pending() {
            match read(model, request, &mut self.queries, &mut users) {
                Ok(of_request) => shares.push(Share {
                    index,
                    users: of_request,
                }),
                Err(error) => batch.reject(index, error),
            }
        }
        batch.compute_starts();
        model
            .retrieval
            .search(&self.queries, &mut self.distances, &mut self.found)?;
        self.seen.rows.clear();
        let known = |item: &i64| *item != PADDING && model.catalogue.row(*item).is_some();
        let k = model.retrieval.k();
        for (place, (user, category)) in users.into_iter().enumerate() {
            let found = &self.found[place * k..(place + 1) * k];
            let items = found.iter().copied().filter(known).collect();
            self.seen.rows.push(Row::new(user, category, items));
        }
        // The store looks up what the users have seen while their candidates are ranked.
        self.seen.ask(&model.filter);
        let ranked = self.rank(model, batch, &shares);
        let rows = shares.iter().map(|share| share.users.clone());
        self.seen.finish(&model.filter, rows);
        batch.compute_ends();
        for (share, ranked) in shares.iter().zip(ranked) {
            batch.respond(share.index, |request, response| {
                let ranked = ranked?;
                self.answer(model, share, &ranked, request, response)
            });
        }
        Ok(())
    }
}

/// What is known of the candidates of a request before the store has answered.
struct Ranked {
    /// Each user's part of the scores.
    scores: Vec<Range<usize>>,
    /// Each user's candidates, in the order of the scores.
    candidates: Vec<Vec<i64>>,
}

impl Worker {
    /// Scores the candidates of every request; one whose features are refused has an error.
    fn rank(
        &mut self,
        model: &FusedRanking,
        batch: &Batch<'_>,
        shares: &[Share],
    ) -> Vec<Result<Ranked, Error>> {
        self.scores.clear();
        let rank = |share: &Share| {
            let request = &batch.requests()[share.index];
            let features = model.ranker.features(request, share.users.len())?;
            let mut ranked = Ranked {
                scores: Vec::with_capacity(share.users.len()),
                candidates: Vec::with_capacity(share.users.len()),
            };
            for (user, row) in self.seen.rows[share.users.clone()].iter().enumerate() {
                let start = self.scores.len();
                score(
                    model,
                    &mut self.run,
                    &features,
                    user,
                    &row.items,
                    &mut self.rows,
                    &mut self.scores,
                )?;
                ranked.scores.push(start..self.scores.len());
                ranked.candidates.push(row.items.clone());
            }
            Ok(ranked)
        };
        shares.iter().map(rank).collect()
    }

    /// Writes the best unseen items of each user, or a draw of them.
    fn answer(
        &mut self,
        model: &FusedRanking,
        share: &Share,
        ranked: &Ranked,
        request: &Request<'_>,
        response: &Response<'_>,
    ) -> Result<(), Error> {
        let mut shown: Vec<Vec<(i64, f32)>> = Vec::with_capacity(share.users.len());
        for (user, row) in self.seen.rows[share.users.clone()].iter().enumerate() {
            let own = &self.scores[ranked.scores[user].clone()];
            let (items, mut scores, more) = unseen(&row.items, &ranked.candidates[user], own);
            let mut items: Vec<i64> = items;
            if !more.is_empty() {
                let more: Vec<i64> = more
                    .into_iter()
                    .filter(|item| model.catalogue.row(*item).is_some())
                    .collect();
                let features = model.ranker.features(request, share.users.len())?;
                score(
                    model,
                    &mut self.run,
                    &features,
                    user,
                    &more,
                    &mut self.rows,
                    &mut scores,
                )?;
                items.extend(more);
            }
            let mut places: Vec<usize> = (0..items.len()).collect();
            self.choice.choose(&model.choice, &scores, &mut places);
            let of = |place: usize| (items[place], scores[place]);
            shown.push(places.into_iter().map(of).collect());
        }
        // With one user the answer is as long as it is; with several, the rows are padded to the longest.
        let longest = shown.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [(shown.len() * longest) as i64];
        match model.item_type {
            DataType::Int64 => {
                write(response, 0, &shape, &shown, longest, PADDING, |line| line.0)?;
            }
            _ => {
                // A raw id beyond INT32 is no item here, as in the other ensemble.
                let id = |line: &(i64, f32)| i32::try_from(line.0).unwrap_or(-1);
                write(response, 0, &shape, &shown, longest, -1, id)?;
            }
        }
        write(response, 1, &shape, &shown, longest, 0.0, |line| line.1)
    }
}

/// Appends the scores of some items, all of them in the catalogue.
fn score(
    model: &FusedRanking,
    run: &mut Run,
    features: &Features<'_>,
    user: usize,
    items: &[i64],
    rows: &mut Vec<i32>,
    scores: &mut Vec<f32>,
) -> Result<(), Error> {
    rows.clear();
    rows.extend(items.iter().filter_map(|&item| model.catalogue.row(item)));
    model.ranker.score(run, features, user, rows, scores)
}

/// Of the candidates, those that passed the filter, with their scores; and the items that it put in after them.
fn unseen(passed: &[i64], candidates: &[i64], scores: &[f32]) -> (Vec<i64>, Vec<f32>, Vec<i64>) {
    let mut left = passed.iter().copied().peekable();
    let (mut items, mut kept) = (Vec::new(), Vec::new());
    // What passed is in the candidates' order.
    for (&candidate, &score) in candidates.iter().zip(scores) {
        if left.next_if_eq(&candidate).is_some() {
            items.push(candidate);
            kept.push(score);
        }
    }
    (items, kept, left.collect())
}

/// The users of a request, their top categories and queries; which of all users they are.
fn read(
    model: &FusedRanking,
    request: &Request<'_>,
    queries: &mut Vec<f32>,
    users: &mut Vec<(i64, Option<i64>)>,
) -> Result<Range<usize>, Error> {
    let own = model.retrieval.queries(request, QUERY)?;
    let ids = ids(request, USER)?.ok_or_else(|| {
        Error::invalid_argument(format!("the request has no input '{}'", model.user_name))
    })?;
    if own.len() != ids.len() * model.retrieval.dimension() {
        return Err(Error::invalid_argument(format!(
            "there are {} queries for {} ids in '{}'; accepted: one for each",
            own.len() / model.retrieval.dimension(),
            ids.len(),
            model.user_name
        )));
    }
    let categories = match model.category {
        Some(position) => self::ids(request, position)?,
        None => None,
    };
    if let Some(categories) = &categories
        && categories.len() != ids.len()
    {
        return Err(Error::invalid_argument(format!(
            "there are {} top categories for {} users; accepted: one for each",
            categories.len(),
            ids.len()
        )));
    }
    queries.extend_from_slice(&own);
    let first = users.len();
    let category = |place: usize| categories.as_ref().map(|categories| categories[place]);
    users.extend(
        ids.iter()
            .enumerate()
            .map(|(place, &id)| (id, category(place))),
    );
    Ok(first..users.len())
}

/// An input of ids, `None` where the request leaves it out.
fn ids(request: &Request<'_>, position: usize) -> Result<Option<Vec<i64>>, Error> {
    let Some(tensor) = request.input_at(position)? else {
        return Ok(None);
    };
    Ok(Some(match tensor.data_type() {
        DataType::Int64 => tensor.as_slice::<i64>()?.into_owned(),
        _ => {
            let ids = tensor.as_slice::<i32>()?;
            ids.iter().map(|&id| i64::from(id)).collect()
        }
    }))
}

/// Writes each user's line, padded to the longest.
fn write<T: Element + Copy>(
    response: &Response<'_>,
    output: usize,
    shape: &[i64],
    shown: &[Vec<(i64, f32)>],
    longest: usize,
    padding: T,
    of: impl Fn(&(i64, f32)) -> T,
) -> Result<(), Error> {
    let Some(out) = response.output_at::<T>(output, shape)? else {
        return Ok(());
    };
    out.fill(padding);
    if longest > 0 {
        for (out, line) in out.chunks_exact_mut(longest).zip(shown) {
            out.iter_mut()
                .zip(line)
                .for_each(|(out, of_line)| *out = of(of_line));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_keeps_its_scores_and_what_was_put_in_is_told_apart() {
        let candidates = [5, 3, 9, 1];
        let scores = [0.5, 0.3, 0.9, 0.1];
        let (items, kept, more) = unseen(&[3, 1, 70, 80], &candidates, &scores);
        assert_eq!(
            (items, kept, more),
            (vec![3, 1], vec![0.3, 0.1], vec![70, 80])
        );
        let (items, _, more) = unseen(&[], &candidates, &scores);
        assert_eq!((items.len(), more.len()), (0, 0));
        let (items, _, more) = unseen(&candidates, &candidates, &scores);
        assert_eq!((items.as_slice(), more.len()), (&candidates[..], 0));
    }
}

triton_backend::export!(FusedRanking);
