//! Reads the users' seen items from the store and removes them from the candidates. One round trip serves all users of all requests; a
//! second one serves users with too few candidates.

use std::ops::Range;
use std::time::{Duration, Instant};

use saker_contract::RawId;
use saker_store::CommandResult;
use saker_store::feast::{FeatureView, Value};
use saker_store::seen::{Method, Mode, Reader, Seen};
use saker_store::{Client, Link, Pipeline, Settings, StoreError};
use triton_backend::log::{self, EveryMinute};
use triton_backend::{Counter, DataType, Error, ModelContext};

use super::Parameters;
use super::along::Along;
use super::fallback::Fallback;
use super::rows::{Row, keep_unseen, not_in_row, top_up};
use crate::store::Alongside;

/// Maximum time that the creation of an instance waits for its connection, so that the first request finds one.
const FIRST_CONNECTION: Duration = Duration::from_secs(1);

/// The filter of a loaded model.
pub struct Filter {
    link: Link,
    mode: Mode,
    reader: Reader,
    /// Database of the connections that can also be used for this filter.
    along: Option<i64>,
    fallback: Option<Fallback>,
    meters: Meters,
}

/// Counters and log messages.
struct Meters {
    degraded: Counter,
    filtered: Counter,
    topped_up: Counter,
    line: EveryMinute,
    model: String,
}

/// One instance: its connections and its buffers.
pub struct Worker {
    client: Client,
    category: Option<(Client, FeatureView)>,
    pipeline: Pipeline,
    replies: Vec<CommandResult>,
    /// The query that was sent on the connection of the users' lookup.
    along: Option<Along>,
    second: Second,
    /// The users and their candidates; the caller fills this.
    pub rows: Vec<Row>,
    /// The method of the current query, and its deadline.
    asked: Option<(Method, Instant)>,
}

/// A row that needs popular items.
struct Needy<'r> {
    row: &'r mut Row,
    /// The user's top category, if known.
    category: Option<i64>,
    items: Vec<i64>,
    /// Index among the second replies.
    asked: Option<usize>,
}

/// The second query, for users with too few candidates.
#[derive(Default)]
struct Second {
    pipeline: Pipeline,
    replies: Vec<CommandResult>,
}

impl Filter {
    /// Opens the `store` and reads the popular items. A store that is down is not an error. `user_type`, INT32 or INT64, is the type of the
    /// users' ids in the online store.
    ///
    /// # Errors
    /// Returns an error if a parameter is invalid or if Triton refuses a counter.
    pub fn load(
        context: &ModelContext,
        parameters: &Parameters,
        store: Settings,
        mode: Mode,
        user_type: DataType,
    ) -> Result<Self, Error> {
        parameters.check_sizes()?;
        let settings = store.with_bloom_probe();
        let fallback = Fallback::load(context, parameters, &settings, user_type)?;
        let link = Link::open(settings).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self {
            link,
            mode,
            reader: parameters.reader(),
            along: None,
            fallback,
            meters: Meters::new(context)?,
        })
    }

    /// Allows sending the query on connections to `online`, the users' online store, if both stores are on one server.
    #[must_use]
    pub fn along(mut self, online: &Settings) -> Self {
        let same = self.link.settings().is_same_server(online);
        self.along = same.then(|| online.database());
        self
    }
}

impl Meters {
    fn new(context: &ModelContext) -> Result<Self, Error> {
        let counter = |name: &str, help: &str| context.counter(name, help, &[]);
        Ok(Self {
            degraded: counter(
                "saker_bloom_filter_degraded_total",
                "Requests with a user whose candidates were not filtered because the store was down or late",
            )?,
            filtered: counter(
                "saker_bloom_filter_filtered_total",
                "Candidates removed because the user has seen them",
            )?,
            topped_up: counter("saker_bloom_filter_topped_up_total", "Popular items added")?,
            line: EveryMinute::new(),
            model: context.name().to_owned(),
        })
    }

    fn degraded(&self, requests: usize, why: &dyn std::fmt::Display) {
        self.degraded.increment(requests as u64);
        if let Some(more) = self.line.due() {
            log::warn!(
                "model '{}': seen items are not known, returning all candidates: {why} ({more} more such calls since \
                 the last line)",
                self.model
            );
        }
    }
}

