//! A user's recent items, and the `top_category` derived from them.
//!
//! `user:{id}:recent_items` is a sorted set: member = item id, score = time of the last event in microseconds since 1970, UTC. It expires
//! seven days after the last write.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use redis::Value as Reply;
use saker_contract::keys;

use crate::feast::{FeatureView, Timestamp, Value, Writer};
use crate::{Connection, Pipeline, StoreError};

/// Time after the last write at which recent items expire.
pub const EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Age up to which items count for the top category.
pub const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

const TIMEOUT: Duration = Duration::from_secs(10);

/// An event of one user with one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Raw user id.
    pub user: i64,
    /// Raw item id.
    pub item: i64,
    /// Microseconds since 1970, UTC.
    pub time_us: i64,
}

/// The key of a user's recent items.
#[must_use]
pub fn key(user: i64) -> String {
    keys::recent_items(user)
}

/// Adds events in one round trip, and deletes entries that are older than seven days at `now_us`. An event that arrives late does not
/// replace a newer time.
///
/// # Errors
/// Returns the errors of the store.
/// Those of the store.
pub fn add(connection: &mut Connection, events: &[Event], now_us: i64) -> Result<(), StoreError> {
    let mut pipeline = Pipeline::new();
    for event in events {
        let key = key(event.user);
        pipeline.atomic(key.as_bytes(), |transaction| {
            transaction.command(|cmd| {
                cmd.arg("ZADD")
                    .arg(&key)
                    .arg("GT")
                    .arg(event.time_us)
                    .arg(event.item);
            });
            transaction.command(|cmd| {
                let oldest = now_us - EXPIRY.as_micros() as i64;
                cmd.arg("ZREMRANGEBYSCORE")
                    .arg(&key)
                    .arg("-inf")
                    .arg(format!("({oldest}"));
            });
            transaction.command(|cmd| {
                cmd.arg("EXPIRE").arg(&key).arg(EXPIRY.as_secs());
            });
        });
    }
    connection.run(&pipeline, TIMEOUT).map(|_| ())
}

/// The `(item, time_us)` of each user in the 24 hours before `now_us`, oldest first, in one round trip.
///
/// # Errors
/// Returns the errors of the store, and [`StoreError::Data`] for a member that is not an item id.
pub fn read(
    connection: &mut Connection,
    users: &[i64],
    now_us: i64,
) -> Result<Vec<Vec<(i64, i64)>>, StoreError> {
    let mut pipeline = Pipeline::new();
    for &user in users {
        let key = key(user);
        pipeline.command(key.as_bytes(), |cmd| {
            let since = now_us - WINDOW.as_micros() as i64;
            cmd.arg("ZRANGEBYSCORE")
                .arg(&key)
                .arg(since)
                .arg("+inf")
                .arg("WITHSCORES");
        });
    }
    let replies = connection.run(&pipeline, TIMEOUT)?;
    replies
        .into_iter()
        .zip(users)
        .map(|(reply, &user)| read_reply(reply, user))
        .collect()
}

/// Adds the read of a user's `most` latest items, of any age.
pub fn latest(pipeline: &mut Pipeline, user: i64, most: usize) {
    let key = key(user);
    pipeline.command(key.as_bytes(), |cmd| {
        cmd.arg("ZREVRANGE")
            .arg(&key)
            .arg(0)
            .arg(most.saturating_sub(1))
            .arg("WITHSCORES");
    });
}

/// Reads a reply to [`latest`]: `(item, time_us)`, the latest first.
///
/// # Errors
/// Returns [`StoreError::Data`] for a member that is not an item id.
pub fn latest_of(user: i64, reply: Reply) -> Result<Vec<(i64, i64)>, StoreError> {
    read_reply(reply, user)
}

