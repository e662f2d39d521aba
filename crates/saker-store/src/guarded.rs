//! Applies changes in several databases once and together, and only if the data they were computed from are unchanged.
//!
//! MULTI and WATCH cannot express "only if this entry of a stream is still pending". A worker that was paused must not apply entries that
//! another worker has claimed in the meantime. So one script checks the entries, compares the values that the caller has read with the
//! current ones, and then writes. The script runs alone on one server; the databases and slots of a cluster do not allow it.

use std::time::Duration;

use redis::Value as Reply;

use crate::node::CommandResult;
use crate::{Connection, Pipeline, StoreError};

/// A `command` consists of its database, its number of words, and the words.
///
/// Arguments: the stream's database, the stream, the group; the number of entries, the entries; the number of guards, each with its
/// expected text and a command that reads. Then the number of changes that may be repeated, each a command, and the number of changes that
/// may not, likewise. The latter are made after the entries are acknowledged; if one is refused, the next is still tried.
///
/// Lua passes at most about 8,000 values to a function. Therefore the script acknowledges [`MOST_WORDS`] entries at a time, and
/// [`Script::call`] refuses a command of more words.
const SCRIPT: &str = r"
local at = 0
local function take()
    at = at + 1
    return ARGV[at]
end
local function list(each)
    local all = {}
    for place = 1, tonumber(take()) do all[place] = each() end
    return all
end
local function command()
    return { database = take(), words = list(take) }
end
local function run(call, what)
    redis.call('SELECT', what.database)
    return call(unpack(what.words))
end

local database, stream, group = take(), take(), take()
local entries = list(take)
local guards = list(function() return { expected = take(), command = command() } end)
local repeatable, once = list(command), list(command)

redis.call('SELECT', database)
local gone = { 'gone' }
for _, entry in ipairs(entries) do
    if #redis.call('XPENDING', stream, group, entry, entry, 1) == 0 then gone[#gone + 1] = entry end
end
if #gone > 1 then return gone end
for _, guard in ipairs(guards) do
    local found = run(redis.call, guard.command)
    if type(found) == 'table' then found = table.concat(found, ' ') end
    if (found or '') ~= guard.expected then return { 'changed' } end
end
for _, change in ipairs(repeatable) do run(redis.call, change) end
redis.call('SELECT', database)
for first = 1, #entries, 4096 do
    redis.call('XACK', stream, group, unpack(entries, first, math.min(first + 4095, #entries)))
end
local refused = { 'done' }
for _, change in ipairs(once) do
    local reply = run(redis.pcall, change)
    if type(reply) == 'table' and reply.err then refused[#refused + 1] = reply.err end
end
return refused";

/// Maximum number of words of a command in a script.
pub const MOST_WORDS: usize = 4096;
/// Maximum number of words of all arguments of one call: the server accepts 1,048,576.
const MOST_ARGUMENTS: usize = 1_000_000;

/// A command and its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    database: i64,
    words: Vec<Vec<u8>>,
}

impl Command {
    /// The command `name` in this database.
    #[must_use]
    pub fn new(database: impl Into<i64>, name: &str) -> Self {
        Self {
            database: database.into(),
            words: vec![name.into()],
        }
    }

    /// A command with the given words.
    #[must_use]
    pub fn of(database: impl Into<i64>, words: Vec<Vec<u8>>) -> Self {
        Self {
            database: database.into(),
            words,
        }
    }

    /// The command's database.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.database
    }

    /// The command's words, the name first.
    #[must_use]
    pub fn words(&self) -> &[Vec<u8>] {
        &self.words
    }

    /// Adds an argument as text.
    #[must_use]
    pub fn arg(self, argument: impl ToString) -> Self {
        self.bytes(argument.to_string())
    }

    /// Adds an argument as bytes.
    #[must_use]
    pub fn bytes(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.words.push(argument.into());
        self
    }
}

/// A stream and one of its consumer groups.
#[derive(Clone, Copy, Debug)]
pub struct Group<'g> {
    /// The stream's database.
    pub database: i64,
    /// The stream.
    pub stream: &'g str,
    /// The group.
    pub group: &'g str,
}

/// Changes with their entries and guards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// Entries of the stream from which the changes are derived. Each must be pending, and is acknowledged.
    entries: Vec<String>,
    guards: Vec<(Vec<u8>, Command)>,
    repeatable: Vec<Command>,
    once: Vec<Command>,
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The changes are made. Holds the server's errors for refused changes of the last kind, those that may not be repeated.
    Done(Vec<String>),
    /// Nothing was changed: these entries are no longer pending, so another worker has applied them.
    Gone(Vec<String>),
    /// Nothing was changed: the answer to a guard differs from the expected one.
    Changed,
}

