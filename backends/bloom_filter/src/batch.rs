//! One instance: all users of all requests in one round trip; a second one alone for users with too few candidates.

use std::time::{Duration, Instant};

use saker_store::connection::CommandResult;
use saker_store::feast::{EntityId, FeatureView, Value};
use saker_store::seen::{Method, Reader, Seen};
use saker_store::{Client, Pipeline, StoreError};
use triton_backend::{Batch, DataType, Error, Request, log};

use crate::fallback::Fallback;
use crate::rows::{keep_unseen, not_in_row, row_length, top_up};
use crate::{BloomFilter, Ids, PADDING};

/// How long the making of an instance waits for its connection, so that the first request finds one.
const FIRST_CONNECTION: Duration = Duration::from_secs(1);

/// One instance: its connections and its buffers.
pub struct Worker {
    client: Client,
    category: Option<(Client, FeatureView)>,
    deadline: Duration,
    pipeline: Pipeline,
    replies: Vec<CommandResult>,
    second: Pipeline,
    second_replies: Vec<CommandResult>,
    rows: Vec<Row>,
    requests: Vec<Share>,
}

/// The rows of one request.
struct Share {
    /// Index in the batch.
    index: usize,
    first: usize,
    rows: usize,
    degraded: bool,
}

/// One user's candidates, without padding.
struct Row {
    user: i64,
    /// As the request gives it.
    category: Option<i64>,
    items: Vec<i64>,
    /// How many items were asked, and at which place among the replies.
    asked: Option<(usize, usize)>,
    /// Whether it is known what the user has seen.
    known: bool,
}

/// A row that needs popular items.
struct Needy {
    row: usize,
    items: Vec<i64>,
    /// Place among the second replies.
    asked: Option<usize>,
}

impl Worker {
    pub(crate) fn new(model: &BloomFilter) -> Self {
        let mut client = model.link.client();
        if !client.wait(FIRST_CONNECTION) {
            log::warn!(
                "{}; letting all candidates pass until it is there",
                client.disconnected()
            );
        }
        let category = model
            .fallback
            .as_ref()
            .and_then(|fallback| fallback.category.as_ref());
        let category = category.map(|(link, view)| {
            let mut client = link.client();
            if !client.wait(FIRST_CONNECTION) {
                log::warn!(
                    "{}; topping up with items of all categories until it is there",
                    client.disconnected()
                );
            }
            (client, view.clone())
        });
        Self {
            client,
            category,
            deadline: model.link.settings().deadline(),
            pipeline: Pipeline::new(),
            replies: Vec::new(),
            second: Pipeline::new(),
            second_replies: Vec::new(),
            rows: Vec::new(),
            requests: Vec::new(),
        }
    }

    pub(crate) fn execute(&mut self, model: &BloomFilter, batch: &Batch<'_>) -> Result<(), Error> {
        let deadline = Instant::now() + self.deadline;
        self.read(model, batch);
        batch.compute_starts();
        let method = model.mode.method(self.client.has_bloom());
        let mut failure = match method {
            Some(method) => self.filter(model, method, deadline),
            None => Some(self.client.disconnected()),
        };
        self.mark_degraded();
        if let (Some(method), Some(fallback)) = (method, &model.fallback)
            && let Some(error) = self.fill(model, fallback, method, deadline)
        {
            failure.get_or_insert(error);
        }
        let degraded = self.requests.iter().filter(|share| share.degraded).count();
        if let (Some(error), true) = (failure, degraded > 0) {
            model.meters.degraded(degraded, &error);
        }
        batch.compute_ends();
        self.answer(model, batch);
        Ok(())
    }

    /// Gathers the rows.
    fn read(&mut self, model: &BloomFilter, batch: &Batch<'_>) {
        self.rows.clear();
        self.requests.clear();
        for (index, request) in batch.pending() {
            let first = self.rows.len();
            match read_rows(model, request, &mut self.rows) {
                Ok(()) => {
                    let rows = self.rows.len() - first;
                    self.requests.push(Share {
                        index,
                        first,
                        rows,
                        degraded: false,
                    });
                }
                Err(error) => {
                    self.rows.truncate(first);
                    batch.reject(index, error);
                }
            }
        }
    }

