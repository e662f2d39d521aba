//! `[data]` and `[split]`: where the rows come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[data]`: three tables of one format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// How the tables are written.
    pub format: Format,
    /// How the texts of atomic files are encoded. Default: UTF-8.
    pub encoding: Option<Encoding>,
    /// `[data.users]`
    pub users: Table,
    /// `[data.items]`
    pub items: Table,
    /// `[data.interactions]`
    pub interactions: Interactions,
}

/// How the tables of `[data]` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// RecBole's atomic files: tab-separated with a header of `name:type`.
    Atomic,
    /// Apache Parquet.
    Parquet,
}

/// How the texts of atomic files are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[default]
    Utf8,
    /// ISO 8859-1.
    Latin1,
}

/// `[data.users]` or `[data.items]`: one row per entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The file; see [`crate::Pipeline::resolve`] for variables and relative paths. Parquet: also a folder or a pattern, as of
    /// [`Interactions::path`].
    pub path: String,
    /// The source column of the id, when it is not called as in `[user] id` or `[item] id`.
    pub id: Option<String>,
}

/// `[data.interactions]`: one row per event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interactions {
    /// The file. Parquet: also a folder of files, with Hive partitions such as `day=2026-05-01` or without, or a pattern such as
    /// `day_*.parquet`, read in the order of names.
    pub path: String,
    /// The source column of the user id, when it is not called as in `[user] id`.
    pub user: Option<String>,
    /// The source column of the item id, when it is not called as in `[item] id`.
    pub item: Option<String>,
    /// The source column of the event's time.
    #[serde(default = "timestamp")]
    pub timestamp: String,
    /// Unit of numbers in `timestamp`, which count from 1970. Timestamps, dates and ISO 8601 texts have units of their own.
    #[serde(default)]
    pub unit: Unit,
    /// The source column of a rating or weight; without it every event counts 1.
    pub rating: Option<String>,
    /// Rating of an event without a value of `rating`. Default: the event is dropped.
    pub missing_rating: Option<f32>,
    /// Ratings by text, if `rating` names a kind of event such as `view` or `purchase`. Events of a kind that is not listed are dropped.
    pub ratings: Option<BTreeMap<String, f32>>,
    /// Events rated below this are negatives, seen and not liked. Default: every event is positive, and training draws
    /// the negatives.
    pub positive_from: Option<f32>,
    /// Events rated at least this and below `positive_from` are weak signs of interest: they are learned from with a smaller
    /// weight (`training.weak_weight`), and nothing is measured on them. Default: there are none.
    pub weak_from: Option<f32>,
}

/// The unit of a number that is a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    #[default]
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Unit {
    /// All units, the longest first.
    pub const ALL: [Self; 4] = [Self::S, Self::Ms, Self::Us, Self::Ns];

    /// Number of units per second.
    pub fn per_second(self) -> i64 {
        match self {
            Self::S => 1,
            Self::Ms => 1_000,
            Self::Us => 1_000_000,
            Self::Ns => 1_000_000_000,
        }
    }

    /// The name in a definition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }
}

fn timestamp() -> String {
    "timestamp".to_owned()
}

/// `[split]`: which interactions are trained on, and which are measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// The unit of the split. Default: each user's events.
    pub by: SplitBy,
    /// By user: share of each user's events that is test, the last ones. Default 0.1.
    pub test: Option<f64>,
    /// By user: share of each user's events that is validation, those before the test ones. Default 0.1.
    pub validation: Option<f64>,
    /// By days: how many of the last days are test. Default 1.
    pub test_days: Option<u32>,
    /// By days: how many days before those are validation. Default 1.
    pub validation_days: Option<u32>,
}

/// The unit that `[split]` divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Each user's events in the order of time: the last share is test, the share before it validation.
    ///
    /// A user with n events has floor(n · test) test and floor(n · validation) validation events, at least one each where n is 3
    /// or more; a user with fewer is trained on all.
    #[default]
    User,
    /// The days (UTC) of all events: the last ones are test, those before validation. Users and items met only then are
    /// new ones for what was trained.
    Days,
}

/// A split with its defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parts {
    /// Shares of each user's events.
    User {
        /// Share that is test.
        test: f64,
        /// Share that is validation.
        validation: f64,
    },
    /// Last days of all events.
    Days {
        /// Days that are test.
        test: u32,
        /// Days that are validation.
        validation: u32,
    },
}

impl Split {
    /// The split with its defaults filled in.
    pub fn parts(&self) -> Parts {
        match self.by {
            SplitBy::User => Parts::User {
                test: self.test.unwrap_or(0.1),
                validation: self.validation.unwrap_or(0.1),
            },
            SplitBy::Days => Parts::Days {
                test: self.test_days.unwrap_or(1),
                validation: self.validation_days.unwrap_or(1),
            },
        }
    }
}
