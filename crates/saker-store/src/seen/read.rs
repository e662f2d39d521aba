//! Reads the items that users have seen.

use redis::Value as Reply;

use super::bitmap::Filter;
use super::{Method, Prefixes};
use crate::node::CommandResult;
use crate::{Pipeline, StoreError};

/// Adds the queries to a pipeline, one command per user, and reads the answers.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// The key prefixes of the users' items.
    pub prefixes: Prefixes,
}

/// The items that one user has seen.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'r> {
    /// No items are stored for the user.
    Nothing,
    /// The whole filter, which can be queried for any item.
    Filter(Filter<'r>),
    /// The server's answers for the items in the query.
    Answers(&'r [Reply]),
}

impl Reader {
    /// Adds the query for one user: GET, or BF.MEXISTS with `items`, which must not be empty.
    pub fn ask(
        &self,
        method: Method,
        user: i64,
        items: impl Iterator<Item = i64>,
        pipeline: &mut Pipeline,
    ) {
        let key = self.prefixes.key(method, user);
        pipeline.command(key.as_bytes(), |cmd| match method {
            Method::Plain => {
                cmd.arg("GET").arg(&key);
            }
            Method::Server => {
                cmd.arg("BF.MEXISTS").arg(&key);
                for item in items {
                    cmd.arg(item);
                }
            }
        });
    }

    /// Reads the reply to [`Reader::ask`] for `items` items.
    ///
    /// # Errors
    /// Returns the server's error, [`StoreError::Data`] for a string that is not a filter, and [`StoreError::Protocol`] for a reply that
    /// does not belong to the query.
    pub fn answer(
        method: Method,
        reply: &CommandResult,
        items: usize,
    ) -> Result<Seen<'_>, StoreError> {
        match (method, reply) {
            (_, Err(error)) => Err(error.clone()),
            (_, Ok(Reply::Nil)) => Ok(Seen::Nothing),
            (Method::Plain, Ok(Reply::BulkString(bytes))) => Ok(Seen::Filter(Filter::read(bytes)?)),
            (Method::Server, Ok(Reply::Array(answers))) if answers.len() == items => {
                Ok(Seen::Answers(answers))
            }
            (Method::Server, Ok(_)) => Err(StoreError::Protocol(format!(
                "BF.MEXISTS: not {items} answers"
            ))),
            (Method::Plain, Ok(_)) => Err(StoreError::Protocol("GET: not a string".into())),
        }
    }
}

impl Seen<'_> {
    /// Whether the user has seen `item`, which was at `position` in the query.
    #[must_use]
    pub fn contains(&self, position: usize, item: i64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Filter(filter) => filter.contains(item),
            Self::Answers(answers) => {
                matches!(
                    answers.get(position),
                    Some(Reply::Int(1) | Reply::Boolean(true))
                )
            }
        }
    }
}
