//! `[data]` and `[split]`: where the rows come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[data]`: three tables of one format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// How the tables are written.
    pub format: Format,
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

/// `[data.users]` or `[data.items]`: one row per entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The file; see [`crate::Pipeline::resolve`] for variables and relative paths.
    pub path: String,
    /// The source column of the id, when it is not called as in `[user] id` or `[item] id`.
    pub id: Option<String>,
}

/// `[data.interactions]`: one row per event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interactions {
    /// The file. Parquet: also a folder of files, or a pattern such as `day_*.parquet`, read in the order of names.
    pub path: String,
    /// The source column of the user id, when it is not called as in `[user] id`.
    pub user: Option<String>,
    /// The source column of the item id, when it is not called as in `[item] id`.
    pub item: Option<String>,
    /// The source column of the event's time in Unix seconds.
    #[serde(default = "timestamp")]
    pub timestamp: String,
    /// The source column of a rating or weight; without it every event counts 1.
    pub rating: Option<String>,
    /// What the texts of `rating` count, where it names a kind of event such as `view` or `purchase`. Events of a kind that is not
    /// listed are left out.
    pub ratings: Option<BTreeMap<String, f32>>,
    /// Events rated below this are negatives, seen and not liked. Default: every event is positive, and training draws
    /// the negatives.
    pub positive_from: Option<f32>,
    /// Events rated at least this and below `positive_from` are weak signs of interest: they are learned from with a smaller
    /// weight (`training.weak_weight`), and nothing is measured on them. Default: there are none.
    pub weak_from: Option<f32>,
}

fn timestamp() -> String {
    "timestamp".to_owned()
}

/// `[split]`: which interactions are trained on, and which are measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// What is divided. Default: each user's events.
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

/// What `[split]` divides.
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
