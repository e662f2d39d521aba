//! Taking events from the stream and applying them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use saker_contract::Database;
use saker_contract::keys::{EVENTS, EVENTS_REJECTED};
use saker_store::events::Event;
use saker_store::guarded::{Group, Guarded, Outcome, Script};
use saker_store::popularity::Set;
use saker_store::seen::Method;
use saker_store::{Connection, Pipeline, Reply, StoreError};
use saker_traces::{Parent, Traces};

use crate::EntryId;
use crate::change::{self, Arrival, Before, Rules};
use crate::counters::Counters;

/// Time limit of one round trip.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a consumer waits for an event before it does its other work.
const WAIT: Duration = Duration::from_millis(200);
/// Waits between attempts to reach the store.
const BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Maximum number of times that a user's events are computed again because other writers were faster.
const ATTEMPTS: usize = 20;
/// Events of one user that one script applies. A script runs alone on the server, so it must be short.
const AT_ONCE: usize = 256;
/// Errors, by their code or message, that depend on the server's state and not on the entry: the same call succeeds later.
const PASSING: [&str; 18] = [
    "OOM",
    "LOADING",
    "BUSY",
    "MISCONF",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOGROUP",
    "NOAUTH",
    "NOPERM",
    "WRONGPASS",
    "UNKILLABLE",
    "EXECABORT",
];
/// The years 1970 to 9999, in microseconds.
const TIMES: std::ops::Range<i64> = 0..253_402_300_800_000_000;

/// An entry as it was read: its fields, `None` if it was deleted meanwhile.
type Entry = (EntryId, Option<Vec<(Vec<u8>, Vec<u8>)>>);

/// A user's events that are not applied yet, in the order of the stream.
struct Waiting {
    arrivals: Vec<Arrival>,
    /// Number of events that one script applies. It is reduced after a refusal, to find the event that causes it.
    at_once: usize,
    /// Number of times that other writers were faster since the last applied event.
    attempts: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            arrivals: Vec::new(),
            at_once: AT_ONCE,
            attempts: 0,
        }
    }
}

impl Waiting {
    /// The events that are applied next.
    fn next(&self) -> &[Arrival] {
        let count = self.at_once.min(self.arrivals.len());
        self.arrivals.get(..count).unwrap_or_default()
    }

    /// Removes and returns the events of [`Self::next`].
    fn take(&mut self) -> Vec<Arrival> {
        self.attempts = 0;
        let count = self.at_once.min(self.arrivals.len());
        self.arrivals.drain(..count).collect()
    }
}

type ByUser = BTreeMap<i32, Waiting>;

/// State that the consumers of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: saker_store::Settings,
    /// The rules for the events that are taken next.
    pub(crate) rules: ArcSwap<Rules>,
    /// All popularity sets that events have counted in, including those of replaced items. All of them decay.
    pub(crate) popularity_sets: Mutex<BTreeSet<Set>>,
    pub(crate) group: String,
    /// Maximum number of entries that a consumer takes at a time.
    pub(crate) batch: usize,
    /// Time after which a pending entry of another consumer is taken over.
    pub(crate) claim_after: Duration,
    pub(crate) traces: Traces,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Arc<AtomicBool>,
    /// Whether the time to finish is over. Events that are not applied by then stay pending.
    pub(crate) give_up: AtomicBool,
    /// Whether every consumer has ended, so that no more events will be applied.
    pub(crate) workers_ended: AtomicBool,
    /// Number of consumers.
    pub(crate) workers: usize,
    /// Number of consumers with a connection that has not failed.
    pub(crate) connected: AtomicUsize,
}

impl Shared {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn given_up(&self) -> bool {
        self.give_up.load(Ordering::Relaxed)
    }

