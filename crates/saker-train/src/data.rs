//! The encoded data set on which both models are trained. The caller fills it; this module reads no files.

use crate::Error;
pub use crate::column::{Codes, Numbers};

/// The code of a value outside the vocabulary, in every categorical column.
pub const OUT_OF_VOCABULARY: i32 = 2;

/// Replaces a user's row: a user missing from the store, who gets the defaults of a cold start.
pub const UNKNOWN: u32 = u32::MAX;

/// Replaces an interaction's row: the latest value of every user feature.
pub const LATEST: u32 = u32::MAX;

/// A user's row (or [`UNKNOWN`]), and the row of the interaction at whose time the user's features are read (or [`LATEST`]).
pub type UserAt = (u32, u32);

/// A categorical column: one code per row.
#[derive(Clone, Debug, PartialEq)]
pub struct Categorical {
    /// Name of the feature and of its tensor.
    pub name: String,
    /// Number of codes, including the reserved ones: every code is in `0..cardinality`.
    pub cardinality: usize,
    /// Width of the embedding in the towers; `None`: the definition's default.
    pub embedding_dim: Option<usize>,
    /// The code that a user unknown to the store gets.
    pub cold_start: i32,
    /// `[rows]`
    pub codes: Codes,
}

/// A continuous column: one number per row, already normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuous {
    /// Name of the feature and of its tensor.
    pub name: String,
    /// The number that a user unknown to the store gets.
    pub cold_start: f32,
    /// `[rows]`
    pub values: Numbers,
}

/// Columns of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Number of rows.
    pub rows: usize,
    /// The categorical columns.
    pub categorical: Vec<Categorical>,
    /// The continuous columns.
    pub continuous: Vec<Continuous>,
}