impl Guarded {
    /// Creates an empty set of changes that is derived from these entries.
    #[must_use]
    pub fn from_entries(entries: impl IntoIterator<Item = impl ToString>) -> Self {
        Self {
            entries: entries.into_iter().map(|entry| entry.to_string()).collect(),
            ..Self::default()
        }
    }

    /// Adds a guard: the changes are made only if `command`, which must only read, still has this answer. The answer is a text, or the
    /// elements of an array separated by spaces; it is empty for nil.
    pub fn only_if(&mut self, answer: impl Into<Vec<u8>>, command: Command) {
        self.guards.push((answer.into(), command));
    }

    /// Adds a change that may be repeated without harm. If the server refuses it, the entries stay pending.
    pub fn change(&mut self, command: Command) {
        self.repeatable.push(command);
    }

    /// Adds a change that must not be repeated. It is made last.
    pub fn change_once(&mut self, command: Command) {
        self.once.push(command);
    }

    /// The changes in the order of their execution.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.repeatable.iter().chain(&self.once)
    }

    fn words(&self, group: Group<'_>) -> Vec<Vec<u8>> {
        fn count(words: &mut Vec<Vec<u8>>, of: usize) {
            words.push(of.to_string().into());
        }
        fn add(words: &mut Vec<Vec<u8>>, command: &Command) {
            words.push(command.database.to_string().into());
            count(words, command.words.len());
            words.extend_from_slice(&command.words);
        }
        let mut words: Vec<Vec<u8>> = vec![
            group.database.to_string().into(),
            group.stream.into(),
            group.group.into(),
        ];
        count(&mut words, self.entries.len());
        words.extend(self.entries.iter().map(|entry| entry.clone().into_bytes()));
        count(&mut words, self.guards.len());
        for (expected, command) in &self.guards {
            words.push(expected.clone());
            add(&mut words, command);
        }
        for commands in [&self.repeatable, &self.once] {
            count(&mut words, commands.len());
            commands.iter().for_each(|command| add(&mut words, command));
        }
        words
    }
}

/// The script, loaded into the server of a connection.
#[derive(Clone, Debug)]
pub struct Script {
    sha1: String,
}

impl Script {
    /// Loads the script into the server.
    ///
    /// # Errors
    /// Returns the errors of the store.
    pub fn load(connection: &mut Connection, timeout: Duration) -> Result<Self, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.keyless(|cmd| {
            cmd.arg("SCRIPT").arg("LOAD").arg(SCRIPT);
        });
        match connection.run(&pipeline, timeout)?.pop() {
            Some(Reply::BulkString(sha1)) => Ok(Self {
                sha1: String::from_utf8_lossy(&sha1).into_owned(),
            }),
            other => Err(StoreError::Protocol(format!("SCRIPT LOAD: {other:?}"))),
        }
    }

    /// Adds a call; [`Outcome::read`] reads its reply.
    ///
    /// # Errors
    /// Returns [`StoreError::Data`] if a command, or the whole call, has more words than the server accepts. Nothing is added then.
    pub fn call(
        &self,
        group: Group<'_>,
        guarded: &Guarded,
        pipeline: &mut Pipeline,
    ) -> Result<(), StoreError> {
        let guards = guarded.guards.iter().map(|(_, command)| command);
        for command in guards.chain(guarded.commands()) {
            if command.words.len() > MOST_WORDS {
                let name = command.words.first().map(Vec::as_slice);
                return Err(StoreError::Data(format!(
                    "a change has a command {} of {} words; accepted: at most {MOST_WORDS}",
                    String::from_utf8_lossy(name.unwrap_or_default()),
                    command.words.len()
                )));
            }
        }
        let words = guarded.words(group);
        if words.len() > MOST_ARGUMENTS {
            return Err(StoreError::Data(format!(
                "changes have {} words; accepted: at most {MOST_ARGUMENTS}",
                words.len()
            )));
        }
        pipeline.keyless(|cmd| {
            cmd.arg("EVALSHA").arg(&self.sha1).arg(0);
            for word in words {
                cmd.arg(word);
            }
        });
        Ok(())
    }
}