    /// Runs `work` with a connection until the stop. If the store fails, it runs again after a pause.
    pub(crate) fn with_connection(
        &self,
        name: &str,
        mut work: impl FnMut(&mut Connection) -> Result<(), StoreError>,
    ) {
        let mut backoff = BACKOFF;
        while !self.stopped() {
            let started = Instant::now();
            let done =
                Connection::open(&self.store).and_then(|mut connection| work(&mut connection));
            let Err(error) = done else { continue };
            Counters::add(&self.counters.failures, 1);
            if started.elapsed() > LONGEST_BACKOFF {
                backoff = BACKOFF;
            }
            tracing::warn!(
                worker = name,
                "{error}; trying again in {} ms",
                backoff.as_millis()
            );
            self.sleep(backoff);
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// Sleeps; a stop ends the sleep early.
    pub(crate) fn sleep(&self, duration: Duration) {
        let until = Instant::now() + duration;
        while !self.stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(WAIT));
        }
    }

    /// Applies changes outside a transaction, one by one.
    pub(crate) fn carry_out(
        &self,
        connection: &mut Connection,
        script: &Script,
        guarded: &Guarded,
    ) -> Result<Outcome, StoreError> {
        let mut pipeline = Pipeline::new();
        script.call(self.group(), guarded, &mut pipeline)?;
        let reply = connection.run(&pipeline, TIMEOUT)?.pop();
        Outcome::read(reply.ok_or_else(missing))
    }

    pub(crate) fn group(&self) -> Group<'_> {
        Group {
            database: Database::Activity.number(),
            stream: EVENTS,
            group: &self.group,
        }
    }
}

/// One consumer of the group.
pub(crate) struct Consumer<'s> {
    pub(crate) shared: &'s Shared,
    /// Its name in the group, the same after a restart.
    pub(crate) name: String,
}

