//! The query for seen items that is sent with the users' lookup: one round trip for both.

use saker_contract::RawId;
use saker_store::seen::{Method, Reader};
use saker_store::{Pipeline, StoreError};

use super::rows::Row;

/// A query that was sent along with a lookup.
pub(super) struct Along {
    /// The error, if there is no answer.
    failure: Option<StoreError>,
}

impl Along {
    /// Adds commands for the bitmaps of `users` to those of another connection. `databases` are that of the bitmaps and that of the
    /// connection.
    pub(super) fn ask(
        reader: &Reader,
        (own, online): (i64, i64),
        users: &[i64],
        commands: &mut Pipeline,
    ) -> Self {
        let ask = |commands: &mut Pipeline| {
            for &user in users {
                let no_items = std::iter::empty();
                reader.ask(Method::Plain, user, no_items, commands);
            }
        };
        if users.is_empty() || own == online {
            ask(commands);
        } else {
            commands.in_database(own, online, ask);
        }
        Self { failure: None }
    }

    /// Keeps the error that came instead of replies.
    pub(super) fn fail(&mut self, failure: Option<&StoreError>) {
        self.failure = failure.cloned();
    }

    /// Assigns the indices of the replies to the rows.
    pub(super) fn assign(rows: &mut [Row], places: impl Iterator<Item = usize>) {
        for (place, row) in places.zip(rows) {
            if row.user != RawId::NONE {
                row.asked = Some((row.items.len(), place));
            }
        }
    }

    pub(super) fn outcome(&self) -> Result<(), StoreError> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}
