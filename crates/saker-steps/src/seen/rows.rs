//! One user's candidates. This module does not depend on Triton.

use saker_contract::RawId;
use saker_contract::ids::UNKNOWN;
use saker_store::seen::Seen;

/// One user's candidates, without padding.
pub struct Row {
    pub(super) user: i64,
    pub(super) category: Option<i64>,
    /// The candidates. After `finish` of the filter, they lack the seen items and are topped up.
    pub items: Vec<i64>,
    /// Number of items in the query, and the index of its reply.
    pub(super) asked: Option<(usize, usize)>,
    /// Whether the user's seen items are known.
    pub(super) known: bool,
}

impl Row {
    /// Creates a row: a user, the user's top category if known, and candidates without padding.
    pub fn new(user: i64, category: Option<i64>, items: Vec<i64>) -> Self {
        Self {
            user,
            category: category.filter(|&category| category != i64::from(UNKNOWN)),
            items,
            asked: None,
            known: false,
        }
    }

    /// Whether the user's seen items are known. If not, no item was removed.
    pub fn is_known(&self) -> bool {
        self.known
    }
}

/// Keeps the unseen candidates, in their order. `row` has no padding, and `seen` holds its items in the same order. Returns how many were
/// removed.
pub(super) fn keep_unseen(row: &mut Vec<i64>, seen: &Seen<'_>) -> usize {
    let before = row.len();
    let mut position = 0;
    row.retain(|&item| {
        let keep = !seen.contains(position, item);
        position += 1;
        keep
    });
    before - row.len()
}

/// The popular items that may be added to `row`: not in it yet, without duplicates, at most `most`.
pub(super) fn not_in_row(row: &[i64], popular: impl Iterator<Item = i64>, most: usize) -> Vec<i64> {
    let mut items = Vec::new();
    for item in popular {
        if items.len() >= most {
            break;
        }
        if item != RawId::NONE && !row.contains(&item) && !items.contains(&item) {
            items.push(item);
        }
    }
    items
}

/// Appends unseen `items` until the row has `wanted` entries; `seen` holds `items` in the same order. Returns how many were added.
pub(super) fn top_up(row: &mut Vec<i64>, items: &[i64], seen: &Seen<'_>, wanted: usize) -> usize {
    let before = row.len();
    for (position, &item) in items.iter().enumerate() {
        if row.len() >= wanted {
            break;
        }
        if !seen.contains(position, item) {
            row.push(item);
        }
    }
    row.len() - before
}

#[cfg(test)]
mod tests {
    use super::*;
    use saker_store::Reply;

    #[test]
    fn seen_items_go_and_the_order_stays() {
        let answers = [0, 1, 0, 1].map(Reply::Int);
        let mut row = vec![9, 8, 7, 6];
        assert_eq!(keep_unseen(&mut row, &Seen::Answers(&answers)), 2);
        assert_eq!(row, [9, 7]);
        assert_eq!(keep_unseen(&mut row, &Seen::Nothing), 0);
        assert_eq!(row, [9, 7]);
    }

    #[test]
    fn topping_up_adds_no_seen_item_and_none_twice() {
        let mut row = vec![1, 2];
        let items = not_in_row(&row, [2, 5, -1, 5, 6, 7, 8, 9].into_iter(), 4);
        assert_eq!(items, [5, 6, 7, 8]);
        let answers = [1, 0, 0, 0].map(Reply::Int);
        assert_eq!(top_up(&mut row, &items, &Seen::Answers(&answers), 4), 2);
        assert_eq!(row, [1, 2, 6, 7]);
        assert_eq!(top_up(&mut row, &items, &Seen::Answers(&answers), 4), 0);
    }
}
