//! Periodic work: trimming the stream and the decay of popularity. Any process of the group does it.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use saker_contract::Database;
use saker_contract::keys::{EVENTS, TRENDING_FADED};
use saker_store::guarded::{Command, Guarded, Outcome, Script};
use saker_store::{Connection, Reply, StoreError};

use crate::EntryId;
use crate::consumer::{Shared, TIMEOUT, ask, unexpected};

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// Counts below this number of interactions are removed.
const FORGOTTEN: f64 = 0.01;

/// Trims the stream and applies the decay of popularity, until the stop.
pub(crate) fn run(shared: &Shared, half_life: Option<Duration>) {
    shared.with_connection("housekeeping", |connection| {
        let script = Script::load(connection, TIMEOUT)?;
        let mut trending =
            Connection::open(&shared.store.clone().with_database(Database::Popularity)?)?;
        while !shared.stopped() {
            trim(connection)?;
            let Reply::Int(length) = ask(connection, |cmd| {
                cmd.arg("XLEN").arg(EVENTS);
            })?
            else {
                return Err(StoreError::Protocol("XLEN: no number".into()));
            };
            let backlog = &shared.counters.backlog;
            backlog.store(length.unsigned_abs(), std::sync::atomic::Ordering::Relaxed);
            if let Some(half_life) = half_life {
                fade(
                    shared,
                    (connection, &mut trending),
                    &script,
                    half_life,
                    hour(),
                )?;
            }
            shared.sleep(EVERY);
        }
        Ok(())
    });
}

fn hour() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or_default().as_secs() / 3600
}

/// Removes the entries that every group of the stream has applied. Pending entries stay, and so do all entries after them.
fn trim(connection: &mut Connection) -> Result<(), StoreError> {
    let groups = ask(connection, |cmd| {
        cmd.arg("XINFO").arg("GROUPS").arg(EVENTS);
    });
    let groups = match groups {
        Ok(Reply::Array(groups)) => groups,
        // The stream does not exist yet.
        Err(StoreError::Server(text)) if text.contains("no such key") => return Ok(()),
        other => return Err(unexpected("XINFO GROUPS", &other)),
    };
    let mut applied: Option<EntryId> = None;
    for group in groups {
        let (name, delivered) = delivered(group)?;
        // Read the first pending entry after the last delivered one. An entry that is delivered in between comes after both.
        let first = first_pending(connection, &name)?;
        let until = first.map_or(delivered.next(), |first| first.min(delivered.next()));
        applied = Some(applied.map_or(until, |other| other.min(until)));
    }
    if let Some(applied) = applied {
        ask(connection, |cmd| {
            cmd.arg("XTRIM").arg(EVENTS).arg("MINID");
            cmd.arg(applied.to_string());
        })?;
    }
    Ok(())
}

/// A group's name, and the last entry that one of its consumers has taken.
fn delivered(group: Reply) -> Result<(String, EntryId), StoreError> {
    let Reply::Array(pairs) = &group else {
        return Err(unexpected("XINFO GROUPS", &group));
    };
    let value = |name: &str| {
        pairs.chunks_exact(2).find_map(|pair| match pair {
            [Reply::BulkString(key), Reply::BulkString(value)] if key == name.as_bytes() => {
                Some(String::from_utf8_lossy(value).into_owned())
            }
            _ => None,
        })
    };
    match (value("name"), value("last-delivered-id")) {
        (Some(name), Some(delivered)) => Ok((name, delivered.parse()?)),
        _ => Err(unexpected("XINFO GROUPS", &group)),
    }
}

fn first_pending(connection: &mut Connection, group: &str) -> Result<Option<EntryId>, StoreError> {
    let summary = ask(connection, |cmd| {
        cmd.arg("XPENDING").arg(EVENTS).arg(group);
    })?;
    match &summary {
        Reply::Array(parts) => match parts.as_slice() {
            [_, Reply::BulkString(first), ..] => String::from_utf8_lossy(first).parse().map(Some),
            [_, Reply::Nil, ..] => Ok(None),
            _ => Err(unexpected("XPENDING", &summary)),
        },
        _ => Err(unexpected("XPENDING", &summary)),
    }
}

/// Applies the decay since the last time to the counts of all popularity sets. If several processes try, one of them does it.
fn fade(
    shared: &Shared,
    (connection, trending): (&mut Connection, &mut Connection),
    script: &Script,
    half_life: Duration,
    hour: u64,
) -> Result<(), StoreError> {
    let noted = ask(trending, |cmd| {
        cmd.arg("GET").arg(TRENDING_FADED);
    })?;
    let noted = match noted {
        Reply::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Reply::Nil => String::new(),
        other => return Err(unexpected("GET", &other)),
    };
    let mut fade = Guarded::default();
    fade.only_if(
        noted.as_str(),
        Command::new(Database::Popularity, "GET").arg(TRENDING_FADED),
    );
    // Write the hour first. If the server refuses it, for example because it is out of memory, skip the decay: otherwise every round would
    // apply the decay again.
    fade.change(
        Command::new(Database::Popularity, "SET")
            .arg(TRENDING_FADED)
            .arg(hour),
    );
    // Without a readable hour, the decay starts now.
    let passed = hour.saturating_sub(noted.parse().unwrap_or(hour));
    if passed == 0 && !noted.is_empty() {
        return Ok(());
    }
    if passed > 0 {
        let factor = 0.5f64.powf(passed as f64 * 3600.0 / half_life.as_secs_f64());
        let sets = shared.popularity_sets.lock();
        let sets = sets.unwrap_or_else(PoisonError::into_inner).clone();
        for set in sets {
            let union = Command::new(Database::Popularity, "ZUNIONSTORE")
                .arg(set)
                .arg(1)
                .arg(set);
            fade.change_once(union.arg("WEIGHTS").arg(factor));
            let forget = Command::new(Database::Popularity, "ZREMRANGEBYSCORE").arg(set);
            fade.change_once(forget.arg("-inf").arg(format!("({FORGOTTEN}")));
        }
    }
    if let Outcome::Done(refused) = shared.carry_out(connection, script, &fade)? {
        for reason in refused {
            tracing::error!("the decay of popularity failed: {reason}");
        }
        tracing::info!("applied {passed} h of decay to popularity");
    }
    Ok(())
}
