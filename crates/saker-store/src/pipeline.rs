//! Commands sent in one round trip.

use std::ops::Range;

use redis::Cmd;

use crate::StoreError;

/// Number of hash slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;

/// Commands that are sent together. [`Pipeline::clear`] keeps the buffers, so a steady request path allocates nothing here.
#[derive(Default)]
pub struct Pipeline {
    scratch: Cmd,
    bytes: Vec<u8>,
    units: Vec<Unit>,
}

/// One command, or one MULTI…EXEC, that goes to one node.
pub(crate) struct Unit {
    bytes: Range<usize>,
    /// Number of replies; the last one is the unit's.
    pub(crate) replies: usize,
    /// `None` if any node can execute the unit.
    pub(crate) slot: Option<u16>,
    /// Whether the unit changes the connection's database. It has no reply of its own; a refusal fails the whole call.
    pub(crate) select: bool,
}

impl Pipeline {
    /// An empty pipeline.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of replies that [`Connection::run`](crate::Connection::run) returns: one per command or transaction.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units.iter().filter(|unit| !unit.select).count()
    }

    /// Whether the pipeline has no commands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Removes the commands and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.units.clear();
    }

    /// Adds one command on `key`. `build` adds the name and all arguments, the key included.
    ///
    /// ```
    /// # use saker_store::Pipeline;
    /// let mut pipeline = Pipeline::new();
    /// pipeline.command(b"greeting", |cmd| {
    ///     cmd.arg("GET").arg("greeting");
    /// });
    /// assert_eq!(pipeline.len(), 1);
    /// ```
    pub fn command(&mut self, key: &[u8], build: impl FnOnce(&mut Cmd)) {
        let slot = Some(slot(key));
        self.unit(slot, |pipeline| {
            pipeline.pack(build);
            1
        });
    }

    /// Adds one command without a key, such as PING; in a cluster any node may answer it.
    pub fn keyless(&mut self, build: impl FnOnce(&mut Cmd)) {
        self.unit(None, |pipeline| {
            pipeline.pack(build);
            1
        });
    }

    /// Adds commands on `key` that are executed together or not at all (MULTI…EXEC). Their reply is the array that EXEC returns.
    pub fn atomic(&mut self, key: &[u8], build: impl FnOnce(&mut Transaction<'_>)) {
        let slot = Some(slot(key));
        self.unit(slot, |pipeline| {
            pipeline.pack(|cmd| {
                cmd.arg("MULTI");
            });
            let mut transaction = Transaction {
                pipeline,
                commands: 0,
            };
            build(&mut transaction);
            let commands = transaction.commands;
            pipeline.pack(|cmd| {
                cmd.arg("EXEC");
            });
            commands + 2
        });
    }

    /// Adds commands for another database of the server than the connection's own, `own`. The pipeline selects it before them and `own`
    /// after them, in the same round trip. Not for a cluster, which has one database.
    pub fn in_database(&mut self, database: i64, own: i64, build: impl FnOnce(&mut Self)) {
        self.select(database);
        build(self);
        self.select(own);
    }

    fn select(&mut self, database: i64) {
        self.keyless(|cmd| {
            cmd.arg("SELECT").arg(database);
        });
        if let Some(unit) = self.units.last_mut() {
            unit.select = true;
        }
    }

    fn unit(&mut self, slot: Option<u16>, fill: impl FnOnce(&mut Self) -> usize) {
        let start = self.bytes.len();
        let replies = fill(self);
        self.units.push(Unit {
            bytes: start..self.bytes.len(),
            replies,
            slot,
            select: false,
        });
    }

    fn pack(&mut self, build: impl FnOnce(&mut Cmd)) {
        self.scratch.clear();
        build(&mut self.scratch);
        self.scratch.write_packed_command(&mut self.bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The bytes of one of [`units`](Self::units).
    ///
    /// # Errors
    /// Returns an error if the unit belongs to another pipeline.
    pub(crate) fn unit_bytes(&self, unit: &Unit) -> Result<&[u8], StoreError> {
        self.bytes.get(unit.bytes.clone()).ok_or_else(|| {
            StoreError::Protocol(format!(
                "bytes {:?} are out of range for a pipeline of {}",
                unit.bytes,
                self.bytes.len()
            ))
        })
    }
}

/// The commands between MULTI and EXEC.
pub struct Transaction<'p> {
    pipeline: &'p mut Pipeline,
    commands: usize,
}

impl Transaction<'_> {
    /// Adds one command; see [`Pipeline::command`].
    pub fn command(&mut self, build: impl FnOnce(&mut Cmd)) {
        self.pipeline.pack(build);
        self.commands += 1;
    }
}

/// The cluster slot of a key: CRC16 (XMODEM) of the key, or of the part between its first `{` and the next `}`.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&b| b == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|&b| b == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_cluster_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn a_change_of_database_gives_no_reply_of_its_own() {
        let get = |pipeline: &mut Pipeline| {
            pipeline.command(b"k", |cmd| {
                cmd.arg("GET").arg("k");
            });
        };
        let mut pipeline = Pipeline::new();
        get(&mut pipeline);
        pipeline.in_database(1, 0, get);
        assert_eq!((pipeline.len(), pipeline.units().len()), (2, 4));
    }

    #[test]
    fn a_transaction_is_one_unit() {
        let mut pipeline = Pipeline::new();
        pipeline.atomic(b"k", |transaction| {
            transaction.command(|cmd| {
                cmd.arg("SET").arg("k").arg(1);
            });
        });
        assert_eq!(pipeline.len(), 1);
        assert_eq!(pipeline.units()[0].replies, 3);
        assert!(
            pipeline
                .bytes()
                .starts_with(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET")
        );
        pipeline.clear();
        assert!(pipeline.is_empty());
    }
}
