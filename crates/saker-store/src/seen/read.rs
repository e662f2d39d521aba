//! Asking which items users have seen.

use redis::Value as Reply;

use super::bitmap::Filter;
use super::{Method, Prefixes};
use crate::connection::CommandResult;
use crate::{Pipeline, StoreError};

/// Adds the questions to a pipeline, one command per user, and reads the answers.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Where the users' items lie.
    pub prefixes: Prefixes,
}

/// What one user has seen.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'r> {
    /// Nothing is known.
    Nothing,
    /// The whole filter: any item can be asked.
    Filter(Filter<'r>),
    /// The server's answers to the items that were asked.
    Answers(&'r [Reply]),
}

impl Reader {
    /// Adds the question of one user: GET, or BF.MEXISTS with `items`, of which there must be one at least.
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
    /// The server's, [`StoreError::Data`] for a string that is no filter, and [`StoreError::Protocol`] for a reply that
    /// does not belong to the question.
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
    /// Whether the user has seen `item`, which was asked at `position`.
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
