//! `fused_recommendation`: from a user to the items that are shown, in one step. Request defaults, the user's features and what
//! the user has seen (one round trip to the store), both transforms, query tower, retrieval, the ranker over the whole catalogue's
//! precomputed rows, and the choice. README.md has the tensors, the parameters and what happens at the edges.

mod catalogue;
mod context;
mod features;
mod ranker;
mod sessions;
mod tower;
mod user;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use ort::session::Session;
use saker_steps::degraded;
use saker_steps::lookup;
use saker_steps::retrieval::{self, Retrieval};
use saker_steps::seen::{self, Filter, PADDING, Row};
use saker_steps::select::{self, Choice};
use saker_steps::transform::invalid;
use saker_steps::users;
use saker_store::Settings;
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
};

use crate::catalogue::Catalogue;
use crate::context::Moment;
use crate::features::{Column, Features, Sources};
use crate::ranker::{Ranker, Run};
use crate::tower::Tower;
use crate::user::User;

const IDS: &[DataType] = &[DataType::Int32, DataType::Int64];
const COLUMN_TYPES: &[DataType] = &[
    DataType::Int32,
    DataType::Int64,
    DataType::Fp32,
    DataType::Fp64,
];

/// Raw ids of the rows of the ranker's tables.
const CATALOGUE_FILE: &str = "items.npy";

/// The database of the seen items, where `SEEN_URL` does not say.
const SEEN_DATABASE: i64 = 1;

/// Parameters in config.pbtxt, beside those of `feature_lookup`, `bloom_filter`, `faiss_retrieval` and `softmax_sampling`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// JSON object: a stored column and its type, such as `{"age": "INT32"}`.
    user_columns: String,
    /// JSON object: what a request leaves out, as in `request_defaults`.
    #[serde(default)]
    request_defaults: Option<String>,
    /// The stored column with the users' top categories, whose popular items fill up.
    #[serde(default)]
    category_column: Option<String>,
    /// The store of the seen items: database 1 of the features' server (in a cluster, the cluster) when nothing is said.
    #[serde(default)]
    seen_url: Option<String>,
    /// As `MODE` of `bloom_filter`.
    #[serde(default)]
    seen_mode: Option<String>,
    /// Threads of ONNX Runtime for one request.
    #[serde(default = "one", rename = "intra_op_thread_count")]
    threads: NonZeroUsize,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// A loaded model.
pub struct FusedRecommendation {
    user: User,
    moment: Moment,
    /// The features that query tower and ranker read.
    columns: Vec<Column>,
    tower: Tower,
    retrieval: Retrieval,
    catalogue: Catalogue,
    ranker: Ranker,
    filter: Filter,
    choice: Choice,
    /// Place of the stored column with the top category.
    category: Option<usize>,
    item_type: DataType,
    /// Position of the output that says what the answers lack.
    degraded: Option<usize>,
}

/// One instance: its sessions, its connections and its buffers.
pub struct Worker {
    user: user::Worker,
    moment: context::Worker,
    features: Features,
    tower: Session,
    run: Run,
    seen: seen::Worker,
    choice: select::Worker,
    queries: Vec<f32>,
    distances: Vec<f32>,
    found: Vec<i64>,
    rows: Vec<i32>,
    /// Scores of the candidates, user after user.
    scores: Vec<f32>,
    /// Requests of the batch: index, and which of all users are theirs.
    requests: Vec<(usize, Range<usize>)>,
}

/// A user's candidates, and where their scores stand.
struct Ranked {
    items: Vec<i64>,
    scores: Range<usize>,
}

/// The items that a user is shown, and their scores.
type Line = Vec<(i64, f32)>;

