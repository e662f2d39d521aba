//! What follows from a user's events: the changes to the store, computed from what the store held.

use saker_contract::Database;
use saker_contract::keys::{EVENTS_APPLIED, EVENTS_REJECTED};
use saker_contract::tensor::TOP_CATEGORY;
use saker_store::events::Event;
use saker_store::feast::{FeatureView, Timestamp, Value};
use saker_store::guarded::{Command, Guarded};
use saker_store::seen::bitmap::{self, Geometry, HEADER};
use saker_store::seen::{self, Method, Prefixes};
use saker_store::{StoreError, recent};

use crate::EntryId;
use crate::item_categories::ItemCategories;

/// Bits of one BITFIELD, or items of one BF.MADD: a bit is four words, and a command has at most
/// [`MOST_WORDS`](saker_store::guarded::MOST_WORDS).
const LOT: usize = 1000;
/// Maximum number of entries in the stream of rejected ones.
const REJECTED_KEPT: usize = 10_000;
/// Maximum number of fields that are kept of a rejected entry.
const REJECTED_FIELDS: usize = 100;
/// Maximum number of bytes of names and values that are kept of a rejected entry.
const REJECTED_BYTES: usize = 16 * 1024;

/// What the changes depend on besides the events and the store.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The categories of the items.
    pub items: ItemCategories,
    /// The view whose only feature is the top category, if users have one.
    pub top_category: Option<FeatureView>,
    /// The format of the seen items.
    pub seen: Method,
    /// Their keys.
    pub prefixes: Prefixes,
    /// The sizes of a new bitmap.
    pub geometry: Geometry,
}

/// An event and its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The entry.
    pub entry: EntryId,
    /// The event.
    pub event: Event,
}

/// The stored state of a user before these events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Recent items with their times in microseconds, from [`oldest`] on, in the server's order. Other writers may have stored
    /// any bytes.
    pub recent: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bitmap of seen items, if it exists.
    pub bitmap: Option<Vec<u8>>,
}

/// The earliest time, in microseconds, from which the recent items are needed to apply these events.
#[must_use]
pub fn oldest(arrivals: &[Arrival]) -> i64 {
    let times = arrivals.iter().map(|arrival| arrival.event.time_us);
    times.min().unwrap_or_default() - recent::WINDOW.as_micros() as i64
}

/// The read of the recent items.
#[must_use]
pub fn read_recent(user: i32, oldest: i64) -> Command {
    Command::new(Database::Activity, "ZRANGEBYSCORE")
        .arg(recent::key(user.into()))
        .arg(oldest)
        .arg("+inf")
        .arg("WITHSCORES")
}

impl Rules {
    /// The key of a user's seen items.
    #[must_use]
    pub fn seen_key(&self, user: i32) -> String {
        self.prefixes.key(self.seen, user.into())
    }

    /// The changes that follow from events of one user, in the order of their entries.
    ///
    /// Events of anonymous visitors (ids below 0) change only popularity and history, because all of them share one id. Events of items
    /// that are not in the catalogue change only seen items and history.
    ///
    /// # Errors
    /// Returns [`StoreError::Data`] if the stored state of the user cannot be read.
    pub fn changes(
        &self,
        user: i32,
        arrivals: &[Arrival],
        before: &Before,
    ) -> Result<Guarded, StoreError> {
        let mut guarded = Guarded::from_entries(arrivals.iter().map(|arrival| arrival.entry));
        let mut top_categories = vec![None; arrivals.len()];
        if user >= 0 {
            self.seen(user, arrivals, before, &mut guarded)?;
            top_categories = self.recent(user, arrivals, before, &mut guarded)?;
        }
        for (arrival, top_category) in arrivals.iter().zip(top_categories) {
            let event = &arrival.event;
            if let Some(item) = self.items.get(event.item) {
                for set in item.sets() {
                    guarded.change_once(
                        Command::new(Database::Popularity, "ZINCRBY")
                            .arg(set)
                            .arg(1)
                            .arg(event.item),
                    );
                }
            }
            let mut applied = Command::new(Database::Activity, "XADD")
                .arg(EVENTS_APPLIED)
                .arg("*");
            for (name, value) in event.fields() {
                applied = applied.arg(name).arg(value);
            }
            applied = applied.arg("entry").arg(arrival.entry);
            if let Some(category) = top_category {
                applied = applied.arg(TOP_CATEGORY).arg(category);
            }
            guarded.change_once(applied);
        }
        Ok(guarded)
    }

