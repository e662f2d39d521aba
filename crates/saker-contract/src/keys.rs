//! Keys of Valkey or Redis. Feast's keys are serialized entities: `saker-store` writes and reads them.

/// Prefix of a user's seen items as the server's Bloom filter, in [`Activity`](crate::Database::Activity).
pub const SEEN_FILTER: &str = "bf:seen:";
/// Prefix of a user's seen items as a bitmap, in [`Activity`](crate::Database::Activity). The number is the format's version.
pub const SEEN_BITMAP: &str = "saker:seen:1:";
/// Stream of the events, in [`Activity`](crate::Database::Activity).
pub const EVENTS: &str = "events";
/// Stream of the applied events, in [`Activity`](crate::Database::Activity): the fields of the event, its `entry` in [`EVENTS`], and the
/// user's `top_category` after it, if there is one.
pub const EVENTS_APPLIED: &str = "events:applied";
/// Stream of the entries that could not be applied, with the `reason`, in [`Activity`](crate::Database::Activity).
pub const EVENTS_REJECTED: &str = "events:rejected";
/// Popular items of all categories, in [`Popularity`](crate::Database::Popularity): a sorted set.
pub const TRENDING_GLOBAL: &str = "trending:global";
/// Prefix of the popular items of a first-level category.
pub const TRENDING_CATEGORY_L1: &str = "trending:cat_l1:";
/// Prefix of the popular items of a second-level category.
pub const TRENDING_CATEGORY_L2: &str = "trending:cat_l2:";
/// The hour up to which the counts of popular items have faded, in [`Popularity`](crate::Database::Popularity).
pub const TRENDING_FADED: &str = "trending:faded";

/// The recent items of a user, in [`Activity`](crate::Database::Activity): a sorted set by event time.
#[must_use]
pub fn recent_items(user: i64) -> String {
    format!("user:{user}:recent_items")
}

/// The ids of known events whose digests fall into a shard, in [`Activity`](crate::Database::Activity).
#[must_use]
pub fn event_ids(shard: u64) -> String {
    format!("events:ids:{shard}")
}