impl Table {
    fn validate(&self, table: &str) -> Result<(), Error> {
        let length = |name: &str, length: usize| {
            if length == self.rows {
                return Ok(());
            }
            Err(Error::Data(format!(
                "column {name} of {table} has {length} rows, but the table has {}",
                self.rows
            )))
        };
        for column in &self.categorical {
            length(&column.name, column.codes.len())?;
            if column.cardinality <= OUT_OF_VOCABULARY as usize {
                return Err(Error::Data(format!(
                    "column {} of {table} has cardinality {}; codes 0 to 2 are reserved, so at least 3 are needed",
                    column.name, column.cardinality
                )));
            }
            let is_outside =
                |code: i32| usize::try_from(code).map_or(true, |code| code >= column.cardinality);
            if let Some(row) = column.codes.iter().position(is_outside) {
                return Err(Error::Data(format!(
                    "column {} of {table} has code {} in row {row}; codes are 0 to {}",
                    column.name,
                    column.codes.get(row),
                    column.cardinality - 1
                )));
            }
            if is_outside(column.cold_start) {
                return Err(Error::Data(format!(
                    "column {} of {table} has the cold-start code {}; codes are 0 to {}",
                    column.name,
                    column.cold_start,
                    column.cardinality - 1
                )));
            }
        }
        for column in &self.continuous {
            length(&column.name, column.values.len())?;
            if let Some(row) = column.values.iter().position(|value| !value.is_finite()) {
                return Err(Error::Data(format!(
                    "column {} of {table} is {} in row {row}; accepted are finite numbers",
                    column.name,
                    column.values.get(row)
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn category(&self, name: &str) -> Option<&Categorical> {
        self.categorical.iter().find(|column| column.name == name)
    }
}

/// Pretrained vectors of the items, by encoded item id. They are not trained further, only projected.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrained {
    /// Name of the tensor.
    pub name: String,
    /// Width of a vector.
    pub dim: usize,
    /// `[cardinality of the item id, dim]`, row-major; row = code of the item.
    pub values: Vec<f32>,
}

/// The part of the data that an interaction belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// For training.
    Train,
    /// For early stopping and tuning.
    Validation,
    /// For the final report.
    Test,
}

/// Users, items and times of interactions. All vectors have one entry per interaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interactions {
    /// Row of the user in [`Dataset::users`].
    pub user: Vec<u32>,
    /// Row of the item in [`Dataset::items`].
    pub item: Vec<u32>,
    /// Unix seconds.
    pub timestamp: Vec<i32>,
    /// Whether the interaction is a positive. Training ignores items that were only shown, since negatives are sampled.
    pub positive: Vec<bool>,
    /// Whether the interaction is a weak sign, such as a view, with its own weight in training. Empty if the data have none.
    pub weak: Vec<bool>,
    /// The part to which each interaction belongs.
    pub split: Vec<Split>,
}

impl Interactions {
    pub(crate) fn is_weak(&self, row: usize) -> bool {
        self.weak.get(row) == Some(&true)
    }
}

/// Encoded features and interactions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// One row per user.
    pub users: Table,
    /// One row per item of the catalogue.
    pub items: Table,
    /// One row per interaction.
    pub context: Table,
    /// One row per interaction: the user features whose values at that moment are known. Each column has the name of a column of `users`,
    /// which holds the latest value. May have no columns.
    pub users_then: Table,
    /// Pretrained vectors of the items.
    pub pretrained: Vec<Pretrained>,
    /// The interactions.
    pub interactions: Interactions,
    /// Name of the categorical column with the user ids.
    pub user_id: String,
    /// Name of the categorical column with the item ids, the index of [`Pretrained::values`].
    pub item_id: String,
}

impl Dataset {
    /// Checks lengths, codes and rows, so that later code never indexes out of bounds.
    ///
    /// # Errors
    /// Returns [`Error::Data`], which names the column, the row and the accepted values.
    pub fn validate(&self) -> Result<(), Error> {
        let rows = self.interactions.user.len();
        for (name, rows) in [
            ("users", self.users.rows),
            ("items", self.items.rows),
            ("interactions", rows),
        ] {
            fits_rows(name, rows)?;
        }
        self.users.validate("the users")?;
        self.items.validate("the items")?;
        self.context.validate("the interactions")?;
        self.validate_users_then()?;
        let Interactions {
            item,
            timestamp,
            positive,
            weak,
            split,
            ..
        } = &self.interactions;
        let weak = if weak.is_empty() { rows } else { weak.len() };
        for (name, length) in [
            ("context", self.context.rows),
            ("item", item.len()),
            ("timestamp", timestamp.len()),
            ("positive", positive.len()),
            ("weak", weak),
            ("split", split.len()),
        ] {
            if length != rows {
                return Err(Error::Data(format!(
                    "{name} of the interactions has {length} rows, but user has {rows}"
                )));
            }
        }
        for (name, values, limit) in [
            ("user", &self.interactions.user, self.users.rows),
            ("item", item, self.items.rows),
        ] {
            if let Some(row) = values.iter().position(|&value| value as usize >= limit) {
                return Err(Error::Data(format!(
                    "interaction {row} has the {name} row {}, but {limit} {name}s exist",
                    values[row]
                )));
            }
        }
        let Some(id) = self.items.category(&self.item_id) else {
            return Err(Error::Data(format!(
                "the items have no categorical column {}",
                self.item_id
            )));
        };
        if self.users.category(&self.user_id).is_none() {
            return Err(Error::Data(format!(
                "the users have no categorical column {}",
                self.user_id
            )));
        }
        for table in &self.pretrained {
            if table.dim == 0 || table.values.len() != id.cardinality * table.dim {
                return Err(Error::Data(format!(
                    "{} has {} numbers; {} codes of {} need {} vectors of width {}",
                    table.name,
                    table.values.len(),
                    id.cardinality,
                    id.name,
                    id.cardinality,
                    table.dim
                )));
            }
        }
        Ok(())
    }

    fn validate_users_then(&self) -> Result<(), Error> {
        let then = &self.users_then;
        let rows = self.interactions.user.len();
        then.validate("the users at the interactions")?;
        if !(then.categorical.is_empty() && then.continuous.is_empty()) && then.rows != rows {
            return Err(Error::Data(format!(
                "the users at the interactions have {} rows, but there are {rows} interactions",
                then.rows
            )));
        }
        for column in &then.categorical {
            let now = self.users.category(&column.name);
            if now.is_none_or(|now| now.cardinality != column.cardinality) {
                return Err(Error::Data(format!(
                    "the interactions have the user feature {} with {} codes, but the users {}",
                    column.name,
                    column.cardinality,
                    now.map_or("lack it".to_owned(), |now| format!(
                        "have {} codes of it",
                        now.cardinality
                    ))
                )));
            }
        }
        for column in &then.continuous {
            if !self
                .users
                .continuous
                .iter()
                .any(|now| now.name == column.name)
            {
                return Err(Error::Data(format!(
                    "the interactions have the continuous user feature {}, but the users lack it",
                    column.name
                )));
            }
        }
        Ok(())
    }

    /// The item id of the items. Call it after [`Dataset::validate`].
    ///
    /// # Panics
    /// Panics if the items lack the column.
    pub(crate) fn item_codes(&self) -> &Codes {
        let column = self.items.category(&self.item_id);
        &column.expect("the data set was validated").codes
    }

    /// Whether an item has its own code, so that it can be retrieved. `[items]`
    pub fn in_vocabulary(&self) -> Vec<bool> {
        self.item_codes()
            .iter()
            .map(|code| code > OUT_OF_VOCABULARY)
            .collect()
    }

    /// Whether an interaction is a positive of the part.
    pub fn is_positive(&self, row: u32, split: Split) -> bool {
        let row = row as usize;
        self.interactions.positive[row] && self.interactions.split[row] == split
    }

    /// Whether training uses an interaction: a positive of the training part, or a weak sign.
    pub(crate) fn is_learned(&self, row: u32) -> bool {
        let row = row as usize;
        self.interactions.split[row] == Split::Train
            && (self.interactions.positive[row] || self.interactions.is_weak(row))
    }

    /// The row of each user's first interaction of one part, positive or not. `[users]`
    pub fn first_rows(&self, split: Split) -> Vec<Option<u32>> {
        let interactions = &self.interactions;
        let mut first: Vec<Option<u32>> = vec![None; self.users.rows];
        for row in 0..interactions.user.len() {
            if interactions.split[row] != split {
                continue;
            }
            let first = &mut first[interactions.user[row] as usize];
            let time = |row: usize| interactions.timestamp[row];
            if first.is_none_or(|known| time(row) < time(known as usize)) {
                *first = Some(row as u32);
            }
        }
        first
    }

    /// Every user at the time of the last interaction of the training part: `[users]`. Training reads features at these times, so it sees
    /// no data of the validation and test parts. A user without a training interaction is read at the first interaction, before which no data
    /// exist. A user without any interaction has the latest values.
    pub fn users_when_trained(&self) -> Vec<UserAt> {
        let interactions = &self.interactions;
        let time = |row: u32| interactions.timestamp[row as usize];
        let mut last: Vec<Option<u32>> = vec![None; self.users.rows];
        let mut first = last.clone();
        for (row, &user) in (0..).zip(&interactions.user) {
            let first = &mut first[user as usize];
            if first.is_none_or(|known| time(row) < time(known)) {
                *first = Some(row);
            }
            let last = &mut last[user as usize];
            let is_trained = interactions.split[row as usize] == Split::Train;
            if is_trained && last.is_none_or(|known| time(row) >= time(known)) {
                *last = Some(row);
            }
        }
        let moments = last.into_iter().zip(first);
        (0..)
            .zip(moments)
            .map(|(user, (last, first))| (user, last.or(first).unwrap_or(LATEST)))
            .collect()
    }

    /// Rows of the positive interactions of one part, oldest first within each user.
    pub fn positives(&self, split: Split) -> ByUser {
        let interactions = &self.interactions;
        let mut rows = self.rows_by_user(|row| self.is_positive(row, split), |row| row);
        for user in 0..rows.users() {
            // Prepared data already have this order, so sorting takes one pass.
            rows.of_mut(user)
                .sort_by_key(|&row| (interactions.timestamp[row as usize], row));
        }
        rows
    }

    /// Values of the selected rows, in the order of the rows, for each user.
    fn rows_by_user(&self, take: impl Fn(u32) -> bool, value: impl Fn(u32) -> u32) -> ByUser {
        let users = &self.interactions.user;
        let mut starts = vec![0; self.users.rows + 1];
        let all = 0..users.len() as u32;
        for row in all.clone().filter(|&row| take(row)) {
            starts[users[row as usize] as usize + 1] += 1;
        }
        for user in 0..self.users.rows {
            starts[user + 1] += starts[user];
        }
        let mut next = starts.clone();
        let mut values = vec![0; starts[self.users.rows]];
        for row in all.filter(|&row| take(row)) {
            let next = &mut next[users[row as usize] as usize];
            values[*next] = value(row);
            *next += 1;
        }
        ByUser { starts, values }
    }

    /// Item rows of all interactions that training uses, for each user.
    pub(crate) fn learned(&self) -> ByUser {
        self.rows_by_user(
            |row| self.is_learned(row),
            |row| self.interactions.item[row as usize],
        )
    }

    /// Item rows of the positive interactions of one part, oldest first, for each user.
    pub fn history(&self, split: Split) -> ByUser {
        let mut rows = self.positives(split);
        for row in &mut rows.values {
            *row = self.interactions.item[*row as usize];
        }
        rows
    }
}

/// Row numbers have 32 bits; the largest values are reserved ([`UNKNOWN`], [`LATEST`]).
fn fits_rows(name: &str, rows: usize) -> Result<(), Error> {
    const MOST: usize = u32::MAX as usize;
    if rows <= MOST {
        return Ok(());
    }
    Err(Error::Data(format!(
        "there are {rows} {name}; accepted are up to {MOST}"
    )))
}

/// A list of rows for each user, all in one vector. Together the lists may have more than 2^32 entries, as with 300 candidates each for
/// 14.4 million users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByUser {
    /// Start of each user's list, and the total length at the end: `[users + 1]`.
    starts: Vec<usize>,
    values: Vec<u32>,
}

impl ByUser {
    /// Number of users.
    pub fn users(&self) -> usize {
        self.starts.len() - 1
    }