    fn seen(
        &self,
        user: i32,
        arrivals: &[Arrival],
        before: &Before,
        guarded: &mut Guarded,
    ) -> Result<(), StoreError> {
        const DATABASE: Database = Database::Activity;
        let key = self.seen_key(user);
        let items: Vec<i64> = arrivals
            .iter()
            .map(|arrival| arrival.event.item.into())
            .collect();
        match self.seen {
            Method::Server => {
                for lot in items.chunks(LOT) {
                    let add = Command::new(DATABASE, "BF.MADD").arg(&key);
                    guarded.change(lot.iter().fold(add, Command::arg));
                }
            }
            Method::Plain => {
                let stored = before.bitmap.as_deref();
                let change = bitmap::insert(stored, self.geometry, &items)
                    .map_err(|error| StoreError::Data(format!("key {key}: {error}")))?;
                // Other writers only set bits, so they do no harm, unless one has created the bitmap with other sizes.
                let header =
                    stored.map_or(&[][..], |stored| stored.get(..HEADER).unwrap_or(stored));
                let read = Command::new(DATABASE, "GETRANGE").arg(&key);
                guarded.only_if(header, read.arg(0).arg(HEADER - 1));
                let header = change.geometry.header();
                let make = Command::new(DATABASE, "SET").arg(&key).bytes(header);
                guarded.change(make.arg("NX"));
                for bits in change.bits.chunks(LOT) {
                    let set =
                        |command: Command, bit: &u64| command.arg("SET").arg("u1").arg(bit).arg(1);
                    let bitfield = Command::new(DATABASE, "BITFIELD").arg(&key);
                    guarded.change(bits.iter().fold(bitfield, set));
                }
            }
        }
        let expire = Command::new(DATABASE, "EXPIRE").arg(&key);
        guarded.change(expire.arg(seen::EXPIRY.as_secs()));
        Ok(())
    }

    /// Adds the events to the recent items. Returns the top category after each event.
    fn recent(
        &self,
        user: i32,
        arrivals: &[Arrival],
        before: &Before,
        guarded: &mut Guarded,
    ) -> Result<Vec<Option<i32>>, StoreError> {
        const DATABASE: Database = Database::Activity;
        let key = recent::key(user.into());
        let stored = before.recent.iter();
        let words: Vec<&[u8]> = stored
            .clone()
            .flat_map(|(item, time)| [item.as_slice(), time.as_slice()])
            .collect();
        guarded.only_if(words.join(&b' '), read_recent(user, oldest(arrivals)));
        let mut items = stored
            .map(|(item, time)| recent_item(&key, item, time))
            .collect::<Result<Vec<(i64, i64)>, _>>()?;
        // The last 24 hours are counted back from the user's latest known event, not from the clock. This is right for events that are
        // applied late, and for simulated time.
        let mut now = items.iter().map(|&(_, time)| time).max();
        let mut top_categories = Vec::with_capacity(arrivals.len());
        for Arrival { event, .. } in arrivals {
            let (item, time) = (i64::from(event.item), event.time_us);
            if self.items.get(event.item).is_some() {
                let add = Command::new(DATABASE, "ZADD").arg(&key).arg("GT");
                guarded.change(add.arg(time).arg(item));
                match items.iter_mut().find(|(known, _)| *known == item) {
                    Some((_, last)) => *last = (*last).max(time),
                    None => items.push((item, time)),
                }
                now = now.max(Some(time));
            }
            top_categories.push(now.and_then(|now| {
                recent::top_category(&items, now, |item| {
                    let item = i32::try_from(item).ok()?;
                    self.items.get(item)?.top
                })
            }));
        }
        let Some(now) = now else {
            return Ok(top_categories);
        };
        let forget = Command::new(DATABASE, "ZREMRANGEBYSCORE").arg(&key);
        let oldest = now - recent::EXPIRY.as_micros() as i64;
        guarded.change(forget.arg("-inf").arg(format!("({oldest}")));
        let expire = Command::new(DATABASE, "EXPIRE").arg(&key);
        guarded.change(expire.arg(recent::EXPIRY.as_secs()));

        let Some(view) = &self.top_category else {
            return Ok(vec![None; arrivals.len()]);
        };
        if let Some(category) = top_categories.last().copied().flatten() {
            let (id, value) = (view.id(user), Some(Value::Int32(category)));
            let words = view.write(&id, &[value], Timestamp::from_micros(now))?;
            guarded.change(Command::of(Database::Features, words));
        }
        Ok(top_categories)
    }
}