impl Worker {
    /// Connects, and waits briefly for the store.
    pub fn new(filter: &Filter) -> Self {
        let mut client = filter.link.client();
        if !client.wait(FIRST_CONNECTION) {
            log::warn!(
                "{}; returning all candidates until the connection exists",
                client.disconnected()
            );
        }
        let category = filter
            .fallback
            .as_ref()
            .and_then(|fallback| fallback.category.as_ref());
        let category = category.map(|(link, view)| {
            let mut client = link.client();
            if !client.wait(FIRST_CONNECTION) {
                log::warn!(
                    "{}; topping up with items of all categories until the connection exists",
                    client.disconnected()
                );
            }
            (client, view.clone())
        });
        Self {
            client,
            category,
            pipeline: Pipeline::new(),
            replies: Vec::new(),
            along: None,
            second: Second::default(),
            rows: Vec::new(),
            asked: None,
        }
    }

    /// Sends the query for the seen items of [`rows`](Self::rows). [`finish`](Self::finish) reads the answer. Work done between the two
    /// calls overlaps with the wait.
    pub fn ask(&mut self, filter: &Filter) {
        self.ask_of(filter, 0..self.rows.len());
    }

    /// Like [`ask`](Self::ask), unless a lookup has already sent the query: see [`Alongside`]. `users` holds the indices of the rows'
    /// users among those of the lookup.
    pub fn ask_of(&mut self, filter: &Filter, users: impl Iterator<Item = usize>) {
        let deadline = Instant::now() + filter.link.settings().deadline_for(self.rows.len());
        self.pipeline.clear();
        for row in &mut self.rows {
            // Without a user there is no history to look up.
            row.known = row.user == RawId::NONE;
        }
        if self.along.is_some() {
            Along::assign(&mut self.rows, users);
            self.asked = Some((Method::Plain, deadline));
            return;
        }
        let method = filter.mode.method(self.client.has_bloom());
        self.asked = method.map(|method| (method, deadline));
        let Some(method) = method else { return };
        for row in &mut self.rows {
            // The server's filter command needs at least one item.
            row.known |= method == Method::Server && row.items.is_empty();
            if row.known {
                continue;
            }
            row.asked = Some((row.items.len(), self.pipeline.len()));
            filter.reader.ask(
                method,
                row.user,
                row.items.iter().copied(),
                &mut self.pipeline,
            );
        }
        if !self.pipeline.is_empty() {
            self.client.start(&self.pipeline, deadline);
        }
    }

    /// Whether the answer has arrived, so that [`finish`](Self::finish) does not wait.
    pub fn is_answered(&self) -> bool {
        self.along.is_some()
    }

    /// Removes the seen items from the rows and tops up rows that are too short. `requests` holds the range of rows of each request. A
    /// request counts as degraded if the seen items of one of its users are unknown.
    pub fn finish(&mut self, filter: &Filter, requests: impl Iterator<Item = Range<usize>>) {
        let asked = self.asked.take();
        let mut failure = match asked {
            Some((method, deadline)) => self.take_out(filter, method, deadline),
            None => Some(self.client.disconnected()),
        };
        // A missing row counts as unknown.
        let unknown = |rows: Range<usize>| {
            let rows = self.rows.get(rows);
            rows.is_none_or(|rows| rows.iter().any(|row| !row.known))
        };
        let degraded = requests.filter(|rows| unknown(rows.clone())).count();
        if let (Some((method, deadline)), Some(fallback)) = (asked, &filter.fallback)
            && let Some(error) = self.fill(filter, fallback, method, deadline)
        {
            failure.get_or_insert(error);
        }
        if let (Some(error), true) = (failure, degraded > 0) {
            filter.meters.degraded(degraded, &error);
        }
    }

