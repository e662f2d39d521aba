//! One socket to one server.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use crate::settings::Address;
use crate::stream::Stream;
use crate::{Pipeline, Settings, StoreError};

/// The reply to one command or transaction.
pub type CommandResult = Result<Value, StoreError>;

/// A connection to one server.
pub(crate) struct Node {
    stream: Stream,
    parser: redis::Parser,
    /// The time limit of the current call, for the text of a timeout.
    allowed: Duration,
}

impl Node {
    /// Connects and sends AUTH, SELECT and PING in one round trip. PING distinguishes a running server from one whose kernel still accepts
    /// connections.
    pub(crate) fn open(
        settings: &Settings,
        address: &Address,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let allowed = settings.connect_timeout;
        let stream = Stream::connect(address, settings.tls.as_ref(), deadline)
            .map_err(|error| StoreError::io(&error, allowed))?;
        let mut node = Self {
            stream,
            parser: redis::Parser::new(),
            allowed,
        };

        let mut greeting = Pipeline::new();
        if let Some(password) = &settings.password {
            greeting.keyless(|cmd| {
                cmd.arg("AUTH");
                if let Some(username) = &settings.username {
                    cmd.arg(username);
                }
                cmd.arg(password);
            });
        }
        if settings.database != 0 {
            greeting.keyless(|cmd| {
                cmd.arg("SELECT").arg(settings.database);
            });
        }
        greeting.keyless(|cmd| {
            cmd.arg("PING");
        });
        node.send(greeting.bytes(), deadline)?;
        let mut failure = None;
        for (position, _) in greeting.units().iter().enumerate() {
            let Err(error) = node.receive_unit(1)? else {
                continue;
            };
            // A server may quote the arguments of a refused command, so the text of a refused AUTH is not passed on.
            let hidden = position == 0 && settings.password.is_some();
            let error = if hidden {
                StoreError::Server(
                    "AUTH refused: user or password is wrong, or the user does not exist".into(),
                )
            } else {
                error
            };
            failure.get_or_insert(error);
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(node),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), StoreError> {
        use std::io::Write;
        self.allowed = deadline.saturating_duration_since(Instant::now());
        self.stream.set_deadline(deadline);
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .map_err(|error| StoreError::io(&error, self.allowed))
    }

    /// Changes the deadline of the replies that have not arrived.
    pub(crate) fn extend(&mut self, deadline: Instant) {
        self.stream.set_deadline(deadline);
    }

    /// Reads the unit's replies and returns the last one.
    pub(crate) fn receive_unit(&mut self, replies: usize) -> Result<CommandResult, StoreError> {
        let mut last = Value::Nil;
        for _ in 0..replies {
            last = self.receive()?;
        }
        Ok(match last {
            Value::ServerError(error) => Err(server_error(&error)),
            // A command inside a transaction can fail alone; this counts as a failure of the transaction.
            Value::Array(values) => match values.iter().find_map(as_server_error) {
                Some(error) => Err(server_error(error)),
                None => Ok(Value::Array(values)),
            },
            value => Ok(value),
        })
    }

    fn receive(&mut self) -> Result<Value, StoreError> {
        self.parser.parse_value(&mut self.stream).map_err(|error| {
            if error.is_timeout() {
                StoreError::Timeout(self.allowed)
            } else if error.is_io_error() {
                StoreError::Io(error.to_string())
            } else {
                StoreError::Protocol(error.to_string())
            }
        })
    }

    pub(crate) fn call(&mut self, cmd: &Cmd, deadline: Instant) -> CommandResult {
        self.send(&cmd.get_packed_command(), deadline)?;
        self.receive_unit(1)?
    }

    pub(crate) fn ping(&mut self, deadline: Instant) -> Result<(), StoreError> {
        self.call(&redis::cmd("PING"), deadline).map(|_| ())
    }
}

fn as_server_error(value: &Value) -> Option<&redis::ServerError> {
    match value {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

fn server_error(error: &redis::ServerError) -> StoreError {
    StoreError::Server(match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    })
}