fn read_reply(reply: Reply, user: i64) -> Result<Vec<(i64, i64)>, StoreError> {
    let pairs: Vec<(String, f64)> = redis::from_redis_value(reply)
        .map_err(|error| StoreError::Data(format!("key {}: {error}", key(user))))?;
    pairs
        .into_iter()
        .map(|(member, score)| match member.parse() {
            // An f64 holds microseconds of this millennium exactly.
            Ok(item) => Ok((item, score as i64)),
            Err(_) => Err(StoreError::Data(format!(
                "key {}: member '{member}' is not an item id",
                key(user)
            ))),
        })
        .collect()
}

/// The most frequent category among `(item, time_us)` of the 24 hours before `now_us`; on a tie, the tied category
/// seen most recently. `None` without a recent item of a known category.
///
/// ```
/// use saker_store::recent::top_category;
///
/// let category = |item: i64| Some(item / 10);
/// let day = 24 * 60 * 60 * 1_000_000;
/// assert_eq!(top_category(&[(11, 1), (12, 2), (21, 3)], day, category), Some(1));
/// assert_eq!(top_category(&[(11, 1), (21, 3)], day, category), Some(2));
/// assert_eq!(top_category(&[(11, 0)], day + 1, category), None);
/// ```
pub fn top_category<C: Eq + Hash + Copy + Ord>(
    items: &[(i64, i64)],
    now_us: i64,
    category_of: impl Fn(i64) -> Option<C>,
) -> Option<C> {
    let since = now_us - WINDOW.as_micros() as i64;
    let mut counts: HashMap<C, (usize, i64)> = HashMap::new();
    for &(item, time_us) in items.iter().filter(|(_, time_us)| *time_us >= since) {
        if let Some(category) = category_of(item) {
            let (count, last) = counts.entry(category).or_insert((0, i64::MIN));
            *count += 1;
            *last = time_us.max(*last);
        }
    }
    // If two categories were seen in the same microsecond, the smaller one wins, so that the result is unique.
    counts
        .into_iter()
        .max_by_key(|&(category, (count, last))| (count, last, std::cmp::Reverse(category)))
        .map(|(category, _)| category)
}

/// Recomputes the top category of `users` from `recent` and writes it to `online`. The only feature of the view `online` is the top
/// category, so age and gender stay. Users without recent items keep the old value. Returns the written users with their category, for the
/// offline store.
///
/// # Errors
/// Returns the errors of the two stores.
pub fn update_top_category(
    recent: &mut Connection,
    online: &mut Connection,
    view: &FeatureView,
    users: &[i32],
    now_us: i64,
    category_of: impl Fn(i64) -> Option<i32>,
) -> Result<Vec<(i32, i32)>, StoreError> {
    let ids: Vec<i64> = users.iter().map(|&user| i64::from(user)).collect();
    let items = read(recent, &ids, now_us)?;
    let mut writer = Writer::new(online, view.clone(), None);
    let mut updated = Vec::new();
    for (&user, items) in users.iter().zip(&items) {
        if let Some(category) = top_category(items, now_us, &category_of) {
            let time = Timestamp::from_micros(now_us);
            writer.write(&view.id(user), &[Some(Value::Int32(category))], time)?;
            updated.push((user, category));
        }
    }
    writer.finish()?;
    Ok(updated)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60 * 1_000_000;

    #[test]
    fn ties_go_to_the_category_seen_last() {
        let items = [(11, 100), (21, 300), (12, 200), (22, 150)];
        assert_eq!(top_category(&items, DAY, |item| Some(item / 10)), Some(2));
        let same_instant = [(11, 100), (21, 100)];
        assert_eq!(
            top_category(&same_instant, DAY, |item| Some(item / 10)),
            Some(1)
        );
    }

    #[test]
    fn what_is_old_or_unknown_does_not_count() {
        let items = [(11, 0), (12, 0), (21, DAY)];
        assert_eq!(
            top_category(&items, DAY + 1, |item| Some(item / 10)),
            Some(2)
        );
        assert_eq!(top_category(&items, DAY, |_| None::<i32>), None);
        assert_eq!(top_category(&[], DAY, Some), None);
    }
}
