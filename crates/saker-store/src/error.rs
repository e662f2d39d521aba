//! Errors of calls to a store.

use std::time::Duration;

/// Why a call to the store failed. No variant ever contains a password: URLs are redacted, and the text of a refused AUTH is not passed on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A URL or an option is invalid.
    #[error("{0}")]
    Settings(String),
    /// No connection exists at the moment; the background thread is making one.
    #[error("not connected to {url}: {reason}")]
    Disconnected {
        /// The store, without credentials.
        url: String,
        /// The latest error of the connection.
        reason: String,
    },
    /// The answer was incomplete at the deadline.
    #[error("no complete answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The socket failed or the server closed it.
    #[error("connection lost: {0}")]
    Io(String),
    /// The server's reply does not belong to the command.
    #[error("unexpected reply: {0}")]
    Protocol(String),
    /// The server answered with an error.
    #[error("the store answered: {0}")]
    Server(String),
    /// A stored value cannot be decoded.
    #[error("{0}")]
    Data(String),
}

impl StoreError {
    /// Whether the server closed or lost the connection, so that the same reads can be repeated on another connection.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Self::Io(_))
    }

    /// Whether the server answered that the command is unknown.
    #[must_use]
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Server(text) if text.to_ascii_lowercase().contains("unknown command"))
    }

    /// Whether the server answered that it has reached its memory limit.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Server(text) if text.contains("OOM command not allowed"))
    }

    pub(crate) fn io(error: &std::io::Error, deadline: Duration) -> Self {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        match error.kind() {
            TimedOut | WouldBlock => Self::Timeout(deadline),
            _ => Self::Io(error.to_string()),
        }
    }
}
