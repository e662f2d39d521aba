//! Events of visitors, on their way from the gateway to the program that applies them: the stream `events` of database 1.
//!
//! | key | type | content |
//! |---|---|---|
//! | `events` | stream | an entry per event: `event_id`, `user_id`, `item_id`, `type`, `timestamp_us`; `device_type` when given; `traceparent` when traced |
//! | `events:ids:{shard}` | sorted set, expires [`REMEMBERED`] after the last write | digests of the ids of recent events, with their arrival in microseconds since 1970 |
//!
//! A client may resend an event because the answer was lost. The event is then not stored again: one script looks up its id among the known
//! ones and adds the entry. Readers trim the stream up to the applied entries. [`publish`] refuses events while the stream is longer than
//! the caller allows. The keys of an event are in different slots, so a cluster refuses the script.
//!
//! # Known ids
//! An id stays known for [`REMEMBERED`], and until about [`Limits::ids`] newer ones have arrived. This bounds the server's memory for ids:
//! about 25 bytes each. A digest has 80 bits and selects one of `ids / 128` shards. Each shard keeps its 128 latest digests, which is as
//! many as the server holds in its compact encoding. The probability that two different ids collide is below 1e-15.
//! another with a probability below 1e-15.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use redis::Value as Reply;
use saker_contract::keys::{self, EVENTS};
use sha2::{Digest, Sha256};

use crate::node::CommandResult;
use crate::{Pipeline, StoreError};

/// Duration for which an event's id stays known.
pub const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Maximum length of an event's id, in characters.
pub const LONGEST_ID: usize = 64;

/// Number of digests per shard: the server's default `zset-max-listpack-entries`.
const SHARD: u64 = 128;

/// Limits of the stored events and ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of entries in the stream.
    pub backlog: u64,
    /// Maximum number of known event ids. A change of this number forgets the known ids.
    pub ids: u64,
}

impl Default for Limits {
    /// A million entries in the stream and ten million ids: about 200 and 250 MB.
    fn default() -> Self {
        Self {
            backlog: 1_000_000,
            ids: 10_000_000,
        }
    }
}

/// Keys: the stream, the shard of the event's id. Arguments: maximum entries of the stream, seconds for which an id stays known, maximum
/// digests of the shard, the event's digest, then fields and values.
///
/// The entry is written before its digest: a server without memory refuses only the first write of a script.
const SCRIPT: &str = "\
if redis.call('ZSCORE', KEYS[2], ARGV[4]) then return 'duplicate' end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 'full' end
local entry = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 5))
if ARGV[3] == '0' then return entry end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - ARGV[2] * 1000000))
local over = redis.call('ZCARD', KEYS[2]) + 1 - tonumber(ARGV[3])
if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[2], 0, over - 1) end
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return entry";
/// SHA-1 of [`SCRIPT`], its name on the server. A test compares it with the server's own.
const SCRIPT_SHA1: &str = "c3bc03a58ff6b7b07e9fd64ad63df4660dcd2a34";

/// The visitor's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The visitor saw the item.
    View,
    /// The visitor opened the item.
    Click,
    /// The visitor put the item into the cart.
    Cart,
    /// The visitor bought the item.
    Purchase,
}

impl Kind {
    /// All kinds, from the weakest sign of interest to the strongest.
    pub const ALL: [Self; 4] = [Self::View, Self::Click, Self::Cart, Self::Purchase];

    /// The name of the kind in an entry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Click => "click",
            Self::Cart => "cart",
            Self::Purchase => "purchase",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let named = |kind: &Self| kind.as_str() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| {
            StoreError::Data(format!(
                "type '{text}' is unknown; accepted: view, click, cart, purchase"
            ))
        })
    }
}

/// An action of one user on one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique id of the event, 1 to [`LONGEST_ID`] characters.
    pub id: String,
    /// Raw user id.
    pub user: i32,
    /// Raw item id.
    pub item: i32,
    /// The action.
    pub kind: Kind,
    /// Microseconds since 1970, UTC.
    pub time_us: i64,
    /// 0 mobile, 1 desktop, 2 tablet.
    pub device_type: Option<i32>,
    /// The W3C `traceparent` of the request that sent the event, if its trace is recorded. It has no effect on the event.
    pub traceparent: Option<String>,
}