impl Consumer<'_> {
    /// Works until the stop.
    pub(crate) fn run(&self) {
        let connected = &self.shared.connected;
        self.shared.with_connection(&self.name, |connection| {
            let mut is_counted = false;
            let worked = self.work(connection, || {
                is_counted = true;
                connected.fetch_add(1, Ordering::Relaxed);
            });
            connected.fetch_sub(usize::from(is_counted), Ordering::Relaxed);
            worked
        });
    }

    /// Takes and applies events; calls `connected` when the store has answered.
    fn work(
        &self,
        connection: &mut Connection,
        connected: impl FnOnce(),
    ) -> Result<(), StoreError> {
        let shared = self.shared;
        make_group(connection, &shared.group)?;
        let script = Script::load(connection, TIMEOUT)?;
        connected();
        // Entries that this consumer took before a restart and did not apply.
        let mut after = "0".to_owned();
        while !shared.stopped() {
            let own = self.read(connection, &after)?;
            let Some((last, _)) = own.last() else { break };
            after = last.to_string();
            self.apply(connection, &script, own)?;
        }
        let mut claimed = Instant::now();
        while !shared.stopped() {
            if claimed.elapsed() >= shared.claim_after / 2 {
                let abandoned = self.claim(connection)?;
                Counters::add(&shared.counters.claimed, abandoned.len());
                self.apply(connection, &script, abandoned)?;
                claimed = Instant::now();
            }
            let new = self.read(connection, ">")?;
            self.apply(connection, &script, new)?;
        }
        Ok(())
    }

    /// Reads new entries (`>`), for which it waits, or entries after an id that this consumer took before.
    fn read(&self, connection: &mut Connection, from: &str) -> Result<Vec<Entry>, StoreError> {
        let reply = ask(connection, |cmd| {
            cmd.arg("XREADGROUP").arg("GROUP").arg(&self.shared.group);
            cmd.arg(&self.name).arg("COUNT").arg(self.shared.batch);
            if from == ">" {
                cmd.arg("BLOCK").arg(WAIT.as_millis() as u64);
            }
            cmd.arg("STREAMS").arg(EVENTS).arg(from);
        })?;
        match reply {
            Reply::Nil => Ok(Vec::new()),
            Reply::Array(mut streams) => match streams.pop() {
                Some(Reply::Array(mut stream)) if stream.len() == 2 => entries(stream.remove(1)),
                other => Err(unexpected("XREADGROUP", &other)),
            },
            other => Err(unexpected("XREADGROUP", &other)),
        }
    }

    /// Takes over entries that another consumer took and did not apply in time.
    fn claim(&self, connection: &mut Connection) -> Result<Vec<Entry>, StoreError> {
        let reply = ask(connection, |cmd| {
            cmd.arg("XAUTOCLAIM")
                .arg(EVENTS)
                .arg(&self.shared.group)
                .arg(&self.name)
                .arg(self.shared.claim_after.as_millis() as u64)
                .arg("0-0")
                .arg("COUNT")
                .arg(self.shared.batch);
        })?;
        match reply {
            Reply::Array(mut parts) if parts.len() >= 2 => entries(parts.swap_remove(1)),
            other => Err(unexpected("XAUTOCLAIM", &other)),
        }
    }

    fn apply(
        &self,
        connection: &mut Connection,
        script: &Script,
        entries: Vec<Entry>,
    ) -> Result<(), StoreError> {
        let mut by_user = ByUser::new();
        for (entry, fields) in entries {
            let read = match &fields {
                Some(fields) => event(fields),
                None => Err(StoreError::Data("the entry was deleted".into())),
            };
            match read {
                Ok(event) => {
                    let of_user = by_user.entry(event.user).or_default();
                    of_user.arrivals.push(Arrival { entry, event });
                }
                Err(error) => {
                    let fields = fields.unwrap_or_default();
                    self.reject(connection, script, entry, &fields, &error.to_string())?;
                }
            }
        }
        // Every attempt uses the same rules.
        let rules = self.shared.rules.load_full();
        while !by_user.is_empty() && !self.shared.given_up() {
            self.attempt(connection, script, &rules, &mut by_user)?;
            by_user.retain(|&user, waiting| self.goes_on(user, waiting));
        }
        Ok(())
    }

    /// Whether a user's events are tried again. Otherwise they stay pending and are claimed later.
    fn goes_on(&self, user: i32, waiting: &Waiting) -> bool {
        if waiting.attempts >= ATTEMPTS {
            tracing::warn!(
                worker = self.name,
                user,
                "{} events are left for later: other writers keep changing the user's recent items",
                waiting.arrivals.len()
            );
            return false;
        }
        if waiting.attempts > 0 {
            Counters::add(&self.shared.counters.repeated, 1);
        }
        !waiting.arrivals.is_empty()
    }

    /// Applies the next events of every user and leaves the rest in `by_user`.
    fn attempt(
        &self,
        connection: &mut Connection,
        script: &Script,
        rules: &Rules,
        by_user: &mut ByUser,
    ) -> Result<(), StoreError> {
        let before = read_before(connection, rules, by_user)?;
        let mut calls = Vec::with_capacity(by_user.len());
        let mut pipeline = Pipeline::new();
        for ((&user, waiting), before) in by_user.iter().zip(before) {
            let changes = before.and_then(|before| rules.changes(user, waiting.next(), &before));
            let called = changes
                .and_then(|changes| script.call(self.shared.group(), &changes, &mut pipeline));
            calls.push(called);
        }
        let mut replies = Vec::with_capacity(calls.len());
        connection.run_until(&pipeline, Instant::now() + TIMEOUT, &mut replies)?;
        let mut replies = replies.into_iter();
        for ((&user, waiting), called) in by_user.iter_mut().zip(calls) {
            let outcome = called.and_then(|()| Outcome::read(replies.next().ok_or_else(missing)?));
            match outcome {
                Ok(Outcome::Done(refused)) => {
                    Counters::add(&self.shared.counters.refused, refused.len());
                    for reason in refused {
                        tracing::error!(worker = self.name, user, "a change was refused: {reason}");
                    }
                    self.note(waiting.take());
                }
                // Another worker has claimed and applied them.
                Ok(Outcome::Gone(gone)) => {
                    let gone: HashSet<String> = gone.into_iter().collect();
                    let is_left = |arrival: &Arrival| !gone.contains(&arrival.entry.to_string());
                    waiting.arrivals.retain(is_left);
                }
                Ok(Outcome::Changed) => waiting.attempts += 1,
                Err(error) if !is_of_the_entries(&error) => return Err(error),
                // One of the events may be the cause, so each is tried alone.
                Err(_) if waiting.next().len() > 1 => waiting.at_once = 1,
                Err(error) => {
                    for arrival in waiting.take() {
                        self.reject_event(connection, script, &arrival, &error)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn reject_event(
        &self,
        connection: &mut Connection,
        script: &Script,
        arrival: &Arrival,
        error: &StoreError,
    ) -> Result<(), StoreError> {
        let fields = arrival.event.fields().into_iter();
        let fields: Vec<(Vec<u8>, Vec<u8>)> = fields
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let reason = error.to_string();
        self.reject(connection, script, arrival.entry, &fields, &reason)
    }

    fn note(&self, applied: Vec<Arrival>) {
        let counters = &self.shared.counters;
        Counters::add(&counters.applied, applied.len());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since_1970.unwrap_or_default().as_millis() as u64;
        for arrival in applied {
            counters.observe(now.saturating_sub(arrival.entry.milliseconds));
            self.trace(&arrival);
        }
    }

    /// Records the span of an event: its wait and its application.
    fn trace(&self, arrival: &Arrival) {
        let event = &arrival.event;
        let parent = event.traceparent.as_deref().and_then(Parent::parse);
        let Some(parent) = parent else { return };
        let came = UNIX_EPOCH + Duration::from_millis(arrival.entry.milliseconds);
        self.shared.traces.note(
            "apply event",
            parent,
            came,
            [
                ("saker.event_type", event.kind.as_str().into()),
                ("saker.event_id", event.id.clone().into()),
            ],
        );
    }

    fn reject(
        &self,
        connection: &mut Connection,
        script: &Script,
        entry: EntryId,
        fields: &[(Vec<u8>, Vec<u8>)],
        reason: &str,
    ) -> Result<(), StoreError> {
        let aside = change::reject(entry, fields, reason);
        let Outcome::Done(refused) = self.shared.carry_out(connection, script, &aside)? else {
            return Ok(());
        };
        let counters = &self.shared.counters;
        Counters::add(&counters.rejected, 1);
        Counters::add(&counters.refused, refused.len());
        match refused.first() {
            None => {
                tracing::warn!(worker = self.name, %entry, "an entry was moved to {}: {reason}", EVENTS_REJECTED);
            }
            Some(why) => {
                tracing::error!(worker = self.name, %entry, "an entry is dropped ({reason}), because {} refused it: {why}", EVENTS_REJECTED);
            }
        }
        Ok(())
    }
}

/// Whether the content of the entries or of the user's keys causes an error, so that another attempt would fail too.
fn is_of_the_entries(error: &StoreError) -> bool {
    match error {
        StoreError::Data(_) => true,
        StoreError::Server(text) => {
            // Redis 6 prefixes the error that a script received with its own words.
            let words = match text.contains("Error running script") {
                true => usize::MAX,
                false => 1,
            };
            let mut codes = text.split([' ', ':', '-']).take(words);
            let passes = codes.any(|code| PASSING.contains(&code))
                // An unloaded module may be loaded again.
                || error.is_unknown_command()
                || text.contains("max number of clients");
            !passes
        }
        _ => false,
    }
}

fn make_group(connection: &mut Connection, group: &str) -> Result<(), StoreError> {
    let made = ask(connection, |cmd| {
        cmd.arg("XGROUP").arg("CREATE").arg(EVENTS).arg(group);
        cmd.arg("0").arg("MKSTREAM");
    });
    match made {
        Err(StoreError::Server(text)) if text.contains("BUSYGROUP") => Ok(()),
        other => other.map(drop),
    }
}

/// Runs one command.
pub(crate) fn ask(
    connection: &mut Connection,
    build: impl FnOnce(&mut redis::Cmd),
) -> Result<Reply, StoreError> {
    let mut pipeline = Pipeline::new();
    pipeline.keyless(build);
    let reply = connection.run(&pipeline, TIMEOUT)?.pop();
    reply.ok_or_else(missing)
}

/// The stored state of each user. An error concerns only that user.
fn read_before(
    connection: &mut Connection,
    rules: &Rules,
    by_user: &ByUser,
) -> Result<Vec<Result<Before, StoreError>>, StoreError> {
    let mut pipeline = Pipeline::new();
    for (&user, waiting) in by_user {
        let recent = change::read_recent(user, change::oldest(waiting.next()));
        pipeline.keyless(|cmd| {
            recent.words().iter().for_each(|word| {
                cmd.arg(word);
            });
        });
        pipeline.keyless(|cmd| match rules.seen {
            Method::Plain => {
                cmd.arg("GET").arg(rules.seen_key(user));
            }
            Method::Server => {
                cmd.arg("ECHO").arg("");
            }
        });
    }
    let mut replies = Vec::with_capacity(pipeline.len());
    connection.run_until(&pipeline, Instant::now() + TIMEOUT, &mut replies)?;
    let mut replies = replies.into_iter();
    let mut next = || replies.next().ok_or_else(missing);
    let mut all = Vec::with_capacity(by_user.len());
    for _ in by_user {
        let (recent, bitmap) = (next()?, next()?);
        all.push(recent.and_then(|recent| {
            let recent = redis::from_redis_value(recent)
                .map_err(|error| StoreError::Data(format!("recent items: {error}")))?;
            let bitmap = match (rules.seen, bitmap?) {
                (Method::Plain, Reply::BulkString(bytes)) => Some(bytes),
                _ => None,
            };
            Ok(Before { recent, bitmap })
        }));
    }
    Ok(all)
}

fn event(fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Event, StoreError> {
    let text = |bytes| {
        std::str::from_utf8(bytes)
            .map_err(|_| StoreError::Data("an event's field is not UTF-8".into()))
    };
    let fields = fields
        .iter()
        .map(|(name, value)| Ok((text(name)?, text(value)?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    let event = Event::from_fields(fields)?;
    if !TIMES.contains(&event.time_us) {
        return Err(StoreError::Data(format!(
            "an event's field timestamp_us is {}; accepted: microseconds of the years 1970 to 9999",
            event.time_us
        )));
    }
    Ok(event)
}

/// Reads the entries in a reply to XREADGROUP, XAUTOCLAIM or XRANGE.
pub(crate) fn entries(reply: Reply) -> Result<Vec<Entry>, StoreError> {
    let parsed: Vec<(String, Option<Vec<Vec<u8>>>)> = redis::from_redis_value(reply)
        .map_err(|error| StoreError::Protocol(format!("entries of a stream: {error}")))?;
    parsed
        .into_iter()
        .map(|(id, words)| {
            let fields = words.map(|words| {
                let mut words = words.into_iter();
                std::iter::from_fn(|| Some((words.next()?, words.next()?))).collect()
            });
            Ok((id.parse()?, fields))
        })
        .collect()
}

fn missing() -> StoreError {
    StoreError::Protocol("a reply is missing".into())
}

pub(crate) fn unexpected(command: &str, reply: &impl std::fmt::Debug) -> StoreError {
    StoreError::Protocol(format!("{command}: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_is_told_from_one_of_an_entry() {
        let server = |text: &str| StoreError::Server(text.into());
        for code in PASSING {
            assert!(!is_of_the_entries(&server(code)), "{code}");
            assert!(
                !is_of_the_entries(&server(&format!("{code} why"))),
                "{code}"
            );
        }
        for passing in [
            server("ERR unknown command 'BF.MADD', with args beginning with"),
            server("ERR max number of clients reached"),
            server(
                "ERR Error running script (call to f_1): @user_script:9: OOM command not allowed",
            ),
            StoreError::Timeout(TIMEOUT),
            StoreError::Io("reset".into()),
        ] {
            assert!(!is_of_the_entries(&passing), "{passing}");
        }
        for lasting in [
            server("WRONGTYPE Operation against a key holding the wrong kind of value"),
            server("ERR bit offset is not an integer or out of range"),
            server("ERR value is not a valid float"),
            server("ERR too many results to unpack"),
            StoreError::Data("no item id".into()),
        ] {
            assert!(is_of_the_entries(&lasting), "{lasting}");
        }
    }
}
