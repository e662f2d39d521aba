//! Reads the users' seen items on the connection of the users' lookup: one round trip for both.

use saker_contract::RawId;
use saker_store::CommandResult;
use saker_store::seen::Method;
use saker_store::{Pipeline, Settings, StoreError};

use super::filter::{Filter, Row, Worker};

/// A query that was sent along with a lookup.
pub(super) struct Along {
    /// The error, if there is no answer.
    failure: Option<StoreError>,
}

impl Along {
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

impl Filter {
    /// Allows sending the query on connections to `online`, the users' online store, if both stores are on one server.
    #[must_use]
    pub fn along(mut self, online: &Settings) -> Self {
        let same = self.link.settings().is_same_server(online);
        self.along = same.then(|| online.database());
        self
    }
}

impl Worker {
    /// Adds commands for the seen items of `users` to the commands of another connection. This works if the query does not depend on the
    /// candidates, that is for bitmaps, and if both stores are on one server. `has_bloom` says whether the server has filters of its own.
    /// [`take_along`](Self::take_along) must follow. If no command was added, [`ask_of`](Self::ask_of) sends its own query.
    pub fn ask_along(
        &mut self,
        filter: &Filter,
        has_bloom: Option<bool>,
        users: &[i64],
        commands: &mut Pipeline,
    ) {
        self.along = None;
        let plain = filter.mode.method(has_bloom) == Some(Method::Plain);
        let Some(online) = filter.along.filter(|_| plain) else {
            return;
        };
        let own = filter.link.settings().database();
        let ask = |commands: &mut Pipeline| {
            for &user in users {
                let no_items = std::iter::empty();
                filter.reader.ask(Method::Plain, user, no_items, commands);
            }
        };
        if users.is_empty() || own == online {
            ask(commands);
        } else {
            commands.in_database(own, online, ask);
        }
        self.along = Some(Along { failure: None });
    }

    /// Reads the replies to the commands that [`ask_along`](Self::ask_along) added, or the error instead of replies.
    pub fn take_along(
        &mut self,
        replies: impl Iterator<Item = CommandResult>,
        failure: Option<&StoreError>,
    ) {
        if let Some(along) = &mut self.along {
            along.failure = failure.cloned();
            self.replies.clear();
            self.replies.extend(replies);
        }
    }
}