    /// Asks what the users have seen and takes it out of their rows.
    fn filter(
        &mut self,
        model: &BloomFilter,
        method: Method,
        deadline: Instant,
    ) -> Option<StoreError> {
        self.pipeline.clear();
        for row in &mut self.rows {
            // Nobody has no history; and the server's filter cannot be asked for no item.
            if row.user == PADDING || (method == Method::Server && row.items.is_empty()) {
                row.known = true;
                continue;
            }
            row.asked = Some((row.items.len(), self.pipeline.len()));
            model.reader.ask(
                method,
                row.user,
                row.items.iter().copied(),
                &mut self.pipeline,
            );
        }
        if self.pipeline.is_empty() {
            return None;
        }
        if let Err(error) = self
            .client
            .run_until(&self.pipeline, deadline, &mut self.replies)
        {
            return Some(error);
        }
        let mut failure = None;
        let mut filtered = 0;
        for row in &mut self.rows {
            let Some((count, place)) = row.asked else {
                continue;
            };
            match Reader::answer(method, &self.replies[place], count) {
                Ok(seen) => {
                    row.known = true;
                    filtered += keep_unseen(&mut row.items, &seen);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        if filtered > 0 {
            model.meters.filtered.increment(filtered as u64);
        }
        failure
    }

    fn mark_degraded(&mut self) {
        for share in &mut self.requests {
            share.degraded = self.rows[share.first..share.first + share.rows]
                .iter()
                .any(|row| !row.known);
        }
    }

    /// Tops up the rows that are too short. Nothing is put in for a user whose seen items are not known.
    fn fill(
        &mut self,
        model: &BloomFilter,
        fallback: &Fallback,
        method: Method,
        deadline: Instant,
    ) -> Option<StoreError> {
        let short = |row: &Row| row.known && row.items.len() < fallback.wanted;
        let mut needy: Vec<Needy> = (0..self.rows.len())
            .filter(|&row| short(&self.rows[row]))
            .map(|row| Needy {
                row,
                items: Vec::new(),
                asked: None,
            })
            .collect();
        let popular = fallback.popular();
        if needy.is_empty() || popular.global.is_empty() && popular.by_category_l1.is_empty() {
            return None;
        }
        let categories = self.categories(model, &needy, deadline);
        for (needy, category) in needy.iter_mut().zip(categories) {
            let row = &self.rows[needy.row];
            needy.items = not_in_row(&row.items, popular.of_category(category), fallback.most);
        }
        let failure = match method {
            Method::Server => self.ask_again(model, &mut needy, deadline),
            Method::Plain => None,
        };
        let mut added = 0;
        for needy in &needy {
            let row = &mut self.rows[needy.row];
            let reply = match (method, row.asked, needy.asked) {
                (Method::Plain, Some((count, place)), _) => {
                    self.replies.get(place).map(|reply| (reply, count))
                }
                (Method::Server, _, Some(place)) => self
                    .second_replies
                    .get(place)
                    .map(|reply| (reply, needy.items.len())),
                _ => None,
            };
            let seen = match reply {
                Some((reply, count)) => Reader::answer(method, reply, count).ok(),
                None if row.user == PADDING => Some(Seen::Nothing),
                None => None,
            };
            if let Some(seen) = seen {
                added += top_up(&mut row.items, &needy.items, &seen, fallback.wanted);
            }
        }
        if added > 0 {
            model.meters.topped_up.increment(added as u64);
        }
        failure
    }

    /// Asks the server's filters about the popular items.
    fn ask_again(
        &mut self,
        model: &BloomFilter,
        needy: &mut [Needy],
        deadline: Instant,
    ) -> Option<StoreError> {
        self.second.clear();
        self.second_replies.clear();
        for needy in needy {
            let user = self.rows[needy.row].user;
            if user != PADDING && !needy.items.is_empty() {
                needy.asked = Some(self.second.len());
                model.reader.ask(
                    Method::Server,
                    user,
                    needy.items.iter().copied(),
                    &mut self.second,
                );
            }
        }
        if self.second.is_empty() {
            return None;
        }
        self.client
            .run_until(&self.second, deadline, &mut self.second_replies)
            .err()
    }

    /// The top category of each needy user: as the request gives it, else where a store is named, knows it and answers
    /// in time.
    fn categories(
        &mut self,
        model: &BloomFilter,
        needy: &[Needy],
        deadline: Instant,
    ) -> Vec<Option<i64>> {
        let mut categories: Vec<Option<i64>> = needy
            .iter()
            .map(|needy| self.rows[needy.row].category)
            .collect();
        let Some((client, view)) = &mut self.category else {
            return categories;
        };
        self.second.clear();
        let mut places = Vec::new();
        for (place, needy) in needy.iter().enumerate() {
            let user = self.rows[needy.row].user;
            let id = match model.users.data_type {
                DataType::Int64 => EntityId::Int64(user),
                _ => EntityId::Int32(user as i32),
            };
            if user != PADDING && categories[place].is_none() {
                view.read(&id, &mut self.second);
                places.push(place);
            }
        }
        if places.is_empty()
            || client
                .run_until(&self.second, deadline, &mut self.second_replies)
                .is_err()
        {
            return categories;
        }
        for (place, reply) in places.into_iter().zip(&self.second_replies) {
            let value = reply
                .as_ref()
                .ok()
                .and_then(|reply| view.row(reply).ok()??.value(0).ok()?);
            categories[place] = match value {
                Some(Value::Int32(category)) => Some(i64::from(category)),
                Some(Value::Int64(category)) => Some(category),
                _ => None,
            };
        }
        categories
    }

    /// Writes the rows, each padded to the longest of its request.
    fn answer(&self, model: &BloomFilter, batch: &Batch<'_>) {
        for share in &self.requests {
            batch.respond(share.index, |_, response| {
                let rows = &self.rows[share.first..share.first + share.rows];
                let width = rows.iter().map(|row| row.items.len()).max().unwrap_or(0);
                let shape = [(width * rows.len()) as i64];
                match model.items.data_type {
                    DataType::Int64 => {
                        if let Some(out) = response.output_at::<i64>(0, &shape)? {
                            write_rows(rows, width, out, |item| item);
                        }
                    }
                    _ => {
                        if let Some(out) = response.output_at::<i32>(0, &shape)? {
                            // Candidates came in as i32; a popular id beyond it is no item here.
                            write_rows(rows, width, out, |item| i32::try_from(item).unwrap_or(-1));
                        }
                    }
                }
                Ok(())
            });
        }
    }
}

fn write_rows<T>(rows: &[Row], width: usize, out: &mut [T], convert: impl Fn(i64) -> T) {
    if width == 0 {
        return;
    }
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
        let items = row.items.iter().copied().chain(std::iter::repeat(PADDING));
        out.iter_mut()
            .zip(items)
            .for_each(|(out, item)| *out = convert(item));
    }
}

fn read_rows(model: &BloomFilter, request: &Request<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let missing =
        |ids: &Ids| Error::invalid_argument(format!("the request has no input '{}'", ids.name));
    let users = model
        .users
        .read(request)?
        .ok_or_else(|| missing(&model.users))?;
    let items = model
        .items
        .read(request)?
        .ok_or_else(|| missing(&model.items))?;
    let length = row_length(users.len(), items.len())
        .map_err(|why| Error::invalid_argument(format!("input '{}': {why}", model.items.name)))?;
    let categories = match &model.categories {
        Some(ids) => ids.read(request)?.map(|categories| (ids, categories)),
        None => None,
    };
    if let Some((ids, categories)) = &categories
        && categories.len() != users.len()
    {
        return Err(Error::invalid_argument(format!(
            "input '{}' has {} categories for {} users; accepted: one for each user",
            ids.name,
            categories.len(),
            users.len()
        )));
    }
    for (position, &user) in users.iter().enumerate() {
        let row = &items[position * length..(position + 1) * length];
        let items = row
            .iter()
            .copied()
            .filter(|&item| item != PADDING)
            .collect();
        let category = categories
            .as_ref()
            .map(|(_, categories)| categories[position]);
        rows.push(Row {
            user,
            category: category.filter(|&category| category != PADDING),
            items,
            asked: None,
            known: false,
        });
    }
    Ok(())
}

impl Ids {
    /// The ids, `None` where the request leaves them out.
    fn read(&self, request: &Request<'_>) -> Result<Option<Vec<i64>>, Error> {
        let Some(tensor) = request.input_at(self.position)? else {
            return Ok(None);
        };
        Ok(Some(match self.data_type {
            DataType::Int64 => tensor.vector::<i64>()?.into_owned(),
            _ => tensor
                .vector::<i32>()?
                .iter()
                .map(|&id| i64::from(id))
                .collect(),
        }))
    }
}
