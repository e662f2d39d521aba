//! Writes the applied events and the resulting top categories to the offline store.
//!
//! | view | columns |
//! |---|---|
//! | `events` | `event_id`, the user's and the item's id, `event_type`, `device_type`, `event_timestamp`, `entry` |
//! | that of the top category, such as `user_activity` | the user's id, the top category, `event_timestamp`, `entry` |
//!
//! `entry` is the place in the stream of applied events. Within a view and a day it grows from row to row and from file to file, so the
//! last one tells which events are written. After a crash between writing a file and trimming the stream, no event is written twice. A
//! file is named by its first entry and never replaced, so of two writers one succeeds.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate};
use saker_contract::keys::EVENTS_APPLIED;
use saker_contract::tensor::TOP_CATEGORY;
use saker_offline::{EVENT_TIMESTAMP, EVENTS, OfflineStore};
use saker_store::events::Event;
use saker_store::{Connection, Reply, StoreError};
use saker_tables::{NewColumn, NewValues, Table, Values};

use crate::EntryId;
use crate::consumer::{Shared, ask, entries, unexpected};
use crate::counters::Counters;

/// Prefix of the names of the updater's files.
pub const FILES: &str = "applied";
/// The column with the place in the stream.
pub const ENTRY: &str = "entry";

/// Interval at which a stopping updater checks whether the consumers have ended.
const ENDING: Duration = Duration::from_millis(20);
/// Maximum number of entries per write.
const ROWS: usize = 10_000;

/// Destination and interval of the writes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The store's address, see [`OfflineStore::open`].
    pub location: String,
    /// Time between two writes.
    pub every: Duration,
    /// Names of the user's and the item's id.
    pub ids: [String; 2],
    /// View and column of the top category, if users have one.
    pub top_category: Option<(String, String)>,
}

/// Why the events were not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Valkey.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The offline store.
    #[error(transparent)]
    Offline(#[from] saker_offline::Error),
    /// A file of the offline store that cannot be written or read.
    #[error("offline store, {file}: {source}")]
    Table {
        /// The view, the day and the file.
        file: String,
        /// Why.
        source: saker_tables::Error,
    },
}

/// An event that was applied.
struct Applied {
    entry: EntryId,
    event: Event,
    top_category: Option<i32>,
}

/// Writes applied events until the stop, and then the remaining ones.
pub(crate) fn run(shared: &Shared, place: &Place) {
    shared.with_connection("offline", |connection| {
        let store = match OfflineStore::open(&place.location) {
            Ok(store) => store,
            Err(error) => return Err(StoreError::Settings(error.to_string())),
        };
        let mut writer = Writer::new(&store, place);
        loop {
            shared.sleep(place.every);
            // Check before the write, so that the last write includes all events of the ended consumers.
            let is_last = shared.workers_ended.load(Ordering::Acquire);
            while !shared.given_up() {
                match writer.write(connection) {
                    Ok(0) => break,
                    Ok(rows) => Counters::add(&shared.counters.offline_rows, rows),
                    Err(Error::Store(error)) => return Err(error),
                    Err(error) => {
                        tracing::warn!(
                            "{error}; events wait in {EVENTS_APPLIED} until it can be written"
                        );
                        Counters::add(&shared.counters.failures, 1);
                        break;
                    }
                }
            }
            if shared.stopped() {
                if is_last {
                    return Ok(());
                }
                std::thread::sleep(ENDING);
            }
        }
    });
}

/// Writes applied events.
pub struct Writer<'w> {
    store: &'w OfflineStore,
    place: &'w Place,
    /// The last entry in a view's files of a day.
    last: HashMap<(String, NaiveDate), Option<EntryId>>,
}

impl<'w> Writer<'w> {
    /// A writer to this store.
    #[must_use]
    pub fn new(store: &'w OfflineStore, place: &'w Place) -> Self {
        Self {
            store,
            place,
            last: HashMap::new(),
        }
    }

    /// Writes the oldest entries and removes them from the stream, over a connection to
    /// [`saker_contract::Database::Activity`]. Returns the number of rows written.
    ///
    /// # Errors
    /// Returns the errors of the two stores; the entries then stay in the stream.
    pub fn write(&mut self, connection: &mut Connection) -> Result<usize, Error> {
        let reply = ask(connection, |cmd| {
            cmd.arg("XRANGE").arg(EVENTS_APPLIED).arg("-").arg("+");
            cmd.arg("COUNT").arg(ROWS);
        })?;
        let mut days: BTreeMap<NaiveDate, Vec<Applied>> = BTreeMap::new();
        let mut until = None;
        for (entry, fields) in entries(reply)? {
            until = Some(entry);
            match applied(entry, &fields.unwrap_or_default()) {
                Ok(applied) => match DateTime::from_timestamp_micros(applied.event.time_us) {
                    Some(time) => days.entry(time.date_naive()).or_default().push(applied),
                    None => tracing::error!(
                        %entry,
                        "an entry of {EVENTS_APPLIED} is skipped: its time {} is outside the calendar",
                        applied.event.time_us
                    ),
                },
                Err(error) => {
                    tracing::error!(%entry, "an entry of {EVENTS_APPLIED} is skipped: {error}")
                }
            }
        }
        let Some(until) = until else { return Ok(0) };
        let mut rows = 0;
        for (day, applied) in days {
            let all: Vec<&Applied> = applied.iter().collect();
            rows += self.add(EVENTS, day, &all, |rows| self.place.events(rows))?;
            if let Some((view, column)) = &self.place.top_category {
                let known = applied.iter().filter(|row| row.top_category.is_some());
                rows += self.add(view, day, &known.collect::<Vec<_>>(), |rows| {
                    self.place.top_categories(column, rows)
                })?;
            }
        }
        let trimmed = ask(connection, |cmd| {
            cmd.arg("XTRIM").arg(EVENTS_APPLIED).arg("MINID");
            cmd.arg(until.next().to_string());
        })?;
        match trimmed {
            // All of these entries are in files already. There may be more, so do not return 0.
            Reply::Int(_) => Ok(rows.max(1)),
            other => Err(unexpected("XTRIM", &other).into()),
        }
    }

