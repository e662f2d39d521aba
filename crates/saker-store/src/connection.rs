//! One blocking connection to a server or a cluster.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use crate::cluster::Cluster;
use crate::node::{CommandResult, Node};
use crate::settings::Servers;
use crate::{Pipeline, RedactedUrl, Settings, StoreError};

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