impl Model for FusedRecommendation {
    type Parameters = (
        lookup::Parameters,
        seen::Parameters,
        retrieval::Parameters,
        select::Parameters,
        users::Parameters,
        Parameters,
    );
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new().other_inputs(COLUMN_TYPES).other_outputs(&[
            DataType::Fp32,
            DataType::Int32,
            DataType::Int64,
        ])
    }

    fn load(
        context: &Arc<ModelContext>,
        (lookup, seen, retrieval, choice, users, parameters): Self::Parameters,
    ) -> Result<Self, Error> {
        let config = context.config();
        let ([id, ..], [ids, scores, more @ ..]) = (config.inputs(), config.outputs()) else {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares {} inputs and {} outputs; accepted: the user ids, then what is known of the moment; \
                 the ids of the items that are shown, and their scores",
                config.inputs().len(),
                config.outputs().len()
            )));
        };
        for output in more {
            let expected = [DataType::Int32];
            of_type("output", &output.name, output.data_type, &expected)?;
            if output.name != degraded::TENSOR || more.len() > 1 {
                return Err(Error::invalid_argument(format!(
                    "config.pbtxt declares the output '{}'; accepted after the scores: '{}' alone",
                    output.name,
                    degraded::TENSOR
                )));
            }
        }
        of_type("input", &id.name, id.data_type, IDS)?;
        of_type("output", &ids.name, ids.data_type, IDS)?;
        of_type("output", &scores.name, scores.data_type, &[DataType::Fp32])?;
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: a request carries its users in its tensors",
            ));
        }
        if lookup.mode != lookup::Mode::Online {
            return Err(Error::invalid_argument(
                "parameter 'MODE' is 'cached'; accepted: online",
            ));
        }
        let columns = columns(&parameters.user_columns)?;
        let user = User::load(context, &lookup, users, id, &columns)?;
        let moment = Moment::load(context, parameters.request_defaults.as_deref())?;
        let category = parameters.category_column.as_deref().map(|column| {
            user.integers(column).ok_or_else(|| {
                Error::invalid_argument(format!(
                    "parameter 'CATEGORY_COLUMN' is '{column}'; accepted: a column of USER_COLUMNS of type INT32 or INT64"
                ))
            })
        });
        let category = category.transpose()?;

        let threads = parameters.threads.get();
        let mut sources = Sources::new(&user.plan, &moment.plan);
        let tower = Tower::load(context, threads, &mut sources)?;
        let ranker = Ranker::load(context, threads, &mut sources)?;
        let columns = sources.into_columns();

        let online = lookup.settings()?;
        let mode = seen::mode("SEEN_MODE", parameters.seen_mode.as_deref())?;
        let store = seen_store(&seen, parameters.seen_url.as_deref(), &online)?;
        let filter = Filter::load(context, &seen, store, mode, id.data_type)?.along(&online);
        Ok(Self {
            user,
            moment,
            columns,
            retrieval: Retrieval::load(context, ("the query tower", tower.dimension), &retrieval)?,
            tower,
            catalogue: Catalogue::read(&context.version_dir().join(CATALOGUE_FILE))?,
            ranker,
            filter,
            choice: Choice::new(&choice)?,
            category,
            item_type: ids.data_type,
            degraded: config.output_index(degraded::TENSOR),
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker {
            user: self.user.worker(),
            moment: context::Worker::default(),
            features: Features::new(&self.columns),
            tower: self.tower.session()?,
            run: self.ranker.run()?,
            seen: seen::Worker::new(&self.filter),
            choice: self.choice.worker(),
            queries: Vec::new(),
            distances: Vec::new(),
            found: Vec::new(),
            rows: Vec::new(),
            scores: Vec::new(),
            requests: Vec::new(),
        })
    }
}

fn of_type(what: &str, name: &str, found: DataType, accepted: &[DataType]) -> Result<(), Error> {
    if accepted.contains(&found) {
        return Ok(());
    }
    let names: Vec<String> = accepted.iter().map(ToString::to_string).collect();
    Err(Error::invalid_argument(format!(
        "{what} '{name}' is {found}; accepted: {}",
        names.join(", ")
    )))
}

/// The stored columns and their types.
fn columns(text: &str) -> Result<BTreeMap<String, String>, Error> {
    serde_json::from_str(text).map_err(|error| {
        Error::invalid_argument(format!(
            "parameter 'USER_COLUMNS' is '{text}': {error}; accepted: a JSON object of columns and types, such as \
             {{\"age\": \"INT32\"}}"
        ))
    })
}

