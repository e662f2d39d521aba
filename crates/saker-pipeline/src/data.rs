//! `[data]` and `[split]`: the source tables, and their division into training, validation and test rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[data]`: three tables of one format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The format of the tables.
    pub format: Format,
    /// The encoding of atomic files. Default: UTF-8.
    pub encoding: Option<Encoding>,
    /// `[data.users]`
    pub users: Table,
    /// `[data.items]`
    pub items: Table,
    /// `[data.interactions]`
    pub interactions: Interactions,
}

/// Format of the tables of `[data]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// RecBole's atomic files: tab-separated with a header of `name:type`.
    Atomic,
    /// Apache Parquet.
    Parquet,
}

/// Encoding of atomic files.
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
    /// The source column of the id. Default: the name in `[user] id` or `[item] id`.
    pub id: Option<String>,
}

/// `[data.interactions]`: one row per event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interactions {
    /// The file. Parquet: also a folder of files, with Hive partitions such as `day=2026-05-01` or without, or a pattern such as
    /// `day_*.parquet`, read in the order of names.
    pub path: String,
    /// The source column of the user id. Default: the name in `[user] id`.
    pub user: Option<String>,
    /// The source column of the item id. Default: the name in `[item] id`.
    pub item: Option<String>,
    /// The source column of the event's time.
    #[serde(default = "timestamp")]
    pub timestamp: String,
    /// Unit of numbers in `timestamp`, counted from 1970. It does not apply to timestamps, dates and ISO 8601 texts.
    #[serde(default)]
    pub unit: Unit,
    /// The source column of a rating or weight. Default: every event has rating 1.
    pub rating: Option<String>,
    /// Rating of an event without a value of `rating`. Default: the event is dropped.
    pub missing_rating: Option<f32>,
    /// Ratings by text, if `rating` names a kind of event such as `view` or `purchase`. Events of a kind that is not listed are dropped.
    pub ratings: Option<BTreeMap<String, f32>>,
    /// Events rated below this are negatives: the user saw the item and did not like it. Default: every event is positive, and training
    /// samples the negatives.
    pub positive_from: Option<f32>,
    /// Events rated at least this and below `positive_from` are weak positives: training uses them with a smaller weight
    /// (`training.weak_weight`), and evaluation ignores them. Default: no event is a weak positive.
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

/// `[split]`: the division of the interactions into training, validation and test rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// The unit of the split. Default: each user's events.
    pub by: SplitBy,
    /// By user: share of each user's events, the last ones, that is test. Default 0.1.
    pub test: Option<f64>,
    /// By user: share of each user's events, those before the test events, that is validation. Default 0.1.
    pub validation: Option<f64>,
    /// By days: number of days at the end that are test. Default 1.
    pub test_days: Option<u32>,
    /// By days: number of days before the test days that are validation. Default 1.
    pub validation_days: Option<u32>,
}

/// The unit that `[split]` divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Each user's events in the order of time: the last share is test, and the share before it is validation.
    ///
    /// A user with n events has floor(n · test) test and floor(n · validation) validation events, but at least one of each if n is 3
    /// or more. All events of a user with fewer are training events.
    #[default]
    User,
    /// The days (UTC) of all events: the last ones are test, and those before them validation. Users and items that occur only on these days
    /// are unknown to the trained models.
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
