//! `[data]` and `[split]`: where the rows come from.

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
    /// The file.
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
    /// Events rated below this are negatives, seen and not liked. Default: every event is positive, and training draws
    /// the negatives.
    pub positive_from: Option<f32>,
}

fn timestamp() -> String {
    "timestamp".to_owned()
}

/// `[split]`: each user's events in the order of time; the last share is test, the share before it validation.
///
/// A user with n events has floor(n · test) test and floor(n · validation) validation events, so that a user with few of
/// them is trained on all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// Share of each user's events that is test, the last ones. Default 0.1.
    pub test: f64,
    /// Share of each user's events that is validation, those before the test ones. Default 0.1.
    pub validation: f64,
}

impl Default for Split {
    fn default() -> Self {
        Self {
            test: 0.1,
            validation: 0.1,
        }
    }
}
