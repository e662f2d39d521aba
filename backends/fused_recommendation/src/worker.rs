//! One instance. It reads the users of all requests of a batch in one round trip to the store, and finds their candidates.

use std::ops::Range;

use ort::session::Session;
use saker_contract::{RawId, degraded};
use saker_steps::seen::{self, Row};
use saker_steps::select;
use saker_steps::transform::invalid;
use triton_backend::{Batch, DataType, Element, Error, Instance, Request, Response};

use crate::features::Features;
use crate::ranker::Run;
use crate::{FusedRecommendation, context, user};

/// One instance: its sessions, its connections and its buffers.
pub struct Worker {
    user: user::Worker,
    moment: context::Worker,
    /// The features of each request, for as many requests as the largest batch had so far.
    features: Vec<Features>,
    tower: Session,
    run: Run,
    seen: seen::Worker,
    choice: select::Worker,
    queries: Vec<f32>,
    distances: Vec<f32>,
    found: Vec<i64>,
    rows: Vec<i32>,
    /// Scores of the candidates, one user after the other.
    scores: Vec<f32>,
    shares: Vec<Share>,
}

/// The part of a batch that belongs to one request.
struct Share {
    /// Index in the batch.
    index: usize,
    /// Range of its users among the users that were looked up.
    users: Range<usize>,
    /// Range of its users among the queries and the rows of the filter. Requests that were refused have none.
    rows: Range<usize>,
}

/// A user's candidates, and the range of their scores.
struct Ranked {
    items: Vec<i64>,
    scores: Range<usize>,
}

/// The items in a user's answer, with their scores.
type Line = Vec<(i64, f32)>;

impl Instance<FusedRecommendation> for Worker {
    fn execute(&mut self, model: &FusedRecommendation, batch: &Batch<'_>) -> Result<(), Error> {
        let mut shares = std::mem::take(&mut self.shares);
        self.read(model, batch, &mut shares);
        batch.compute_starts();
        let users = shares.iter().map(|share| share.users.clone());
        let seen = (&mut self.seen, &model.filter);
        self.user.look_up(&model.user, users, seen);
        self.make_queries(model, batch, &mut shares);
        self.find(model, &shares)?;
        let ranked = self.rank_unseen(model, &shares);
        for (request, (share, ranked)) in shares.iter().zip(ranked).enumerate() {
            batch.respond(share.index, |_, response| {
                let lines = self.choose(model, request, share, &ranked?)?;
                batch.compute_ends();
                answer(model, &lines, response)?;
                self.write_degraded(model, response, share)
            });
        }
        self.shares = shares;
        Ok(())
    }
}

impl Worker {
    pub(crate) fn new(model: &FusedRecommendation) -> Result<Self, Error> {
        Ok(Self {
            user: model.user.worker(),
            moment: context::Worker::default(),
            features: Vec::new(),
            tower: model.tower.session()?,
            run: model.ranker.run()?,
            seen: seen::Worker::new(&model.filter),
            choice: model.choice.worker(),
            queries: Vec::new(),
            distances: Vec::new(),
            found: Vec::new(),
            rows: Vec::new(),
            scores: Vec::new(),
            shares: Vec::new(),
        })
    }

    /// Reads the users of every request.
    fn read(&mut self, model: &FusedRecommendation, batch: &Batch<'_>, shares: &mut Vec<Share>) {
        shares.clear();
        self.user.clear();
        for (index, request) in batch.pending() {
            match self.user.read(&model.user, request) {
                Ok(users) => shares.push(Share {
                    index,
                    users,
                    rows: 0..0,
                }),
                Err(error) => batch.reject(index, error),
            }
        }
    }

    /// Computes the features and the queries of every request. A request whose features or queries cannot be computed is refused.
    fn make_queries(
        &mut self,
        model: &FusedRecommendation,
        batch: &Batch<'_>,
        shares: &mut Vec<Share>,
    ) {
        self.queries.clear();
        let mut users = 0;
        let mut place = 0;
        let requests = batch.requests();
        shares.retain_mut(|share| {
            let Some(request) = requests.get(share.index) else {
                return false;
            };
            let before = self.queries.len();
            if let Err(error) = self.query(model, request, &share.users, place) {
                self.queries.truncate(before);
                batch.reject(share.index, error);
                return false;
            }
            share.rows = users..users + share.users.len();
            users = share.rows.end;
            place += 1;
            true
        });
    }