/// A recent item and its time, as the server holds them under `key`.
fn recent_item(key: &str, item: &[u8], time: &[u8]) -> Result<(i64, i64), StoreError> {
    let texts = (std::str::from_utf8(item), std::str::from_utf8(time));
    // The server prints scores as f64, which holds the microseconds of this millennium exactly.
    let numbers = match texts {
        (Ok(item), Ok(time)) => item.parse().ok().zip(time.parse::<f64>().ok()),
        _ => None,
    };
    let (item, time) = numbers.ok_or_else(|| {
        StoreError::Data(format!(
            "key {key}: member '{}' of score '{}' is not an item id and its time",
            item.escape_ascii(),
            time.escape_ascii()
        ))
    })?;
    Ok((item, time as i64))
}

/// Moves an entry that cannot be applied to the stream of rejected ones: its id, the reason, and as many of its fields as fit.
/// `fields_left_out` counts the others.
#[must_use]
pub fn reject(entry: EntryId, fields: &[(Vec<u8>, Vec<u8>)], reason: &str) -> Guarded {
    let mut guarded = Guarded::from_entries([entry]);
    let aside = Command::new(Database::Activity, "XADD").arg(EVENTS_REJECTED);
    let aside = aside.arg("MAXLEN").arg("~").arg(REJECTED_KEPT).arg("*");
    let mut aside = aside.arg("entry").arg(entry).arg("reason").arg(reason);
    let mut room = REJECTED_BYTES;
    let kept = fields
        .iter()
        .take(REJECTED_FIELDS)
        .take_while(|(name, value)| {
            let fits = room.checked_sub(name.len() + value.len());
            room = fits.unwrap_or_default();
            fits.is_some()
        });
    let kept: Vec<_> = kept.collect();
    if kept.len() < fields.len() {
        aside = aside.arg("fields_left_out").arg(fields.len() - kept.len());
    }
    for (name, value) in kept {
        aside = aside.bytes(name.as_slice()).bytes(value.as_slice());
    }
    guarded.change_once(aside);
    guarded
}

#[cfg(test)]
mod tests {
    use saker_store::events::Kind;
    use saker_store::feast::EntityKeyVersion;

    use super::*;
    use crate::item_categories::Item;

    const NOW: i64 = 1_790_000_000_000_000;

    fn rules(seen: Method) -> Rules {
        let item = |id: i32| Item {
            top: Some(id / 10),
            trending: [Some(id / 10), Some(id)],
        };
        Rules {
            items: (10..100).map(|id| (id, item(id))).collect(),
            top_category: Some(FeatureView::new(
                "shop",
                "user_activity",
                "user_id",
                EntityKeyVersion::V3,
                ["top_category"],
            )),
            seen,
            prefixes: Prefixes::default(),
            geometry: Geometry::new(100, 0.01).unwrap(),
        }
    }