impl Event {
    /// The fields of an entry, in order.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("event_id", self.id.clone()),
            ("user_id", self.user.to_string()),
            ("item_id", self.item.to_string()),
            ("type", self.kind.to_string()),
            ("timestamp_us", self.time_us.to_string()),
        ];
        fields.extend(
            self.device_type
                .map(|device| ("device_type", device.to_string())),
        );
        let trace = self.traceparent.iter();
        fields.extend(trace.map(|trace| ("traceparent", trace.clone())));
        fields
    }

    /// Reads an entry's fields in any order; unknown fields are ignored.
    ///
    /// # Errors
    /// Returns [`StoreError::Data`], which names the field that is missing or invalid.
    pub fn from_fields<'f>(
        fields: impl IntoIterator<Item = (&'f str, &'f str)>,
    ) -> Result<Self, StoreError> {
        let fields: HashMap<&str, &str> = fields.into_iter().collect();
        let text = |name: &str| {
            fields
                .get(name)
                .copied()
                .ok_or_else(|| StoreError::Data(format!("an event has no field {name}")))
        };
        fn number<N: FromStr>(name: &str, text: &str) -> Result<N, StoreError> {
            text.parse().map_err(|_| {
                StoreError::Data(format!(
                    "an event's field {name} is '{text}', which is not a number in range"
                ))
            })
        }
        let id = text("event_id")?;
        if id.is_empty() || id.chars().count() > LONGEST_ID {
            return Err(StoreError::Data(format!(
                "an event's field event_id has {} characters; accepted: 1 to {LONGEST_ID}",
                id.chars().count()
            )));
        }
        Ok(Self {
            id: id.to_owned(),
            user: number("user_id", text("user_id")?)?,
            item: number("item_id", text("item_id")?)?,
            kind: text("type")?.parse()?,
            time_us: number("timestamp_us", text("timestamp_us")?)?,
            device_type: match fields.get("device_type") {
                Some(device) => Some(number("device_type", device)?),
                None => None,
            },
            traceparent: fields.get("traceparent").map(|&trace| trace.to_owned()),
        })
    }
}

/// The key and the digest under which an event's id is stored.
fn known_as(event_id: &str, ids: u64) -> (String, [u8; 10]) {
    let hash: [u8; 32] = Sha256::digest(event_id.as_bytes()).into();
    let (mut place, mut digest) = ([0; 8], [0; 10]);
    place.copy_from_slice(&hash[..8]);
    digest.copy_from_slice(&hash[8..18]);
    let shard = u64::from_le_bytes(place) % ids.div_ceil(SHARD).max(1);
    (keys::event_ids(shard), digest)
}

/// The result for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The event is in the stream, as this entry.
    Stored(String),
    /// An event with the same id was stored before.
    Duplicate,
    /// The stream has reached its limit.
    Full,
}

/// Adds events to the stream in one round trip, or in two if the server does not have the script yet. `run` executes a pipeline, as
/// [`Client::run`](crate::Client::run) does. Calls can be repeated: an event is stored only once.
///
/// # Errors
/// Returns the errors of `run` and of the server. Some of the events may be stored in that case.
pub fn publish(
    events: &[Event],
    limits: Limits,
    mut run: impl FnMut(&Pipeline, &mut Vec<CommandResult>) -> Result<(), StoreError>,
) -> Result<Vec<Published>, StoreError> {
    let mut replies = Vec::with_capacity(events.len());
    let mut pipeline = Pipeline::new();
    for event in events {
        add(&mut pipeline, ("EVALSHA", SCRIPT_SHA1), event, limits);
    }
    run(&pipeline, &mut replies)?;
    let unknown: Vec<(&Event, &mut CommandResult)> = (events.iter().zip(&mut replies))
        .filter(|(_, reply)| reply.as_ref().is_err_and(is_unknown_script))
        .collect();
    if !unknown.is_empty() {
        pipeline.clear();
        for (event, _) in &unknown {
            add(&mut pipeline, ("EVAL", SCRIPT), event, limits);
        }
        let mut again = Vec::with_capacity(unknown.len());
        run(&pipeline, &mut again)?;
        for ((_, reply), second) in unknown.into_iter().zip(again) {
            *reply = second;
        }
    }
    replies.into_iter().map(|reply| outcome(reply?)).collect()
}