    /// Computes the features of one request, stores them at `place`, and appends its queries.
    fn query(
        &mut self,
        model: &FusedRecommendation,
        request: &Request<'_>,
        users: &Range<usize>,
        place: usize,
    ) -> Result<(), Error> {
        self.moment.fill(&model.moment, request, users.len())?;
        if self.features.len() == place {
            self.features.push(Features::new(&model.columns));
        }
        let features = self.features.get_mut(place).ok_or_else(no_row)?;
        let slices = self.user.slices(&model.user, users.clone())?;
        let bound = model.user.plan.bind(&slices).map_err(invalid)?;
        let moments = self.moment.slices(&model.moment)?;
        let moments = model.moment.plan.bind(&moments).map_err(invalid)?;
        features.fill(&model.columns, &bound, &moments)?;
        let before = self.queries.len();
        let tower = &mut self.tower;
        model
            .tower
            .run(tower, features, users.len(), &mut self.queries)?;
        let queries = self.queries.get(before..).unwrap_or_default();
        let dimension = model.retrieval.dimension();
        if queries.len() != users.len() * dimension {
            return Err(Error::internal(format!(
                "the query tower returned {} values for {} users; accepted: {dimension} for each",
                queries.len(),
                users.len()
            )));
        }
        // The query tower computed the query from stored features, so an invalid one is not the client's error.
        let finite = model.retrieval.check("query", queries);
        finite.map_err(|error| Error::internal(error.message().to_owned()))
    }

    /// Finds the candidates of all users: one row of the filter per user.
    fn find(&mut self, model: &FusedRecommendation, shares: &[Share]) -> Result<(), Error> {
        model
            .retrieval
            .search(&self.queries, &mut self.distances, &mut self.found)?;
        let known = |item: &i64| *item != RawId::NONE && model.catalogue.row(*item).is_some();
        let k = model.retrieval.k();
        self.seen.rows.clear();
        let users = shares.iter().flat_map(|share| share.users.clone());
        for (place, user) in users.enumerate() {
            let found = self.found.get(place * k..(place + 1) * k);
            let (Some(found), Some(&id)) = (found, self.user.raw.get(user)) else {
                return Err(Error::internal(
                    "the batch has fewer users or candidates than queries",
                ));
            };
            let items = found.iter().copied().filter(known).collect();
            let category = model
                .category
                .and_then(|column| self.user.integer(column, user));
            self.seen.rows.push(Row::new(id, category, items));
        }
        Ok(())
    }

    /// Removes the seen items, and scores the candidates of every request.
    fn rank_unseen(
        &mut self,
        model: &FusedRecommendation,
        shares: &[Share],
    ) -> Vec<Result<Vec<Ranked>, Error>> {
        let users = shares.iter().flat_map(|share| share.users.clone());
        self.seen.ask_of(&model.filter, users);
        let rows = shares.iter().map(|share| share.rows.clone());
        // While the server checks the candidates against its filters, they are ranked.
        let answered = self.seen.is_answered();
        if answered {
            self.seen.finish(&model.filter, rows.clone());
        }
        self.scores.clear();
        let requests = shares.iter().enumerate();
        let ranked = requests
            .map(|(request, share)| self.rank(model, request, share))
            .collect();
        // The reply must be read in any case, or the next batch would receive it.
        if !answered {
            self.seen.finish(&model.filter, rows);
        }
        ranked
    }

    /// Scores the candidates of one request's users.
    fn rank(
        &mut self,
        model: &FusedRecommendation,
        request: usize,
        share: &Share,
    ) -> Result<Vec<Ranked>, Error> {
        let mut ranked = Vec::with_capacity(share.rows.len());
        for (user, row) in share.rows.clone().enumerate() {
            let row = self.seen.rows.get_mut(row).ok_or_else(no_row)?;
            row.items
                .retain(|item| model.catalogue.row(*item).is_some());
            let items = row.items.clone();
            let scores = self.score(model, request, user, &items)?;
            ranked.push(Ranked { items, scores });
        }
        Ok(ranked)
    }

    /// Appends the scores of catalogue items for one user of a request; returns their range.
    fn score(
        &mut self,
        model: &FusedRecommendation,
        request: usize,
        user: usize,
        items: &[i64],
    ) -> Result<Range<usize>, Error> {
        self.rows.clear();
        self.rows
            .extend(items.iter().filter_map(|&item| model.catalogue.row(item)));
        let features = self.features.get(request).ok_or_else(no_row)?;
        let start = self.scores.len();
        let scores = &mut self.scores;
        model
            .ranker
            .score(&mut self.run, features, user, &self.rows, scores)?;
        Ok(start..self.scores.len())
    }