    fn arrival(place: u64, user: i32, item: i32, time_us: i64) -> Arrival {
        Arrival {
            entry: EntryId {
                milliseconds: 1,
                sequence: place,
            },
            event: Event {
                id: format!("event-{place}"),
                user,
                item,
                kind: Kind::View,
                time_us,
                device_type: None,
                traceparent: None,
            },
        }
    }

    /// Commands as text, a line each: `database name argument…`; bytes that are no text are left out.
    fn said(changes: &Guarded) -> Vec<String> {
        let text = |command: &Command| {
            let words = command.words().iter();
            let words: Vec<&str> = words
                .filter_map(|word| std::str::from_utf8(word).ok())
                .collect();
            format!("{} {}", command.database(), words.join(" "))
        };
        changes.commands().map(text).collect()
    }

    #[test]
    fn with_a_bloom_module_the_servers_filter_is_written() {
        let arrivals = [arrival(0, 7, 21, NOW), arrival(1, 7, 31, NOW + 1)];
        let changes = rules(Method::Server).changes(7, &arrivals, &Before::default());
        let said = said(&changes.unwrap());
        assert!(
            said.contains(&"1 BF.MADD bf:seen:7 21 31".to_owned()),
            "{said:?}"
        );
        assert!(
            said.contains(&"1 EXPIRE bf:seen:7 604800".to_owned()),
            "{said:?}"
        );
        assert!(
            !said.iter().any(|line| line.contains("BITFIELD")),
            "{said:?}"
        );
        assert!(
            said.contains(&"3 ZINCRBY trending:cat_l1:2 1 21".to_owned()),
            "{said:?}"
        );
        assert!(
            said.contains(&"3 ZINCRBY trending:cat_l2:31 1 31".to_owned()),
            "{said:?}"
        );
    }

    #[test]
    fn each_event_has_the_top_category_after_it() {
        let arrivals = [
            arrival(0, 7, 21, NOW),
            arrival(1, 7, 31, NOW + 1),
            arrival(2, 7, 22, NOW + 2),
        ];
        let before = Before {
            // A day and a second ago: out of sight.
            recent: vec![("99".into(), (NOW - 86_401_000_000).to_string().into())],
            bitmap: None,
        };
        let changes = rules(Method::Plain).changes(7, &arrivals, &before).unwrap();
        let applied: Vec<String> = said(&changes)
            .into_iter()
            .filter(|line| line.starts_with("1 XADD"))
            .collect();
        for (line, category) in applied.iter().zip([2, 3, 2]) {
            assert!(
                line.ends_with(&format!("top_category {category}")),
                "{line}"
            );
        }
        assert_eq!(applied.len(), 3);
    }

    #[test]
    fn the_top_category_is_written_for_the_entity_that_lookups_read() {
        use saker_store::feast::{EntityType, entity_key};
        for kind in EntityType::ALL {
            let mut rules = rules(Method::Plain);
            let view = rules.top_category.take().unwrap();
            rules.top_category = Some(view.with_entity_type(kind));
            let changes = rules.changes(7, &[arrival(0, 7, 21, NOW)], &Before::default());
            let key = entity_key(EntityKeyVersion::V3, "shop", &[("user_id", kind.id(7))]);
            let changes = changes.unwrap();
            let written = |command: &Command| {
                command.database() == Database::Features.number()
                    && command.words().get(1) == Some(&key)
            };
            assert_eq!(
                changes.commands().filter(|c| written(c)).count(),
                1,
                "{kind}"
            );
        }
    }

    #[test]
    fn a_late_event_does_not_turn_back_the_clock() {
        let day = 86_400_000_000;
        let before = Before {
            recent: vec![("31".into(), NOW.to_string().into())],
            bitmap: None,
        };
        let late = [
            arrival(0, 7, 21, NOW - 2 * day),
            arrival(1, 7, 22, NOW - 2 * day),
        ];
        let changes = rules(Method::Plain).changes(7, &late, &before).unwrap();
        let said = said(&changes);
        let last = said
            .iter()
            .rfind(|line| line.starts_with("1 XADD"))
            .unwrap();
        assert!(last.ends_with("top_category 3"), "{last}");
    }

