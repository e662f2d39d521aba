//! Small helpers of these tests.

use std::time::{Duration, Instant};

use saker_store::CommandResult;
use saker_store::{Client, Connection, Pipeline, Reply, Settings, StoreError};

/// A blocking connection.
pub(crate) fn connect(url: &str) -> Connection {
    Connection::open(&settings(url)).expect("a connection")
}

/// Settings of a URL.
pub(crate) fn settings(url: &str) -> Settings {
    Settings::parse(url, None).expect("a store URL")
}

/// Runs one command.
pub(crate) fn command(connection: &mut Connection, words: &[&str]) -> Reply {
    let mut pipeline = Pipeline::new();
    pipeline.command(words.get(1).unwrap_or(&"").as_bytes(), |cmd| {
        for word in words {
            cmd.arg(*word);
        }
    });
    connection
        .run(&pipeline, Duration::from_secs(5))
        .expect("a reply")
        .remove(0)
}

/// GETs a key through a client.
pub(crate) fn get(client: &mut Client, key: &str) -> Result<CommandResult, StoreError> {
    let mut pipeline = Pipeline::new();
    pipeline.command(key.as_bytes(), |cmd| {
        cmd.arg("GET").arg(key);
    });
    let mut replies = Vec::new();
    client.run(&pipeline, &mut replies)?;
    Ok(replies.remove(0))
}

/// Repeats `done` until it returns true, for at most ten seconds.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "not within 10 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The content of a BulkString.
pub(crate) fn bytes(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::BulkString(bytes) => bytes.clone(),
        other => panic!("not a string: {other:?}"),
    }
}