    /// Adds the rows that are missing to a view's files of a day.
    fn add(
        &mut self,
        view: &str,
        day: NaiveDate,
        rows: &[&Applied],
        table: impl Fn(&[&Applied]) -> Result<Bytes, saker_tables::Error>,
    ) -> Result<usize, Error> {
        /// Maximum number of attempts that other writers may overtake.
        const ATTEMPTS: usize = 5;
        let key = (view.to_owned(), day);
        for _ in 0..ATTEMPTS {
            let last = match self.last.get(&key) {
                Some(last) => *last,
                None => self.read_last(view, day)?,
            };
            let known = rows.partition_point(|row| Some(row.entry) <= last);
            let new = rows.get(known..).unwrap_or_default();
            let (Some(from), Some(to)) = (new.first(), new.last()) else {
                self.last.insert(key, last);
                return Ok(0);
            };
            let name = format!("{FILES}-{}", from.entry.padded());
            let file = table(new).map_err(|source| Error::Table {
                file: format!("{view}, {day}, {name}"),
                source,
            })?;
            match self.store.put_new(view, day, &name, file) {
                Ok(()) => {
                    self.last.insert(key, Some(to.entry));
                    return Ok(new.len());
                }
                Err(saker_offline::Error::Exists(_)) => {
                    self.last.remove(&key);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Data(format!(
            "view {view}, {day}: other writers were faster in every attempt"
        ))
        .into())
    }

    fn read_last(&self, view: &str, day: NaiveDate) -> Result<Option<EntryId>, Error> {
        let names = self.store.names(view, day)?;
        let Some(newest) = names.iter().rfind(|name| name.starts_with(FILES)) else {
            return Ok(None);
        };
        let broken = |source| Error::Table {
            file: format!("{view}, {day}, {newest}"),
            source,
        };
        let table = Table::read_bytes(self.store.get(view, day, newest)?).map_err(broken)?;
        let Values::Texts(entries) = table.column(ENTRY).map_err(broken)? else {
            let column = format!("view {view}, {day}, {newest}: the column {ENTRY} is not text");
            return Err(StoreError::Data(column).into());
        };
        let last = entries.last().and_then(Option::as_deref);
        Ok(last.map(str::parse::<EntryId>).transpose()?)
    }
}

impl Place {
    fn events(&self, rows: &[&Applied]) -> Result<Bytes, saker_tables::Error> {
        let text =
            |of: fn(&Applied) -> &str| NewValues::Texts(rows.iter().map(|row| of(row)).collect());
        let devices = rows.iter().map(|row| row.event.device_type).collect();
        let [user, item] = &self.ids;
        let entries = padded(rows);
        saker_tables::write(&[
            column("event_id", text(|row| &row.event.id)),
            column(user, int32s(rows, |row| row.event.user)),
            column(item, int32s(rows, |row| row.event.item)),
            column("event_type", text(|row| row.event.kind.as_str())),
            column("device_type", NewValues::OptionalInt32s(devices)),
            column(EVENT_TIMESTAMP, times(rows)),
            column(ENTRY, texts(&entries)),
        ])
    }

    fn top_categories(&self, name: &str, rows: &[&Applied]) -> Result<Bytes, saker_tables::Error> {
        let categories = int32s(rows, |row| row.top_category.unwrap_or_default());
        let entries = padded(rows);
        saker_tables::write(&[
            column(&self.ids[0], int32s(rows, |row| row.event.user)),
            column(name, categories),
            column(EVENT_TIMESTAMP, times(rows)),
            column(ENTRY, texts(&entries)),
        ])
    }
}

fn column<'a>(name: &'a str, values: NewValues<'a>) -> NewColumn<'a> {
    NewColumn { name, values }
}

fn int32s(rows: &[&Applied], of: impl Fn(&Applied) -> i32) -> NewValues<'static> {
    NewValues::Int32s(rows.iter().map(|row| of(row)).collect())
}

fn times(rows: &[&Applied]) -> NewValues<'static> {
    NewValues::Microseconds(rows.iter().map(|row| row.event.time_us).collect())
}

fn padded(rows: &[&Applied]) -> Vec<String> {
    rows.iter().map(|row| row.entry.padded()).collect()
}

fn texts(texts: &[String]) -> NewValues<'_> {
    NewValues::Texts(texts.iter().map(String::as_str).collect())
}

fn applied(entry: EntryId, fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Applied, StoreError> {
    let texts: Vec<(String, String)> = fields
        .iter()
        .map(|(name, value)| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            (text(name), text(value))
        })
        .collect();
    let pairs = texts
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let category = texts.iter().find(|(name, _)| name == TOP_CATEGORY);
    Ok(Applied {
        entry,
        event: Event::from_fields(pairs)?,
        top_category: category.and_then(|(_, value)| value.parse().ok()),
    })
}