    /// The best unseen items of each user of a request, or a weighted sample of them.
    fn choose(
        &mut self,
        model: &FusedRecommendation,
        request: usize,
        share: &Share,
        ranked: &[Ranked],
    ) -> Result<Vec<Line>, Error> {
        let users = share.rows.clone().zip(ranked).enumerate();
        users
            .map(|(user, (row, ranked))| self.line(model, (request, user), row, ranked))
            .collect()
    }

    /// The answer for one user, from the ranked candidates and the popular items that were added later.
    fn line(
        &mut self,
        model: &FusedRecommendation,
        (request, user): (usize, usize),
        row: usize,
        ranked: &Ranked,
    ) -> Result<Line, Error> {
        let left = &self.seen.rows.get(row).ok_or_else(no_row)?.items;
        let scores = self.scores.get(ranked.scores.clone()).ok_or_else(no_row)?;
        let (mut items, mut scores, mut more) = unseen(left, &ranked.items, scores);
        more.retain(|item| model.catalogue.row(*item).is_some());
        if !more.is_empty() {
            let added = self.score(model, request, user, &more)?;
            scores.extend_from_slice(self.scores.get(added).ok_or_else(no_row)?);
            items.extend(more);
        }
        let chosen = self.choice.choose(&model.choice, &scores, |_| true);
        let of = |place: usize| Some((*items.get(place)?, *scores.get(place)?));
        let line: Option<Line> = chosen.map(of).collect();
        line.ok_or_else(no_row)
    }

    /// Writes the mask of missing user data for each user of a request.
    fn write_degraded(
        &self,
        model: &FusedRecommendation,
        response: &Response<'_>,
        share: &Share,
    ) -> Result<(), Error> {
        let Some(position) = model.degraded else {
            return Ok(());
        };
        let shape = [share.users.len() as i64];
        let Some(out) = response.output_at::<i32>(position, &shape)? else {
            return Ok(());
        };
        let unanswered = self.user.unanswered().get(share.users.clone());
        let rows = self.seen.rows.get(share.rows.clone());
        let (Some(unanswered), Some(rows)) = (unanswered, rows) else {
            return Err(no_row());
        };
        for ((out, row), &unanswered) in out.iter_mut().zip(rows).zip(unanswered) {
            let features = i32::from(unanswered) * degraded::USER_FEATURES;
            let seen = i32::from(!row.is_known()) * degraded::SEEN_ITEMS;
            *out = features | seen;
        }
        Ok(())
    }
}

fn no_row() -> Error {
    Error::internal("a user of the batch has no row")
}

/// Writes the answers for all users of a request.
fn answer(
    model: &FusedRecommendation,
    lines: &[Line],
    response: &Response<'_>,
) -> Result<(), Error> {
    // With one user the answer has its own length; with several users, rows are padded to the longest.
    let longest = lines.iter().map(Vec::len).max().unwrap_or(0);
    let shape = [(lines.len() * longest) as i64];
    match model.item_type {
        DataType::Int64 => write(response, 0, &shape, lines, longest, RawId::NONE, |line| {
            line.0
        })?,
        _ => {
            // A raw id beyond INT32 is not an item here, as in the other ensemble.
            let id = |line: &(i64, f32)| i32::try_from(line.0).unwrap_or(RawId::NONE_INT32);
            write(response, 0, &shape, lines, longest, RawId::NONE_INT32, id)?;
        }
    }
    write(response, 1, &shape, lines, longest, 0.0, |line| line.1)
}

/// The candidates that passed the filter, with their scores, and the items that the filter added after them.
fn unseen(passed: &[i64], candidates: &[i64], scores: &[f32]) -> (Vec<i64>, Vec<f32>, Vec<i64>) {
    let mut left = passed.iter().copied().peekable();
    let (mut items, mut kept) = (Vec::new(), Vec::new());
    // The passed items have the order of the candidates.
    for (&candidate, &score) in candidates.iter().zip(scores) {
        if left.next_if_eq(&candidate).is_some() {
            items.push(candidate);
            kept.push(score);
        }
    }
    (items, kept, left.collect())
}

/// Writes each user's answer, padded to the longest.
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
