//! Servers that die, return, hang, send single bytes or send wrong replies: each call ends at its deadline, and later calls recover.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use saker_store::{Connection, Link, Pipeline, Reply, StoreError};
use saker_testing::valkey::Valkey;

use crate::support::{bytes, command, connect, eventually, get, settings};

const DEADLINE: Duration = Duration::from_millis(50);
/// Tolerance for a call's deadline on a busy machine.
const SLACK: Duration = Duration::from_millis(150);

fn link(url: &str) -> Link {
    Link::open(settings(url).with_deadline(DEADLINE)).expect("a link")
}

#[test]
fn a_server_is_killed_and_restarted() {
    let valkey = Valkey::start().expect("a running Valkey");
    command(&mut connect(&valkey.url(0)), &["SET", "k", "v"]);
    let link = link(&valkey.url(0));
    let mut client = link.client();
    assert!(client.wait(Duration::from_secs(5)));
    assert!(get(&mut client, "k").is_ok());
    valkey.kill();
    let start = Instant::now();
    assert!(get(&mut client, "k").is_err());
    // Without a connection a call fails at once.
    eventually("told that there is no connection", || {
        matches!(get(&mut client, "k"), Err(StoreError::Disconnected { .. }))
    });
    for _ in 0..1000 {
        assert!(get(&mut client, "k").is_err());
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    valkey.restart().expect("a restart");
    eventually("the connection is back", || get(&mut client, "k").is_ok());
}

/// Two databases in one round trip. A database that does not exist fails the call and drops the connection, but not the next call.
#[test]
fn a_call_visits_another_database_and_comes_back() {
    let valkey = Valkey::start().expect("a running Valkey");
    command(&mut connect(&valkey.url(0)), &["SET", "k", "here"]);
    command(&mut connect(&valkey.url(1)), &["SET", "k", "there"]);
    let link = link(&valkey.url(0));
    let mut client = link.client();
    assert!(client.wait(Duration::from_secs(5)));
    let ask = |pipeline: &mut Pipeline| {
        pipeline.command(b"k", |cmd| {
            cmd.arg("GET").arg("k");
        });
    };
    let visit = |database: i64| {
        let mut pipeline = Pipeline::new();
        ask(&mut pipeline);
        pipeline.in_database(database, 0, ask);
        ask(&mut pipeline);
        pipeline
    };
    let mut replies = Vec::new();
    client.run(&visit(1), &mut replies).expect("three replies");
    let texts = replies
        .iter()
        .map(|reply| bytes(reply.as_ref().expect("a reply")));
    assert_eq!(texts.collect::<Vec<_>>(), [&b"here"[..], b"there", b"here"]);
    let refused = client
        .run(&visit(99), &mut replies)
        .expect_err("no such database");
    assert!(refused.to_string().contains("out of range"), "{refused}");
    eventually("a new connection in its own database", || {
        get(&mut client, "k").is_ok_and(|reply| reply.is_ok_and(|reply| bytes(&reply) == b"here"))
    });
}

#[test]
fn a_restart_between_two_calls_is_not_noticed() {
    let valkey = Valkey::start().expect("a running Valkey");
    let link = link(&valkey.url(0));
    let mut client = link.client();
    assert!(client.wait(Duration::from_secs(5)));
    assert!(get(&mut client, "k").is_ok());
    valkey.kill();
    valkey.restart().expect("a restart");
    // The spare connection is checked every second, and replaced if needed.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(get(&mut client, "k").is_ok());
}

#[test]
fn a_frozen_server_costs_one_deadline_and_its_late_answers_are_not_read() {
    let valkey = Valkey::start().expect("a running Valkey");
    let mut writer = connect(&valkey.url(0));
    command(&mut writer, &["SET", "late", "wrong"]);
    command(&mut writer, &["SET", "now", "right"]);
    let link = link(&valkey.url(0));
    let mut client = link.client();
    assert!(client.wait(Duration::from_secs(5)));
    valkey.freeze().expect("frozen");
    let start = Instant::now();
    assert!(matches!(
        get(&mut client, "late"),
        Err(StoreError::Timeout(_))
    ));
    assert!(
        start.elapsed() >= DEADLINE && start.elapsed() < DEADLINE + SLACK,
        "{:?}",
        start.elapsed()
    );
    // The kernel accepts connections, but the server does not answer.
    let start = Instant::now();
    for _ in 0..100 {
        assert!(get(&mut client, "late").is_err());
    }
    assert!(
        start.elapsed() < DEADLINE * 4 + SLACK,
        "{:?}",
        start.elapsed()
    );
    valkey.thaw().expect("thawed");
    let mut answer = None;
    eventually("it answers again", || {
        answer = get(&mut client, "now").ok().and_then(Result::ok);
        answer.is_some()
    });
    assert_eq!(answer, Some(Reply::BulkString(b"right".to_vec())));
}

/// A server that completes the login, and then answers every command with `answer`.
fn liar(answer: impl Fn(&mut TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "redis://127.0.0.1:{}/0",
        listener.local_addr().expect("an address").port()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (mut stream, answer) = (stream, answer.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count) = stream.read(&mut buffer) {
                    if count == 0 {
                        return;
                    }
                    if buffer[..count].windows(4).any(|word| word == b"PING") {
                        let _ = stream.write_all(b"+PONG\r\n");
                    } else {
                        answer(&mut stream);
                    }
                }
            });
        }
    });
    url
}

