//! One blocking connection to a server or a cluster.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use crate::cluster::Cluster;
use crate::settings::{Address, Servers};
use crate::stream::Stream;
use crate::{Pipeline, RedactedUrl, Settings, StoreError};

/// The reply to one command or transaction.
pub type CommandResult = Result<Value, StoreError>;

/// The callback of [`Connection::scan`] for each batch of keys; it may use the connection.
pub type OnKeys<'f> = dyn FnMut(&mut Connection, Vec<Vec<u8>>) -> Result<(), StoreError> + 'f;

/// A connection to a server or to all masters of a cluster, used by one thread at a time.
///
/// Opening a connection blocks. The request path takes open ones from a [`Link`](crate::Link); loaders and writers, which may wait, call
/// [`Connection::open`].
pub struct Connection {
    kind: Kind,
    url: RedactedUrl,
    has_bloom: Option<bool>,
}

enum Kind {
    Single(Node),
    Cluster(Cluster),
}

impl Connection {
    /// Connects, logs in, selects the database and sends PING, all within the settings' connect timeout.
    ///
    /// # Errors
    /// Returns an error that describes the failure without credentials.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let deadline = Instant::now() + settings.connect_timeout;
        let kind = match &settings.servers {
            Servers::Cluster(seeds) => Kind::Cluster(Cluster::open(settings, seeds, deadline)?),
            Servers::Single(address) => Kind::Single(Node::open(settings, address, deadline)?),
        };
        let mut connection = Self {
            kind,
            url: settings.url.clone(),
            has_bloom: None,
        };
        if settings.probe_bloom {
            connection.has_bloom = Some(connection.probe_bloom(deadline)?);
        }
        Ok(connection)
    }

    /// The store's URL without credentials.
    #[must_use]
    pub fn url(&self) -> &RedactedUrl {
        &self.url
    }

    /// Whether the server has the `BF.*` commands; `None` if it was not asked.
    #[must_use]
    pub fn has_bloom(&self) -> Option<bool> {
        self.has_bloom
    }

    /// Sends all commands at once and writes their replies, in order, to `replies` (cleared first).
    ///
    /// In a cluster the nodes work in parallel, and a command whose slot has moved is sent to its new node. A reply of `Err` concerns only
    /// that command: the server refused it, or its node is unavailable.
    ///
    /// # Errors
    /// Returns an error if the replies are incomplete at `deadline`, if the connection is lost, or if a reply is malformed. The caller must
    /// drop the connection then, because a late reply would be read as the reply to the next command.
    pub fn run_until(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        self.start(pipeline, deadline)?;
        self.finish(pipeline, deadline, replies)
    }

    /// The first half of [`run_until`](Self::run_until): sends the commands. In a cluster, the second half sends them.
    ///
    /// # Errors
    /// Returns an error as [`run_until`](Self::run_until) does.
    pub fn start(&mut self, pipeline: &Pipeline, deadline: Instant) -> Result<(), StoreError> {
        match &mut self.kind {
            Kind::Single(node) => node.send(pipeline.bytes(), deadline),
            Kind::Cluster(_) if pipeline.units().iter().any(|unit| unit.select) => {
                Err(StoreError::Settings(
                    "a cluster has only one database, so no other can be selected".into(),
                ))
            }
            Kind::Cluster(_) => Ok(()),
        }
    }

    /// The second half of [`run_until`](Self::run_until): reads the replies to the pipeline that was started.
    ///
    /// # Errors
    /// Returns an error as [`run_until`](Self::run_until) does.
    pub fn finish(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        replies.clear();
        match &mut self.kind {
            Kind::Single(node) => {
                node.extend(deadline);
                for unit in pipeline.units() {
                    let reply = node.receive_unit(unit.replies)?;
                    if unit.select {
                        // The server refused SELECT, so the following commands would run in the wrong database.
                        reply?;
                    } else {
                        replies.push(reply);
                    }
                }
                Ok(())
            }
            Kind::Cluster(cluster) => cluster.run(pipeline, deadline, replies),
        }
    }

    /// Like [`Connection::run_until`], for loaders and writers: takes a duration and returns the replies. The first refused command becomes
    /// the error of the call.
    ///
    /// # Errors
    /// Returns an error as [`Connection::run_until`] does, and for any refused command.
    pub fn run(
        &mut self,
        pipeline: &Pipeline,
        timeout: Duration,
    ) -> Result<Vec<Value>, StoreError> {
        let mut replies = Vec::with_capacity(pipeline.len());
        self.run_until(pipeline, Instant::now() + timeout, &mut replies)?;
        replies.into_iter().collect()
    }

    /// Whether every master of the cluster is connected at its latest known address; always true for a single server.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.kind {
            Kind::Single(_) => true,
            Kind::Cluster(cluster) => cluster.is_complete(),
        }
    }

    /// Calls `found` for the keys that match a glob `pattern` on every node, in batches of a thousand or more. A key can come twice. A key
    /// written during the scan may be missing, as SCAN documents.
    ///
    /// # Errors
    /// Returns the errors of the calls, each of which may take `timeout`, and of `found`.
    pub fn scan(
        &mut self,
        pattern: &[u8],
        timeout: Duration,
        found: &mut OnKeys<'_>,
    ) -> Result<(), StoreError> {
        let nodes = match &self.kind {
            Kind::Single(_) => 1,
            Kind::Cluster(cluster) => cluster.nodes(),
        };
        for index in 0..nodes {
            let mut cursor: Vec<u8> = b"0".to_vec();
            loop {
                let mut cmd = Cmd::new();
                cmd.arg("SCAN")
                    .arg(&cursor)
                    .arg("MATCH")
                    .arg(pattern)
                    .arg("COUNT")
                    .arg(2000);
                let node = match &mut self.kind {
                    Kind::Single(node) => node,
                    Kind::Cluster(cluster) => cluster.node(index)?,
                };
                let reply = node.call(&cmd, Instant::now() + timeout)?;
                let (next, keys): (Vec<u8>, Vec<Vec<u8>>) = redis::from_redis_value(reply)
                    .map_err(|error| StoreError::Protocol(format!("SCAN: {error}")))?;
                if !keys.is_empty() {
                    found(self, keys)?;
                }
                if next == b"0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// Sends PING to every node.
    ///
    /// # Errors
    /// Returns an error if a node does not answer by `deadline`.
    pub fn ping(&mut self, deadline: Instant) -> Result<(), StoreError> {
        match &mut self.kind {
            Kind::Single(node) => node.ping(deadline),
            Kind::Cluster(cluster) => cluster.ping(deadline),
        }
    }

    /// Sends BF.EXISTS for a key that is never written. A server without the module does not know the command. COMMAND INFO would also
    /// answer this, but a user's ACL may exclude it.
    fn probe_bloom(&mut self, deadline: Instant) -> Result<bool, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.command(b"saker:probe", |cmd| {
            cmd.arg("BF.EXISTS").arg("saker:probe").arg(0);
        });
        let mut replies = Vec::new();
        self.run_until(&pipeline, deadline, &mut replies)?;
        match replies.pop() {
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) if error.is_unknown_command() => Ok(false),
            Some(Err(error)) => Err(error),
            None => Err(StoreError::Protocol("no reply to BF.EXISTS".into())),
        }
    }
}

/// One socket to one server.
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
