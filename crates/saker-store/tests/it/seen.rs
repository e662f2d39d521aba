//! Seen items, on a server with the Bloom commands and on one without them.

use std::collections::HashSet;
use std::time::Duration;

use saker_store::seen::bitmap::{Filter, Geometry};
use saker_store::seen::{EXPIRY, Method, Mode, Prefixes, Reader, SeenWriter};
use saker_store::{Connection, Pipeline, Reply};
use saker_testing::bloom_server::BloomServer;
use saker_testing::valkey::Valkey;

use crate::support::{bytes, command, settings};

fn open(url: &str) -> Connection {
    Connection::open(&settings(url).with_bloom_probe()).expect("a connection")
}

fn geometry() -> Geometry {
    Geometry::new(200, 0.001).expect("sizes")
}

/// Which of `items` each user has seen.
fn ask(
    connection: &mut Connection,
    method: Method,
    users: &[i64],
    items: &[i64],
) -> Vec<HashSet<i64>> {
    let reader = Reader::default();
    let mut pipeline = Pipeline::new();
    for &user in users {
        reader.ask(method, user, items.iter().copied(), &mut pipeline);
    }
    assert_eq!(pipeline.len(), users.len());
    let replies = connection
        .run(&pipeline, Duration::from_secs(5))
        .expect("replies");
    let seen = |reply: Reply| {
        let reply = Ok(reply);
        let seen = Reader::answer(method, &reply, items.len()).expect("an answer");
        let items = items
            .iter()
            .enumerate()
            .filter(|(at, item)| seen.contains(*at, **item));
        items.map(|(_, item)| *item).collect()
    };
    replies.into_iter().map(seen).collect()
}

fn written_items_are_seen(url: &str, method: Method) {
    let mut connection = open(url);
    let mut writer = SeenWriter::new(&mut connection, Mode::Auto, Prefixes::default(), geometry())
        .expect("a writer");
    assert_eq!(writer.method(), method);
    let first: Vec<i64> = (0..100).collect();
    writer
        .add(&[(7, first.clone()), (8, vec![5]), (9, vec![])])
        .expect("written");
    writer
        .add(&[(7, vec![100, 101, i64::from(i32::MAX)])])
        .expect("written");
    let items: Vec<i64> = (0..103).chain([i64::from(i32::MAX)]).collect();
    let seen = ask(&mut connection, method, &[7, 8, 9], &items);
    assert_eq!(
        seen[0],
        items.iter().copied().filter(|&item| item != 102).collect()
    );
    assert_eq!(seen[1], HashSet::from([5]));
    assert!(seen[2].is_empty());
    let key = Prefixes::default().key(method, 7);
    let Reply::Int(left) = command(&mut connection, &["TTL", &key]) else {
        panic!("no time to live")
    };
    assert!(
        (EXPIRY.as_secs() as i64 - 60..=EXPIRY.as_secs() as i64).contains(&left),
        "{left}"
    );
    // A write restarts the expiry.
    command(&mut connection, &["EXPIRE", &key, "100"]);
    let mut writer = SeenWriter::new(&mut connection, Mode::Auto, Prefixes::default(), geometry())
        .expect("a writer");
    writer.add(&[(7, first)]).expect("written");
    let Reply::Int(left) = command(&mut connection, &["TTL", &key]) else {
        panic!("no time to live")
    };
    assert!(left > 100, "{left}");
}

#[test]
fn with_bitmaps() {
    let valkey = Valkey::start().expect("a running Valkey");
    written_items_are_seen(&valkey.url(1), Method::Plain);
}

#[test]
fn with_the_servers_filters() {
    let server = BloomServer::start().expect("a server with BF.*");
    written_items_are_seen(&server.url(1), Method::Server);
}

#[test]
fn many_writers_at_once_lose_nothing() {
    let valkey = Valkey::start().expect("a running Valkey");
    let url = valkey.url(1);
    std::thread::scope(|scope| {
        for worker in 0..4_i64 {
            let url = &url;
            scope.spawn(move || {
                let mut connection = open(url);
                // Writers with different sizes: the first writer's sizes apply.
                let sizes = Geometry::new(50 + worker as u32, 0.01).expect("sizes");
                let mut writer =
                    SeenWriter::new(&mut connection, Mode::Plain, Prefixes::default(), sizes)
                        .expect("a writer");
                for item in 0..100 {
                    writer
                        .add(&[(1, vec![worker * 1000 + item])])
                        .expect("written");
                }
            });
        }
    });
    let mut connection = open(&url);
    let stored = bytes(&command(&mut connection, &["GET", "saker:seen:1:1"]));
    let filter = Filter::read(&stored).expect("a filter");
    for worker in 0..4 {
        assert!(
            (0..100).all(|item| filter.contains(worker * 1000 + item)),
            "worker {worker}"
        );
    }
    let wrong = (100_000..110_000)
        .filter(|&item| filter.contains(item))
        .count();
    assert!(wrong < 500, "{wrong} of 10,000 taken for seen");
}

#[test]
fn another_string_under_the_key_is_not_overwritten() {
    let valkey = Valkey::start().expect("a running Valkey");
    let mut connection = open(&valkey.url(1));
    command(
        &mut connection,
        &["SET", "saker:seen:1:1", "something else"],
    );
    let mut writer = SeenWriter::new(
        &mut connection,
        Mode::Plain,
        Prefixes::default(),
        geometry(),
    )
    .expect("a writer");
    let error = writer
        .add(&[(1, vec![5])])
        .expect_err("refused")
        .to_string();
    assert!(error.contains("saker:seen:1:1"), "{error}");
    assert_eq!(
        bytes(&command(&mut connection, &["GET", "saker:seen:1:1"])),
        b"something else"
    );
}
