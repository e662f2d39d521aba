//! The encoded data set that both models learn from. It knows nothing of files: whoever prepares it, fills it.

use crate::Error;

/// The code of a value outside the vocabulary, in every categorical column.
pub const OUT_OF_VOCABULARY: i32 = 2;

/// A categorical column: one code per row.
#[derive(Clone, Debug, PartialEq)]
pub struct Categorical {
    /// Name of the feature and of its tensor.
    pub name: String,
    /// Number of codes, the reserved ones included: every code is in `0..cardinality`.
    pub cardinality: usize,
    /// Width of the embedding in the towers; `None`: the definition's default.
    pub embedding_dim: Option<usize>,
    /// The code that a user unknown to the store gets.
    pub cold_start: i32,
    /// `[rows]`
    pub codes: Vec<i32>,
}

/// A continuous column: one number per row, already normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuous {
    /// Name of the feature and of its tensor.
    pub name: String,
    /// `[rows]`
    pub values: Vec<f32>,
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
                "column {name} of {table} has {length} rows, the table has {}",
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
            if let Some(row) = column.codes.iter().position(|&code| is_outside(code)) {
                return Err(Error::Data(format!(
                    "column {} of {table} has code {} in row {row}; codes are 0 to {}",
                    column.name,
                    column.codes[row],
                    column.cardinality - 1
                )));
            }
        }
        for column in &self.continuous {
            length(&column.name, column.values.len())?;
            if let Some(row) = column.values.iter().position(|value| !value.is_finite()) {
                return Err(Error::Data(format!(
                    "column {} of {table} is {} in row {row}; only finite numbers can be learned from",
                    column.name, column.values[row]
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
    /// Learned from.
    Train,
    /// Looked at for early stopping and tuning.
    Validation,
    /// Looked at once, to report.
    Test,
}

/// Who met what, when. All vectors have one entry per interaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interactions {
    /// Row of the user in [`Dataset::users`].
    pub user: Vec<u32>,
    /// Row of the item in [`Dataset::items`].
    pub item: Vec<u32>,
    /// Unix seconds.
    pub timestamp: Vec<i64>,
    /// 1: positive. A row with 0 (shown, not taken) is not learned from: negatives are sampled.
    pub label: Vec<f32>,
    /// Which part it is in.
    pub split: Vec<Split>,
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
    /// Pretrained vectors of the items.
    pub pretrained: Vec<Pretrained>,
    /// The interactions.
    pub interactions: Interactions,
    /// Name of the categorical user column that tells users apart.
    pub user_id: String,
    /// Name of the categorical item column that tells items apart, which [`Pretrained::values`] is looked up by.
    pub item_id: String,
}

impl Dataset {
    /// Checks lengths, codes and rows, so that nothing later indexes out of bounds.
    ///
    /// # Errors
    /// [`Error::Data`] names the column, the row and what is accepted.
    pub fn validate(&self) -> Result<(), Error> {
        let rows = self.interactions.user.len();
        self.users.validate("the users")?;
        self.items.validate("the items")?;
        self.context.validate("the interactions")?;
        let Interactions {
            item,
            timestamp,
            label,
            split,
            ..
        } = &self.interactions;
        for (name, length) in [
            ("context", self.context.rows),
            ("item", item.len()),
            ("timestamp", timestamp.len()),
            ("label", label.len()),
            ("split", split.len()),
        ] {
            if length != rows {
                return Err(Error::Data(format!(
                    "{name} of the interactions has {length} rows, user has {rows}"
                )));
            }
        }
        for (name, values, limit) in [
            ("user", &self.interactions.user, self.users.rows),
            ("item", item, self.items.rows),
        ] {
            if let Some(row) = values.iter().position(|&value| value as usize >= limit) {
                return Err(Error::Data(format!(
                    "interaction {row} is of {name} row {}, but there are {limit} {name}s",
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
                    "{} holds {} numbers; {} codes of {} need {} vectors of width {}",
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

    /// Codes of the item id, one per item row.
    pub(crate) fn item_codes(&self) -> &[i32] {
        self.items
            .category(&self.item_id)
            .map_or(&[], |column| &column.codes)
    }

    /// Items with a code of their own: the catalogue that can be retrieved. `[items]`
    pub fn in_vocabulary(&self) -> Vec<bool> {
        self.item_codes()
            .iter()
            .map(|&code| code > OUT_OF_VOCABULARY)
            .collect()
    }

    /// Rows of the positive interactions of one part, oldest first within each user.
    pub fn positives(&self, split: Split) -> Vec<Vec<u32>> {
        let interactions = &self.interactions;
        let mut rows = vec![Vec::new(); self.users.rows];
        for row in 0..interactions.user.len() {
            if interactions.split[row] == split && interactions.label[row] > 0.0 {
                rows[interactions.user[row] as usize].push(row as u32);
            }
        }
        for of_user in &mut rows {
            of_user.sort_by_key(|&row| (interactions.timestamp[row as usize], row));
        }
        rows
    }

    /// Item rows of the positive interactions of one part, oldest first, for each user.
    pub fn history(&self, split: Split) -> Vec<Vec<u32>> {
        let rows = self.positives(split);
        rows.into_iter()
            .map(|of_user| {
                of_user
                    .into_iter()
                    .map(|row| self.interactions.item[row as usize])
                    .collect()
            })
            .collect()
    }
}