fn add(pipeline: &mut Pipeline, call: (&str, &str), event: &Event, limits: Limits) {
    let (key, digest) = known_as(&event.id, limits.ids);
    pipeline.command(EVENTS.as_bytes(), |cmd| {
        cmd.arg(call.0).arg(call.1).arg(2).arg(EVENTS).arg(key);
        cmd.arg(limits.backlog).arg(REMEMBERED.as_secs());
        cmd.arg(SHARD.min(limits.ids)).arg(&digest[..]);
        for (name, value) in event.fields() {
            cmd.arg(name).arg(value);
        }
    });
}

fn is_unknown_script(error: &StoreError) -> bool {
    matches!(error, StoreError::Server(text) if text.starts_with("NOSCRIPT"))
}

fn outcome(reply: Reply) -> Result<Published, StoreError> {
    let word: String = redis::from_redis_value(reply)
        .map_err(|error| StoreError::Protocol(format!("the script of events: {error}")))?;
    Ok(match word.as_str() {
        "duplicate" => Published::Duplicate,
        "full" => Published::Full,
        _ => Published::Stored(word),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connection, Settings};
    use saker_testing::valkey::Valkey;

    fn event(id: &str) -> Event {
        Event {
            id: id.to_owned(),
            user: 42,
            item: 7,
            kind: Kind::Cart,
            time_us: 1_700_000_000_123_456,
            device_type: Some(2),
            traceparent: None,
        }
    }

    fn connect(valkey: &Valkey) -> Connection {
        Connection::open(&Settings::parse(&valkey.url(1), None).unwrap()).unwrap()
    }

    fn ask(connection: &mut Connection, words: &[&str]) -> Reply {
        let mut pipeline = Pipeline::new();
        pipeline.keyless(|cmd| {
            for word in words {
                cmd.arg(*word);
            }
        });
        let timeout = Duration::from_secs(5);
        connection.run(&pipeline, timeout).unwrap().remove(0)
    }

    fn send(connection: &mut Connection, events: &[Event], backlog: u64) -> Vec<Published> {
        let limits = Limits {
            backlog,
            ..Limits::default()
        };
        send_within(connection, events, limits)
    }

    fn send_within(
        connection: &mut Connection,
        events: &[Event],
        limits: Limits,
    ) -> Vec<Published> {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        publish(events, limits, |pipeline, replies| {
            connection.run_until(pipeline, deadline, replies)
        })
        .unwrap()
    }

    #[test]
    fn fields_are_read_back() {
        for event in [
            event("a"),
            Event {
                device_type: None,
                user: -1,
                traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
                ..event("b")
            },
        ] {
            let fields = event.fields();
            let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
            assert_eq!(Event::from_fields(fields).unwrap(), event);
        }
        let names: Vec<&str> = event("a").fields().iter().map(|(name, _)| *name).collect();
        let order = [
            "event_id",
            "user_id",
            "item_id",
            "type",
            "timestamp_us",
            "device_type",
        ];
        assert_eq!(names, order);
    }

    #[test]
    fn an_unreadable_field_is_named() {
        let good = event("a");
        for (name, value) in [
            ("event_id", ""),
            ("user_id", "4294967296"),
            ("item_id", "x"),
            ("type", "wish"),
            ("timestamp_us", "1.5"),
            ("device_type", "mobile"),
        ] {
            let fields = good.fields();
            let fields = fields.iter().map(|(known, text)| match *known == name {
                true => (*known, value),
                false => (*known, text.as_str()),
            });
            let error = Event::from_fields(fields).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(Event::from_fields([("event_id", "a")]).is_err());
    }

    #[test]
    fn an_event_is_stored_once() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        // The first call sends the script to the server; later calls find it there.
        let first = send(&mut connection, &[event("a"), event("b"), event("a")], 10);
        assert!(matches!(first[0], Published::Stored(_)), "{first:?}");
        assert_eq!(first[2], Published::Duplicate);
        let again = send(&mut connection, &[event("a")], 10);
        assert_eq!(again, [Published::Duplicate]);
        assert_eq!(ask(&mut connection, &["XLEN", EVENTS]), Reply::Int(2));
        let (key, _) = known_as("a", Limits::default().ids);
        let Reply::Int(seconds) = ask(&mut connection, &["TTL", &key]) else {
            panic!("no time to live");
        };
        assert!((604_790..=604_800).contains(&seconds), "{seconds}");
    }

    /// For any number of events: the latest ids are known, the first are not, and an id takes as much memory as the module says.
    #[test]
    fn known_ids_take_bounded_memory() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        let limits = Limits {
            backlog: 1_000_000,
            ids: 20_000,
        };
        let events: Vec<Event> = (0..60_000)
            .map(|id| event(&format!("event-{id}")))
            .collect();
        for lot in events.chunks(5000) {
            let published = send_within(&mut connection, lot, limits);
            let stored = |one: &Published| matches!(one, Published::Stored(_));
            assert!(published.iter().all(stored));
        }
        let latest = send_within(&mut connection, &events[events.len() - 10_000..], limits);
        assert!(latest.iter().all(|one| *one == Published::Duplicate));
        let first = send_within(&mut connection, &events[..100], limits);
        assert!(first.iter().all(|one| matches!(one, Published::Stored(_))));

        let shards = limits.ids.div_ceil(SHARD);
        let (mut known, mut bytes) = (0, 0);
        for shard in 0..shards {
            let key = keys::event_ids(shard);
            let Reply::Int(count) = ask(&mut connection, &["ZCARD", &key]) else {
                panic!("no count");
            };
            let Reply::Int(size) = ask(&mut connection, &["MEMORY", "USAGE", &key]) else {
                panic!("no size");
            };
            known += count;
            bytes += size;
        }
        assert!(known as u64 <= shards * SHARD, "{known}");
        assert!(bytes <= 30 * known, "{} bytes an id", bytes / known);
        assert_eq!(
            ask(&mut connection, &["EXISTS", &keys::event_ids(shards)]),
            Reply::Int(0)
        );
    }

    #[test]
    fn few_or_no_known_ids_are_a_bound_as_well() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        for (ids, known) in [(0, false), (1, true), (3, true)] {
            let limits = Limits { backlog: 100, ids };
            let id = event(&format!("of {ids}"));
            let twice = send_within(&mut connection, &[id.clone(), id], limits);
            assert_eq!(twice[1] == Published::Duplicate, known, "{ids}");
        }
    }

    #[test]
    fn a_server_without_memory_stores_neither_the_event_nor_its_id() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        ask(&mut connection, &["CONFIG", "SET", "maxmemory", "1"]);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let refused = publish(&[event("a")], Limits::default(), |pipeline, replies| {
            connection.run_until(pipeline, deadline, replies)
        });
        assert!(refused.unwrap_err().is_out_of_memory());
        ask(&mut connection, &["CONFIG", "SET", "maxmemory", "0"]);
        let stored = send(&mut connection, &[event("a")], 10);
        assert!(matches!(stored[0], Published::Stored(_)), "{stored:?}");
    }

    #[test]
    fn a_full_stream_takes_nothing_new() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        let all = send(&mut connection, &[event("a"), event("b"), event("c")], 2);
        assert_eq!(all[2], Published::Full);
        let again = send(&mut connection, &[event("a")], 2);
        assert_eq!(again, [Published::Duplicate]);
    }

    #[test]
    fn the_server_knows_the_script_by_our_hash() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        let loaded = ask(&mut connection, &["SCRIPT", "LOAD", SCRIPT]);
        assert_eq!(loaded, Reply::BulkString(SCRIPT_SHA1.into()));
    }
}