    /// Removes the seen items.
    fn take_out(
        &mut self,
        filter: &Filter,
        method: Method,
        deadline: Instant,
    ) -> Option<StoreError> {
        let outcome = match &self.along {
            Some(along) => along.outcome(),
            None if self.pipeline.is_empty() => return None,
            None => self
                .client
                .finish(&self.pipeline, deadline, &mut self.replies),
        };
        if let Err(error) = outcome {
            return Some(error);
        }
        let mut failure = None;
        let mut filtered = 0;
        for row in &mut self.rows {
            let Some((count, place)) = row.asked else {
                continue;
            };
            let reply = self.replies.get(place).ok_or_else(|| {
                StoreError::Protocol(format!(
                    "the reply to command {place} is missing; {} replies came",
                    self.replies.len()
                ))
            });
            match reply.and_then(|reply| Reader::answer(method, reply, count)) {
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
            filter.meters.filtered.increment(filtered as u64);
        }
        failure
    }

    /// Tops up rows that are too short. Users with unknown seen items get no popular items.
    fn fill(
        &mut self,
        filter: &Filter,
        fallback: &Fallback,
        method: Method,
        deadline: Instant,
    ) -> Option<StoreError> {
        let short = |row: &&mut Row| row.known && row.items.len() < fallback.wanted;
        let mut needy: Vec<Needy<'_>> = (self.rows.iter_mut().filter(short))
            .map(|row| Needy {
                category: row.category,
                row,
                items: Vec::new(),
                asked: None,
            })
            .collect();
        let popular = fallback.popular();
        if needy.is_empty() || popular.global.is_empty() && popular.by_category_l1.is_empty() {
            return None;
        }
        if let Some((client, view)) = &mut self.category {
            self.second.categories(client, view, &mut needy, deadline);
        }
        for needy in &mut needy {
            let popular = popular.of_category(needy.category);
            needy.items = not_in_row(&needy.row.items, popular, fallback.most);
        }
        let client = &mut self.client;
        let failure = match method {
            Method::Server => self.second.seen(client, filter, &mut needy, deadline),
            Method::Plain => None,
        };
        let mut added = 0;
        for Needy {
            row, items, asked, ..
        } in needy
        {
            let reply = match (method, row.asked, asked) {
                (Method::Plain, Some((count, place)), _) => {
                    self.replies.get(place).map(|reply| (reply, count))
                }
                (Method::Server, _, Some(place)) => {
                    let reply = self.second.replies.get(place);
                    reply.map(|reply| (reply, items.len()))
                }
                _ => None,
            };
            let seen = match reply {
                Some((reply, count)) => Reader::answer(method, reply, count).ok(),
                None if row.user == RawId::NONE => Some(Seen::Nothing),
                None => None,
            };
            if let Some(seen) = seen {
                added += top_up(&mut row.items, &items, &seen, fallback.wanted);
            }
        }
        if added > 0 {
            filter.meters.topped_up.increment(added as u64);
        }
        failure
    }
}

/// The users' seen items can be read with their features. This works if the query does not depend on the candidates, that is for bitmaps, and
/// if both stores are on one server. Otherwise [`Worker::ask_of`] sends a query of its own.
impl Alongside for (&mut Worker, &Filter) {
    fn ask(&mut self, has_bloom: Option<bool>, users: &[i64], commands: &mut Pipeline) {
        let (worker, filter) = self;
        worker.along = None;
        let plain = filter.mode.method(has_bloom) == Some(Method::Plain);
        if let Some(online) = filter.along.filter(|_| plain) {
            let own = filter.link.settings().database();
            worker.along = Some(Along::ask(&filter.reader, (own, online), users, commands));
        }
    }

    fn take(
        &mut self,
        replies: &mut dyn Iterator<Item = CommandResult>,
        failure: Option<&StoreError>,
    ) {
        let (worker, _) = self;
        if let Some(along) = &mut worker.along {
            along.fail(failure);
            worker.replies.clear();
            worker.replies.extend(replies);
        }
    }
}

impl Second {
    /// Queries the server's filters for the popular items.
    fn seen(
        &mut self,
        client: &mut Client,
        filter: &Filter,
        needy: &mut [Needy<'_>],
        deadline: Instant,
    ) -> Option<StoreError> {
        self.pipeline.clear();
        self.replies.clear();
        for needy in needy {
            let user = needy.row.user;
            if user != RawId::NONE && !needy.items.is_empty() {
                needy.asked = Some(self.pipeline.len());
                filter.reader.ask(
                    Method::Server,
                    user,
                    needy.items.iter().copied(),
                    &mut self.pipeline,
                );
            }
        }
        if self.pipeline.is_empty() {
            return None;
        }
        client
            .run_until(&self.pipeline, deadline, &mut self.replies)
            .err()
    }

    /// Reads the top category of each user whose request lacks it. It stays unknown if the store lacks it or does not answer in time.
    fn categories(
        &mut self,
        client: &mut Client,
        view: &FeatureView,
        needy: &mut [Needy<'_>],
        deadline: Instant,
    ) {
        self.pipeline.clear();
        let mut asked = Vec::new();
        for needy in needy {
            let user = needy.row.user;
            if user != RawId::NONE && needy.category.is_none() {
                view.read(&view.id(user), &mut self.pipeline);
                asked.push(&mut needy.category);
            }
        }
        if asked.is_empty()
            || client
                .run_until(&self.pipeline, deadline, &mut self.replies)
                .is_err()
        {
            return;
        }
        for (category, reply) in asked.into_iter().zip(&self.replies) {
            let value = reply
                .as_ref()
                .ok()
                .and_then(|reply| view.row(reply).ok()??.value(0).ok()?);
            *category = match value {
                Some(Value::Int32(category)) => Some(i64::from(category)),
                Some(Value::Int64(category)) => Some(category),
                _ => None,
            };
        }
    }
}
