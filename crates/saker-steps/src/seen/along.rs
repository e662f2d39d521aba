//! What users have seen, asked on the connection on which they are looked up: one round trip for both.

use saker_store::connection::CommandResult;
use saker_store::seen::Method;
use saker_store::{Pipeline, Settings, StoreError};

use super::PADDING;
use super::filter::{Filter, Row, Worker};

/// Users were asked for along with a lookup.
pub(super) struct Along {
    /// Why there is no answer, where there is none.
    failure: Option<StoreError>,
}

impl Along {
    /// The places of the rows' replies.
    pub(super) fn assign(rows: &mut [Row], places: impl Iterator<Item = usize>) {
        for (place, row) in places.zip(rows) {
            if row.user != PADDING {
                row.asked = Some((row.items.len(), place));
            }
        }
    }

    pub(super) fn outcome(&self) -> Result<(), StoreError> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

impl Filter {
    /// Lets what users have seen be asked on connections to this store, the users' online store, if both are one server.
    #[must_use]
    pub fn along(mut self, online: &Settings) -> Self {
        let same = self.link.settings().is_same_server(online);
        self.along = same.then(|| online.database());
        self
    }
}

impl Worker {
    /// Adds to the commands of another connection those that ask what `users` have seen, where that can be asked before their
    /// candidates are known: of bitmaps, on the same server. `has_bloom` says whether it
    /// has filters of its own. [`take_along`](Self::take_along) must follow; where nothing was added,
    /// [`ask_of`](Self::ask_of) asks by itself.
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

    /// Takes the replies to what [`ask_along`](Self::ask_along) added, or why there are none.
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
