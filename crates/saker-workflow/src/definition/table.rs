//! Operators over the whole table: those that choose, join or aggregate rows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::parameters::Comparison;

/// An operator over all columns of the table, before the chains. It may change the number of rows, so a workflow with one prepares
/// data but does not serve: a request must get one answer a row.
///
/// In JSON: `{ "op": "Filter", "condition": { "column": "price", "is": ">=", "value": 0 } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", deny_unknown_fields)]
pub enum TableOperator {
    /// Keeps the rows that meet the condition, in their order.
    Filter {
        /// What a row must meet.
        condition: Condition,
    },
    /// Drops the rows with a null or NaN in one of the columns.
    Dropna {
        /// The columns looked at. None: all of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        columns: Vec<String>,
    },
    /// One row for each distinct key, in the order of the keys; rows with a null key are dropped. Each batch is aggregated by
    /// itself, as NVTabular does with a partition: a group's rows must lie in one batch.
    ///
    /// Gives the keys and `<column><name_sep><aggregation>`.
    Groupby {
        /// The key columns: integers, floats, strings or bool, kept as they are.
        groupby_cols: Vec<String>,
        /// Columns by which the rows are sorted before they are aggregated, missing values last. None: the rows' own order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sort_cols: Vec<String>,
        /// Whether the sort is ascending.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        ascending: bool,
        /// Aggregations by column.
        aggs: BTreeMap<String, Vec<Aggregation>>,
        /// Stands between the column and the aggregation in a name.
        #[serde(default = "underscore")]
        name_sep: String,
    },
    /// Joins the columns of another table. Rows stay in their order; a row with several matches is repeated in the order of the
    /// other table. A null key matches a null key.
    JoinExternal {
        /// The other table: a parquet file, or a folder of `part.N.parquet`. A saved workflow keeps a copy.
        path: PathBuf,
        /// Key columns.
        on: Vec<String>,
        /// Key columns of the other table, when they are called differently; they then enter the result too.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        on_ext: Vec<String>,
        /// What becomes of rows without a match.
        #[serde(default)]
        how: Join,
        /// Columns to take from the other table, its keys among them.
        columns_ext: Vec<String>,
        /// Drops repeated rows of the other table first, after the choice of columns.
        #[serde(default)]
        drop_duplicates_ext: bool,
    },
}

/// What becomes of rows without a match in the other table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// They stay, with nulls in the other table's columns.
    #[default]
    Left,
    /// They are dropped.
    Inner,
}

/// An aggregation of a group's values. Missing values are left out, except in `list`, `first` and `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// All values, as a list of the column's type.
    List,
    /// The value of the least row in the order of the sort (of the first row, when there is none); the column's type.
    First,
    /// The value of the greatest row in the order of the sort (of the last row, when there is none); the column's type.
    Last,
    /// Number of values; int32.
    Count,
    /// Number of distinct values; int32.
    Nunique,
    /// Sum; float32, 0 of no values.
    Sum,
    /// Mean; float32.
    Mean,
    /// Standard deviation with one delta degree of freedom; float32.
    Std,
    /// Variance with one delta degree of freedom; float32.
    Var,
    /// Median; float32.
    Median,
    /// Least value; the column's type.
    Min,
    /// Greatest value; the column's type.
    Max,
}

impl Aggregation {
    /// Whether it gives values of its column, not numbers about them.
    fn keeps_values(self) -> bool {
        matches!(
            self,
            Self::List | Self::First | Self::Last | Self::Min | Self::Max
        )
    }

    /// The name in a column such as `price_mean`.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::First => "first",
            Self::Last => "last",
            Self::Count => "count",
            Self::Nunique => "nunique",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Std => "std",
            Self::Var => "var",
            Self::Median => "median",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// What a row must meet: a comparison of a column with a value, or conditions joined by `and`, `or`, `not`. It takes the place of
/// the Python function of NVTabular's Filter, which cannot be saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ConditionFields", into = "ConditionFields")]
pub enum Condition {
    /// `{ "column": "price", "is": ">=", "value": 0 }`. A missing value meets `!=` alone.
    Compare {
        /// The column.
        column: String,
        /// How the column's value stands to the given one.
        is: Comparison,
        /// The value: a number, text or truth value, as the column's type.
        value: Scalar,
    },
    /// `{ "and": [...] }`: all of them.
    And(Vec<Condition>),
    /// `{ "or": [...] }`: one of them at least.
    Or(Vec<Condition>),
    /// `{ "not": {...} }`: not this one.
    Not(Box<Condition>),
}

/// A value to compare with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
}

/// A condition as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is: Option<Comparison>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Scalar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    and: Option<Vec<Condition>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    or: Option<Vec<Condition>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not: Option<Box<Condition>>,
}

impl TryFrom<ConditionFields> for Condition {
    type Error = &'static str;

    fn try_from(fields: ConditionFields) -> Result<Self, Self::Error> {
        let ConditionFields {
            column,
            is,
            value,
            and,
            or,
            not,
        } = fields;
        match (column, is, value, and, or, not) {
            (Some(column), Some(is), Some(value), None, None, None) => {
                Ok(Self::Compare { column, is, value })
            }
            (None, None, None, Some(all), None, None) => Ok(Self::And(all)),
            (None, None, None, None, Some(any), None) => Ok(Self::Or(any)),
            (None, None, None, None, None, Some(one)) => Ok(Self::Not(one)),
            _ => Err(
                "a condition is either `column`, `is` and `value`, or one of `and`, `or`, `not`",
            ),
        }
    }
}

