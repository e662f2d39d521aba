//! Builds the rows of a batch from the data set's columns.

use crate::data::{Dataset, Table};
pub use crate::data::{LATEST, UNKNOWN, UserAt};
use crate::layers::{BatchCodes, pretrained_at};

/// The user's categorical features: `[features][rows]`.
pub(crate) fn user_codes(
    data: &Dataset,
    users: impl Iterator<Item = UserAt> + Clone,
) -> BatchCodes {
    let codes = |column: &crate::data::Categorical| {
        let then = data.users_then.category(&column.name);
        let code = |(user, moment): UserAt| match then {
            _ if user == UNKNOWN => column.cold_start,
            Some(then) if moment != LATEST => then.codes.get(moment as usize),
            _ => column.codes.get(user as usize),
        };
        users.clone().map(code).collect()
    };
    data.users.categorical.iter().map(codes).collect()
}

/// Writes the user's continuous features to columns `offset..` of `out`, `[rows, width]`. Returns the offset after them.
pub(crate) fn user_numbers(
    data: &Dataset,
    users: impl Iterator<Item = UserAt> + Clone,
    out: &mut [f32],
    width: usize,
    offset: usize,
) -> usize {
    let columns = &data.users.continuous;
    for (place, column) in columns.iter().enumerate() {
        let mut all_then = data.users_then.continuous.iter();
        let then = all_then.find(|then| then.name == column.name);
        for (row, (user, moment)) in users.clone().enumerate() {
            out[row * width + offset + place] = match then {
                _ if user == UNKNOWN => column.cold_start,
                Some(then) if moment != LATEST => then.values.get(moment as usize),
                _ => column.values.get(user as usize),
            };
        }
    }
    offset + columns.len()
}

/// The categorical features of a table at `rows`: `[features][rows]`.
pub(crate) fn codes(table: &Table, rows: impl Iterator<Item = u32> + Clone) -> BatchCodes {
    let gather = |column: &crate::data::Categorical| {
        let mut codes = Vec::with_capacity(rows.size_hint().0);
        column.codes.gather(rows.clone(), &mut codes);
        codes
    };
    table.categorical.iter().map(gather).collect()
}

/// Like [`user_numbers`], for a table.
pub(crate) fn numbers(
    table: &Table,
    rows: impl Iterator<Item = u32> + Clone,
    out: &mut [f32],
    width: usize,
    offset: usize,
) -> usize {
    for (place, column) in table.continuous.iter().enumerate() {
        for (row, of) in rows.clone().enumerate() {
            out[row * width + offset + place] = column.values.get(of as usize);
        }
    }
    offset + table.continuous.len()
}

/// The pretrained vectors of items, `[rows, dim]` for each table.
pub(crate) fn pretrained(data: &Dataset, items: impl Iterator<Item = u32>) -> Vec<Vec<f32>> {
    let mut ids = Vec::new();
    data.item_codes().gather(items, &mut ids);
    data.pretrained
        .iter()
        .map(|table| pretrained_at(table, &ids))
        .collect()
}