/// The store of the seen items.
fn seen_store(
    seen: &seen::Parameters,
    url: Option<&str>,
    online: &Settings,
) -> Result<Settings, Error> {
    match url {
        Some(url) => seen.settings("SEEN_URL", url),
        None if online.is_cluster() => Ok(online.clone()),
        None => online
            .clone()
            .with_database(SEEN_DATABASE)
            .map_err(|error| Error::invalid_argument(format!("parameter 'REDIS_URL': {error}"))),
    }
}

impl Instance<FusedRecommendation> for Worker {
    fn execute(&mut self, model: &FusedRecommendation, batch: &Batch<'_>) -> Result<(), Error> {
        let mut requests = std::mem::take(&mut self.requests);
        requests.clear();
        self.user.clear();
        for (index, request) in batch.pending() {
            match self.user.read(&model.user, request) {
                Ok((start, count)) => requests.push((index, start..start + count)),
                Err(error) => batch.reject(index, error),
            }
        }
        batch.compute_starts();
        let seen = (&mut self.seen, &model.filter);
        self.user.look_up(&model.user, requests.len(), seen);
        for (index, users) in &requests {
            batch.respond(*index, |request, response| {
                let lines = self.recommend(model, request, users.clone())?;
                batch.compute_ends();
                answer(model, &lines, response)?;
                self.write_degraded(model, response, users.clone())
            });
        }
        self.requests = requests;
        Ok(())
    }
}

impl Worker {
    /// The best unseen items of each user of a request, or a draw of them.
    fn recommend(
        &mut self,
        model: &FusedRecommendation,
        request: &Request<'_>,
        users: Range<usize>,
    ) -> Result<Vec<Line>, Error> {
        self.transform(model, request, users.clone())?;
        model.tower.run(
            &mut self.tower,
            &self.features,
            users.len(),
            &mut self.queries,
        )?;
        // The query tower made it of stored features: not the client's fault.
        let finite = model.retrieval.check("query", &self.queries);
        finite.map_err(|error| Error::internal(error.message().to_owned()))?;
        model
            .retrieval
            .search(&self.queries, &mut self.distances, &mut self.found)?;
        let known = |item: &i64| *item != PADDING && model.catalogue.row(*item).is_some();
        self.seen.rows.clear();
        let k = model.retrieval.k();
        for (place, user) in users.clone().enumerate() {
            let found = &self.found[place * k..(place + 1) * k];
            let items = found.iter().copied().filter(known).collect();
            let category = model
                .category
                .and_then(|column| self.user.integer(column, user));
            self.seen
                .rows
                .push(Row::new(self.user.raw[user], category, items));
        }
        self.seen.ask_from(&model.filter, users.start);
        let whole = || std::iter::once(0..users.len());
        // Filters of the server's are asked about the candidates: while it looks them up, they are ranked.
        let answered = self.seen.is_answered();
        if answered {
            self.seen.finish(&model.filter, whole());
        }
        let ranked = self.rank(model);
        // The answer is taken in any case, or the next request would find it.
        if !answered {
            self.seen.finish(&model.filter, whole());
        }
        let ranked = ranked?;
        let lines = ranked.iter().enumerate();
        lines
            .map(|(user, ranked)| self.choose(model, user, ranked))
            .collect()
    }

    /// Writes what the answers of a request's users lack.
    fn write_degraded(
        &self,
        model: &FusedRecommendation,
        response: &Response<'_>,
        users: Range<usize>,
    ) -> Result<(), Error> {
        let Some(position) = model.degraded else {
            return Ok(());
        };
        let shape = [users.len() as i64];
        let Some(out) = response.output_at::<i32>(position, &shape)? else {
            return Ok(());
        };
        let unanswered = &self.user.unanswered()[users];
        for ((out, row), &unanswered) in out.iter_mut().zip(&self.seen.rows).zip(unanswered) {
            let features = i32::from(unanswered) * degraded::USER_FEATURES;
            let seen = i32::from(!row.is_known()) * degraded::SEEN_ITEMS;
            *out = features | seen;
        }
        Ok(())
    }