impl Outcome {
    /// Reads the script's reply.
    ///
    /// # Errors
    /// Returns the server's refusal. In that case, no change that may not be repeated was made.
    pub fn read(reply: CommandResult) -> Result<Self, StoreError> {
        let mut words: Vec<String> = redis::from_redis_value(reply?)
            .map_err(|error| StoreError::Protocol(format!("the guarded script: {error}")))?;
        if words.is_empty() {
            return Err(StoreError::Protocol(
                "the guarded script returned nothing".into(),
            ));
        }
        match words.remove(0).as_str() {
            "done" => Ok(Self::Done(words)),
            "gone" => Ok(Self::Gone(words)),
            "changed" => Ok(Self::Changed),
            word => Err(StoreError::Protocol(format!(
                "the guarded script returned '{word}'"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use saker_testing::valkey::Valkey;

    const TIMEOUT: Duration = Duration::from_secs(5);
    const GROUP: Group<'_> = Group {
        database: 1,
        stream: "s",
        group: "g",
    };

    fn connect(valkey: &Valkey) -> Connection {
        Connection::open(&Settings::parse(&valkey.url(1), None).unwrap()).unwrap()
    }

    fn ask(connection: &mut Connection, text: &str) -> Reply {
        let mut pipeline = Pipeline::new();
        pipeline.keyless(|cmd| {
            text.split(' ').for_each(|word| {
                cmd.arg(word);
            });
        });
        connection.run(&pipeline, TIMEOUT).unwrap().remove(0)
    }

    fn carry_out(connection: &mut Connection, guarded: &Guarded) -> Result<Outcome, StoreError> {
        let script = Script::load(connection, TIMEOUT).unwrap();
        let mut pipeline = Pipeline::new();
        script.call(GROUP, guarded, &mut pipeline)?;
        let mut replies = Vec::new();
        let deadline = std::time::Instant::now() + TIMEOUT;
        connection
            .run_until(&pipeline, deadline, &mut replies)
            .unwrap();
        Outcome::read(replies.remove(0))
    }

    /// A stream with one pending entry, `1-0`.
    fn pending(connection: &mut Connection) {
        ask(connection, "XGROUP CREATE s g 0 MKSTREAM");
        ask(connection, "XADD s 1-0 a b");
        ask(connection, "XREADGROUP GROUP g c STREAMS s >");
    }

    fn counted() -> Guarded {
        let mut guarded = Guarded::from_entries(["1-0"]);
        guarded.only_if(
            "a 1 b 2",
            Command::new(3, "ZRANGE")
                .arg("z")
                .arg(0)
                .arg(-1)
                .arg("WITHSCORES"),
        );
        guarded.change(Command::new(0, "SET").arg("last").bytes([0xff, 0]));
        guarded.change_once(Command::new(3, "ZINCRBY").arg("z").arg(5).arg("b"));
        guarded
    }

    #[test]
    fn an_entry_is_applied_once_and_only_as_computed() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        pending(&mut connection);
        assert_eq!(
            carry_out(&mut connection, &counted()).unwrap(),
            Outcome::Changed
        );
        ask(&mut connection, "SELECT 3");
        ask(&mut connection, "ZADD z 1 a 2 b");
        ask(&mut connection, "SELECT 1");
        assert_eq!(
            carry_out(&mut connection, &counted()).unwrap(),
            Outcome::Done(vec![])
        );
        assert_eq!(
            carry_out(&mut connection, &counted()).unwrap(),
            Outcome::Gone(vec!["1-0".into()])
        );
        ask(&mut connection, "SELECT 3");
        assert_eq!(
            ask(&mut connection, "ZSCORE z b"),
            Reply::BulkString("7".into())
        );
        ask(&mut connection, "SELECT 0");
        assert_eq!(
            ask(&mut connection, "GET last"),
            Reply::BulkString(vec![0xff, 0])
        );
    }

    #[test]
    fn the_script_leaves_the_connection_in_its_database() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        pending(&mut connection);
        carry_out(&mut connection, &counted()).unwrap();
        assert_eq!(ask(&mut connection, "XLEN s"), Reply::Int(1));
    }

    /// Lua's own limit is near 8,000. The test uses sizes on both sides of it, for every list of a call.
    #[test]
    fn lists_of_any_length_are_applied() {
        let valkey = Valkey::start().unwrap();
        for count in [1, 4095, 4096, 4097, 7_990, 8_200, 20_000] {
            let mut connection = connect(&valkey);
            ask(&mut connection, "FLUSHALL");
            ask(&mut connection, "XGROUP CREATE s g 0 MKSTREAM");
            let ids: Vec<String> = (1..=count).map(|place| format!("1-{place}")).collect();
            let mut pipeline = Pipeline::new();
            for id in &ids {
                pipeline.keyless(|cmd| {
                    cmd.arg("XADD").arg("s").arg(id).arg("a").arg("b");
                });
            }
            connection.run(&pipeline, TIMEOUT).unwrap();
            ask(&mut connection, "XREADGROUP GROUP g c STREAMS s >");
            let mut guarded = Guarded::from_entries(&ids);
            for id in &ids {
                guarded.change(Command::new(1, "SADD").arg("all").arg(id));
                guarded.change_once(Command::new(3, "INCR").arg("n"));
            }
            let done = carry_out(&mut connection, &guarded).unwrap();
            assert_eq!(done, Outcome::Done(vec![]), "{count}");
            assert_eq!(ask(&mut connection, "SCARD all"), Reply::Int(count));
            let gone = carry_out(&mut connection, &guarded).unwrap();
            assert_eq!(gone, Outcome::Gone(ids), "{count}");
        }
    }

    #[test]
    fn a_command_that_lua_cannot_pass_on_is_refused_before_it_is_sent() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        pending(&mut connection);
        let sized = |words: usize| {
            let add = Command::new(1, "SADD").arg("all");
            let mut guarded = Guarded::from_entries(["1-0"]);
            guarded.change((2..words).fold(add, Command::arg));
            guarded
        };
        let error = carry_out(&mut connection, &sized(MOST_WORDS + 1)).unwrap_err();
        assert!(matches!(&error, StoreError::Data(text) if text.contains("SADD of 4097 words")));
        let done = carry_out(&mut connection, &sized(MOST_WORDS)).unwrap();
        assert_eq!(done, Outcome::Done(vec![]));
    }

    #[test]
    fn a_refused_change_leaves_the_entry_pending_and_a_refused_last_one_is_told() {
        let valkey = Valkey::start().unwrap();
        let mut connection = connect(&valkey);
        pending(&mut connection);
        ask(&mut connection, "SET text x");
        let mut guarded = Guarded::from_entries(["1-0"]);
        guarded.change(Command::new(1, "ZADD").arg("text").arg(1).arg("m"));
        let error = carry_out(&mut connection, &guarded)
            .unwrap_err()
            .to_string();
        assert!(error.contains("WRONGTYPE"), "{error}");

        let mut guarded = Guarded::from_entries(["1-0"]);
        guarded.change_once(Command::new(1, "ZADD").arg("text").arg(1).arg("m"));
        guarded.change_once(Command::new(1, "SET").arg("next").arg("made"));
        let Outcome::Done(refused) = carry_out(&mut connection, &guarded).unwrap() else {
            panic!("not done");
        };
        assert!(
            refused.len() == 1 && refused[0].contains("WRONGTYPE"),
            "{refused:?}"
        );
        assert_eq!(
            ask(&mut connection, "GET next"),
            Reply::BulkString("made".into())
        );
    }
}