    /// The list of a user row; empty if the user does not exist.
    pub fn of(&self, user: usize) -> &[u32] {
        match self.starts.get(user..user + 2) {
            Some(&[from, to]) => &self.values[from..to],
            _ => &[],
        }
    }

    fn of_mut(&mut self, user: usize) -> &mut [u32] {
        let (from, to) = (self.starts[user], self.starts[user + 1]);
        &mut self.values[from..to]
    }

    /// The lists in the order of the users.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.users()).map(|user| self.of(user))
    }

    /// The lists with their values in ascending order, so that [`slice::binary_search`] finds one.
    pub(crate) fn sorted(mut self) -> Self {
        for user in 0..self.users() {
            self.of_mut(user).sort_unstable();
        }
        self
    }
}

impl<L: AsRef<[u32]>> FromIterator<L> for ByUser {
    fn from_iter<I: IntoIterator<Item = L>>(lists: I) -> Self {
        let (mut starts, mut values) = (vec![0], Vec::new());
        for list in lists {
            values.extend_from_slice(list.as_ref());
            starts.push(values.len());
        }
        Self { starts, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User 0 has the training rows 1 and 2 and later rows. User 1 has no training rows, user 2 no rows at all.
    #[test]
    fn users_are_taken_when_they_were_trained_on() {
        let data = Dataset {
            users: Table {
                rows: 3,
                ..Table::default()
            },
            interactions: Interactions {
                user: vec![0, 0, 0, 0, 1, 1],
                item: vec![0; 6],
                timestamp: vec![30, 10, 10, 40, 60, 50],
                positive: vec![true; 6],
                weak: Vec::new(),
                split: vec![
                    Split::Validation,
                    Split::Train,
                    Split::Train,
                    Split::Test,
                    Split::Test,
                    Split::Validation,
                ],
            },
            ..Dataset::default()
        };
        assert_eq!(data.users_when_trained(), [(0, 2), (1, 5), (2, LATEST)]);
    }

    #[test]
    fn more_rows_than_a_row_number_counts_are_refused() {
        assert!(fits_rows("users", u32::MAX as usize).is_ok());
        let error = fits_rows("users", u32::MAX as usize + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there are 4294967296 users; accepted are up to 4294967295"
        );
    }

    /// Empty lists between long ones: the start of a list counts the entries of all lists before it.
    #[test]
    fn lists_follow_each_other() {
        let lists: ByUser = [vec![1u32, 2], vec![], vec![3]].into_iter().collect();
        assert_eq!(lists.users(), 3);
        assert_eq!(lists.of(0), [1, 2]);
        assert!(lists.of(1).is_empty() && lists.of(3).is_empty());
        assert_eq!(lists.of(2), [3]);
        // Offsets have the machine's width, not the 32 bits of a row.
        let starts: &Vec<usize> = &lists.starts;
        assert_eq!(starts, &[0, 2, 2, 3]);
    }
}