    #[test]
    fn guests_share_an_id_and_leave_no_trace_under_it() {
        let changes =
            rules(Method::Plain).changes(-1, &[arrival(0, -1, 21, NOW)], &Before::default());
        let said = said(&changes.unwrap());
        assert!(
            said.iter()
                .all(|line| line.starts_with("3 ZINCRBY") || line.starts_with("1 XADD")),
            "{said:?}"
        );
    }

    #[test]
    fn an_unknown_item_is_seen_and_history_and_nothing_else() {
        let before = Before {
            recent: vec![("31".into(), NOW.to_string().into())],
            bitmap: None,
        };
        let unknown = arrival(0, 7, 5, NOW + 1);
        let changes = rules(Method::Server).changes(7, std::slice::from_ref(&unknown), &before);
        let said = said(&changes.unwrap());
        assert!(said.contains(&"1 BF.MADD bf:seen:7 5".to_owned()));
        assert!(said.iter().any(|line| line.starts_with("1 XADD")));
        let counted = |line: &String| line.contains("ZADD") || line.contains("ZINCRBY");
        assert!(!said.iter().any(counted), "{said:?}");
        // Somebody who met nothing else has no top category.
        let changes = rules(Method::Server).changes(7, &[unknown], &Before::default());
        let online = |command: &Command| command.database() == Database::Features.number();
        assert!(!changes.unwrap().commands().any(online));
    }

    #[test]
    fn any_number_of_events_becomes_commands_that_a_script_can_call() {
        for method in [Method::Plain, Method::Server] {
            for count in [1, 1000, 5000] {
                let arrivals: Vec<Arrival> = (0..count)
                    .map(|place| arrival(place, 7, place as i32, NOW + place as i64))
                    .collect();
                let changes = rules(method).changes(7, &arrivals, &Before::default());
                let longest = changes.unwrap().commands().map(|it| it.words().len()).max();
                assert!(longest.unwrap() <= saker_store::guarded::MOST_WORDS);
            }
        }
    }

    #[test]
    fn what_is_put_aside_is_bounded_and_counts_what_it_leaves_out() {
        let entry = arrival(0, 7, 21, NOW).entry;
        let field = |length: usize| (b"name".to_vec(), vec![b'x'; length]);
        for (fields, kept) in [
            (vec![field(3); 7], 7),
            (vec![field(3); 4000], REJECTED_FIELDS),
            (vec![field(REJECTED_BYTES); 2], 0),
            (vec![field(REJECTED_BYTES / 4); 5], 3),
        ] {
            let aside = said(&reject(entry, &fields, "why")).remove(0);
            assert_eq!(aside.matches("name").count(), kept, "{aside}");
            let left_out = format!("fields_left_out {}", fields.len() - kept);
            assert_eq!(aside.contains(&left_out), kept < fields.len(), "{aside}");
        }
    }

    #[test]
    fn what_the_store_holds_of_a_user_may_be_unreadable() {
        for (member, score) in [("shoe", "1"), ("1", "x"), ("\u{fffd}", "1"), ("", "1")] {
            let before = Before {
                recent: vec![(member.into(), score.into())],
                bitmap: None,
            };
            let error = rules(Method::Plain).changes(7, &[arrival(0, 7, 21, NOW)], &before);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("user:7:recent_items: member '"), "{error}");
        }
        let before = Before {
            recent: Vec::new(),
            bitmap: Some(b"not a filter".to_vec()),
        };
        let error = rules(Method::Plain).changes(7, &[arrival(0, 7, 21, NOW)], &before);
        assert!(error.unwrap_err().to_string().contains("saker:seen:1:7"));
    }
}
