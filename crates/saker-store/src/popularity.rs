//! The `trending:*` sorted sets: member = item id, score = number of interactions.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use redis::Value as Reply;
use saker_contract::keys;

use crate::{Connection, Pipeline, StoreError};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of members per ZADD of a writer.
const CHUNK: usize = 1000;

/// The items that a set ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// All.
    Global,
    /// Those of one first-level category.
    CategoryL1(i64),
    /// Those of one second-level category.
    CategoryL2(i64),
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str(keys::TRENDING_GLOBAL),
            Self::CategoryL1(category) => write!(f, "{}{category}", keys::TRENDING_CATEGORY_L1),
            Self::CategoryL2(category) => write!(f, "{}{category}", keys::TRENDING_CATEGORY_L2),
        }
    }
}

/// The most popular items, the most popular first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Popular {
    /// Items of all categories.
    pub global: Vec<i64>,
    /// Items by first-level category.
    pub by_category_l1: HashMap<i64, Vec<i64>>,
}

impl Popular {
    /// The items of the category, if it exists, then the global ones. An item may come twice.
    pub fn of_category(&self, category: Option<i64>) -> impl Iterator<Item = i64> {
        let first = category.and_then(|category| self.by_category_l1.get(&category));
        first.into_iter().flatten().chain(&self.global).copied()
    }
}

/// Reads the first `most` items of the global set and of every first-level category. Members that are not item ids are skipped.
///
/// # Errors
/// Returns the errors of the store.
pub fn read(connection: &mut Connection, most: usize) -> Result<Popular, StoreError> {
    let mut sets = vec![Set::Global];
    let pattern = format!("{}*", keys::TRENDING_CATEGORY_L1);
    connection.scan(pattern.as_bytes(), TIMEOUT, &mut |_, keys| {
        for key in keys {
            let category = key
                .strip_prefix(keys::TRENDING_CATEGORY_L1.as_bytes())
                .and_then(|category| std::str::from_utf8(category).ok()?.parse().ok());
            sets.extend(category.map(Set::CategoryL1));
        }
        Ok(())
    })?;
    let mut pipeline = Pipeline::new();
    for set in &sets {
        let key = set.to_string();
        pipeline.command(key.as_bytes(), |cmd| {
            cmd.arg("ZREVRANGE")
                .arg(&key)
                .arg(0)
                .arg(most.saturating_sub(1));
        });
    }
    let mut popular = Popular::default();
    for (set, reply) in sets.iter().zip(connection.run(&pipeline, TIMEOUT)?) {
        let Reply::Array(members) = reply else {
            return Err(StoreError::Protocol(format!(
                "ZREVRANGE {set}: not an array"
            )));
        };
        let items = members.iter().filter_map(|member| match member {
            Reply::BulkString(member) => std::str::from_utf8(member).ok()?.parse().ok(),
            _ => None,
        });
        match set {
            Set::CategoryL1(category) => {
                popular.by_category_l1.insert(*category, items.collect());
            }
            _ => popular.global = items.collect(),
        }
    }
    Ok(popular)
}

/// Adds the read of a set's first `most` items with their counts.
pub fn rank(pipeline: &mut Pipeline, set: Set, most: usize) {
    let key = set.to_string();
    pipeline.command(key.as_bytes(), |cmd| {
        cmd.arg("ZREVRANGE")
            .arg(&key)
            .arg(0)
            .arg(most.saturating_sub(1))
            .arg("WITHSCORES");
    });
}

/// Reads a reply to [`rank`]: items with their counts, the highest first. Members that are not item ids are skipped.
///
/// # Errors
/// Returns [`StoreError::Protocol`] if the reply does not belong to ZREVRANGE.
pub fn ranked(set: Set, reply: Reply) -> Result<Vec<(i32, f64)>, StoreError> {
    let pairs: Vec<(Vec<u8>, f64)> = redis::from_redis_value(reply)
        .map_err(|error| StoreError::Protocol(format!("ZREVRANGE {set}: {error}")))?;
    let item = |member: &[u8]| std::str::from_utf8(member).ok()?.parse().ok();
    let pairs = pairs.into_iter();
    Ok(pairs
        .filter_map(|(member, count)| Some((item(&member)?, count)))
        .collect())
}

/// Replaces one set as a whole: readers see either the old or the new one.
///
/// # Errors
/// Returns the errors of the store.
pub fn write(
    connection: &mut Connection,
    set: Set,
    counts: &[(i64, u64)],
) -> Result<(), StoreError> {
    let key = set.to_string();
    let mut pipeline = Pipeline::new();
    pipeline.atomic(key.as_bytes(), |transaction| {
        transaction.command(|cmd| {
            cmd.arg("DEL").arg(&key);
        });
        for chunk in counts.chunks(CHUNK) {
            transaction.command(|cmd| {
                cmd.arg("ZADD").arg(&key);
                for (item, count) in chunk {
                    cmd.arg(*count).arg(*item);
                }
            });
        }
    });
    connection.run(&pipeline, TIMEOUT).map(|_| ())
}