    /// Computes the features of a request's users and moment.
    fn transform(
        &mut self,
        model: &FusedRecommendation,
        request: &Request<'_>,
        users: Range<usize>,
    ) -> Result<(), Error> {
        self.moment.fill(&model.moment, request, users.len())?;
        let users = self.user.slices(&model.user, users.start, users.len())?;
        let users = model.user.plan.bind(&users).map_err(invalid)?;
        let moments = self.moment.slices(&model.moment);
        let moments = model.moment.plan.bind(&moments).map_err(invalid)?;
        self.features.fill(&model.columns, &users, &moments)
    }

    /// Scores every user's candidates.
    fn rank(&mut self, model: &FusedRecommendation) -> Result<Vec<Ranked>, Error> {
        self.scores.clear();
        let mut ranked = Vec::with_capacity(self.seen.rows.len());
        for user in 0..self.seen.rows.len() {
            let items = &mut self.seen.rows[user].items;
            items.retain(|item| model.catalogue.row(*item).is_some());
            let items = items.clone();
            let start = self.scores.len();
            let mut scores = std::mem::take(&mut self.scores);
            let scored = self.score(model, user, &items, &mut scores);
            self.scores = scores;
            scored?;
            let scores = start..self.scores.len();
            ranked.push(Ranked { items, scores });
        }
        Ok(ranked)
    }

    /// Appends the scores of some items of the catalogue for a user.
    fn score(
        &mut self,
        model: &FusedRecommendation,
        user: usize,
        items: &[i64],
        scores: &mut Vec<f32>,
    ) -> Result<(), Error> {
        self.rows.clear();
        self.rows
            .extend(items.iter().filter_map(|&item| model.catalogue.row(item)));
        model
            .ranker
            .score(&mut self.run, &self.features, user, &self.rows, scores)
    }

    /// What a user is shown of the candidates that were ranked, and of the popular items that were put in since.
    fn choose(
        &mut self,
        model: &FusedRecommendation,
        user: usize,
        ranked: &Ranked,
    ) -> Result<Line, Error> {
        let left = &self.seen.rows[user].items;
        let scores = &self.scores[ranked.scores.clone()];
        let (mut items, mut scores, mut more) = unseen(left, &ranked.items, scores);
        more.retain(|item| model.catalogue.row(*item).is_some());
        if !more.is_empty() {
            self.score(model, user, &more, &mut scores)?;
            items.extend(more);
        }
        let mut places: Vec<usize> = (0..items.len()).collect();
        self.choice.choose(&model.choice, &scores, &mut places);
        let of = |place: usize| (items[place], scores[place]);
        Ok(places.into_iter().map(of).collect())
    }
}

/// Writes the lines of all users of a request.
fn answer(
    model: &FusedRecommendation,
    lines: &[Line],
    response: &Response<'_>,
) -> Result<(), Error> {
    // With one user the answer is as long as it is; with several, the rows are padded to the longest.
    let longest = lines.iter().map(Vec::len).max().unwrap_or(0);
    let shape = [(lines.len() * longest) as i64];
    match model.item_type {
        DataType::Int64 => write(response, 0, &shape, lines, longest, PADDING, |line| line.0)?,
        _ => {
            // A raw id beyond INT32 is no item here, as in the other ensemble.
            let id = |line: &(i64, f32)| i32::try_from(line.0).unwrap_or(-1);
            write(response, 0, &shape, lines, longest, -1, id)?;
        }
    }
    write(response, 1, &shape, lines, longest, 0.0, |line| line.1)
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

/// Writes each user's line, padded to the longest.
fn write<T: Element + Copy>(
    response: &Response<'_>,
    output: usize,
    shape: &[i64],
    lines: &[Line],
    longest: usize,
    padding: T,
    of: impl Fn(&(i64, f32)) -> T,
) -> Result<(), Error> {
    let Some(out) = response.output_at::<T>(output, shape)? else {
        return Ok(());
    };
    out.fill(padding);
    if longest > 0 {
        for (out, line) in out.chunks_exact_mut(longest).zip(lines) {
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

triton_backend::export!(FusedRecommendation);