impl From<Condition> for ConditionFields {
    fn from(condition: Condition) -> Self {
        let none = Self::default();
        match condition {
            Condition::Compare { column, is, value } => Self {
                column: Some(column),
                is: Some(is),
                value: Some(value),
                ..none
            },
            Condition::And(all) => Self {
                and: Some(all),
                ..none
            },
            Condition::Or(any) => Self {
                or: Some(any),
                ..none
            },
            Condition::Not(one) => Self {
                not: Some(one),
                ..none
            },
        }
    }
}

impl Condition {
    /// The columns it reads.
    fn columns<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Compare { column, .. } => names.push(column),
            Self::And(all) | Self::Or(all) => all.iter().for_each(|c| c.columns(names)),
            Self::Not(one) => one.columns(names),
        }
    }
}

impl TableOperator {
    /// The operator's name in definitions and error messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Filter { .. } => "Filter",
            Self::Dropna { .. } => "Dropna",
            Self::Groupby { .. } => "Groupby",
            Self::JoinExternal { .. } => "JoinExternal",
        }
    }

    /// What it does to the rows, in a word or two, for error messages.
    pub(crate) fn effect(&self) -> &'static str {
        match self {
            Self::Filter { .. } | Self::Dropna { .. } => "drops rows",
            Self::Groupby { .. } => "makes one row of many",
            Self::JoinExternal { .. } => "repeats or drops rows, by what another table holds",
        }
    }

    /// The columns it reads by name.
    pub(crate) fn reads(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        match self {
            Self::Filter { condition } => condition.columns(&mut names),
            Self::Dropna { columns } => names.extend(columns.iter().map(String::as_str)),
            Self::Groupby {
                groupby_cols,
                sort_cols,
                aggs,
                ..
            } => names.extend(
                groupby_cols
                    .iter()
                    .chain(sort_cols)
                    .chain(aggs.keys())
                    .map(String::as_str),
            ),
            Self::JoinExternal { on, .. } => names.extend(on.iter().map(String::as_str)),
        }
        names
    }

    /// The columns that were not there before it.
    pub(crate) fn makes(&self) -> Vec<String> {
        match self {
            Self::Filter { .. } | Self::Dropna { .. } => Vec::new(),
            Self::Groupby { aggs, name_sep, .. } => aggs
                .iter()
                .flat_map(|(column, aggs)| {
                    (aggs.iter()).map(move |agg| format!("{column}{name_sep}{}", agg.name()))
                })
                .collect(),
            Self::JoinExternal {
                on, columns_ext, ..
            } => columns_ext
                .iter()
                .filter(|column| !on.contains(column))
                .cloned()
                .collect(),
        }
    }

    /// The column before it whose values a column after it holds, one or several of them a row.
    pub(crate) fn origin<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let Self::Groupby { aggs, name_sep, .. } = self else {
            return (!self.makes().iter().any(|made| made == name)).then_some(name);
        };
        if self.reads().contains(&name) && !aggs.contains_key(name) {
            return Some(name);
        }
        aggs.iter().find_map(|(column, aggs)| {
            let agg = name.strip_prefix(column.as_str())?;
            let agg = agg.strip_prefix(name_sep.as_str())?;
            let same = aggs.iter().any(|a| a.keeps_values() && a.name() == agg);
            same.then_some(column.as_str())
        })
    }

    /// The only columns that are left after it; none: the ones before it stay.
    pub(crate) fn leaves(&self) -> Option<Vec<String>> {
        match self {
            Self::Groupby { groupby_cols, .. } => {
                Some(groupby_cols.iter().cloned().chain(self.makes()).collect())
            }
            _ => None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let fail = |accepted: &str| {
            Err(Error::definition(
                &self.reads().join(", "),
                &format!("{}: {accepted}", self.name()),
            ))
        };
        match self {
            Self::Groupby {
                groupby_cols, aggs, ..
            } => {
                if groupby_cols.is_empty() {
                    return fail("groupby_cols must name at least one column");
                }
                if aggs.is_empty() || aggs.values().any(Vec::is_empty) {
                    return fail(
                        "aggs must give at least one aggregation for each column it names",
                    );
                }
                if let Some(key) = groupby_cols.iter().find(|key| aggs.contains_key(*key)) {
                    return fail(&format!("'{key}' is a key and cannot be aggregated too"));
                }
            }
            Self::JoinExternal {
                on,
                on_ext,
                columns_ext,
                ..
            } => {
                if on.is_empty() {
                    return fail("on must name at least one column");
                }
                if !on_ext.is_empty() && on_ext.len() != on.len() {
                    return fail("on_ext must name as many columns as on, or none");
                }
                let keys = if on_ext.is_empty() { on } else { on_ext };
                if let Some(key) = keys.iter().find(|key| !columns_ext.contains(key)) {
                    return fail(&format!(
                        "columns_ext must name the columns to take, the key '{key}' among them"
                    ));
                }
            }
            Self::Filter { .. } | Self::Dropna { .. } => {}
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn underscore() -> String {
    "_".to_owned()
}