#[test]
fn a_dribbling_server_cannot_hold_a_call() {
    let url = liar(|stream| {
        let _ = stream.write_all(b"$1000000\r\n");
        for _ in 0..2000 {
            std::thread::sleep(Duration::from_millis(2));
            if stream.write_all(b"x").is_err() {
                return;
            }
        }
    });
    let link = link(&url);
    let mut client = link.client();
    assert!(client.wait(Duration::from_secs(5)));
    let start = Instant::now();
    assert!(matches!(get(&mut client, "k"), Err(StoreError::Timeout(_))));
    assert!(start.elapsed() < DEADLINE + SLACK, "{:?}", start.elapsed());
}

#[test]
fn garbage_is_an_error() {
    let url = liar(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let link = link(&url);
    let mut client = link.client();
    assert!(client.wait(Duration::from_secs(5)));
    assert!(matches!(
        get(&mut client, "k"),
        Err(StoreError::Protocol(_))
    ));
}

#[test]
fn a_server_that_quotes_the_password_is_not_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(
            b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n+PONG\r\n",
        );
    });
    let error = Connection::open(&settings(&format!("redis://:hunter2@127.0.0.1:{port}/0")))
        .err()
        .expect("an error");
    server.join().expect("the server");
    assert!(error.to_string().contains("AUTH"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[test]
fn a_link_to_nowhere_ends_soon() {
    // A listener whose connections only the kernel accepts.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "redis://127.0.0.1:{}/0",
        listener.local_addr().expect("an address").port()
    );
    let link = link(&url);
    let mut client = link.client();
    assert!(!client.wait(Duration::from_millis(20)));
    let start = Instant::now();
    assert!(matches!(
        get(&mut client, "k"),
        Err(StoreError::Disconnected { .. })
    ));
    assert!(start.elapsed() < SLACK);
    drop(link);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_refused_command_is_that_commands_error_alone() {
    let valkey = Valkey::start().expect("a running Valkey");
    let mut connection = connect(&valkey.url(0));
    command(&mut connection, &["SADD", "set", "x"]);
    command(&mut connection, &["SET", "k", "v"]);
    let mut pipeline = saker_store::Pipeline::new();
    for key in ["set", "k"] {
        pipeline.command(key.as_bytes(), |cmd| {
            cmd.arg("GET").arg(key);
        });
    }
    pipeline.atomic(b"set", |transaction| {
        transaction.command(|cmd| {
            cmd.arg("INCR").arg("set");
        });
    });
    let mut replies = Vec::new();
    connection
        .run_until(
            &pipeline,
            Instant::now() + Duration::from_secs(5),
            &mut replies,
        )
        .expect("replies");
    assert!(matches!(&replies[0], Err(StoreError::Server(text)) if text.contains("WRONGTYPE")));
    assert!(matches!(&replies[1], Ok(Reply::BulkString(value)) if value == b"v"));
    assert!(matches!(&replies[2], Err(StoreError::Server(_))));
}
