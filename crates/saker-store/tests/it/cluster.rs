//! A real cluster of three masters.

use std::time::{Duration, Instant};

use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer, load};
use saker_store::{Connection, Link, Pipeline, Reply};
use triton_testing::valkey::Valkey;

use crate::support::{command, connect, eventually, settings};

/// Three masters that share the slots, and the cluster's URL.
fn cluster() -> (Vec<Valkey>, String) {
    let start = || {
        Valkey::builder()
            .arguments(&["--cluster-enabled", "yes"])
            .start()
            .expect("a running Valkey")
    };
    let nodes: Vec<Valkey> = (0..3).map(|_| start()).collect();
    let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (index, (node, (first, last))) in nodes.iter().zip(ranges).enumerate() {
        let mut connection = connect(&node.url(0));
        let mut run = |words: &[&str]| {
            let mut pipeline = Pipeline::new();
            pipeline.keyless(|cmd| {
                words.iter().for_each(|word| {
                    cmd.arg(*word);
                });
            });
            connection
                .run(&pipeline, Duration::from_secs(5))
                .expect("a reply")
        };
        run(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        run(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        if index > 0 {
            run(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port().to_string()]);
        }
    }
    let hosts: Vec<String> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    let url = format!("redis+cluster://{}", hosts.join(","));
    let writable = |connection: &mut Connection| {
        let mut pipeline = Pipeline::new();
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            pipeline.command(key.as_bytes(), |cmd| {
                cmd.arg("SET").arg(key).arg(key);
            });
        }
        connection.run(&pipeline, Duration::from_secs(5)).is_ok()
    };
    let start = Instant::now();
    loop {
        if let Ok(mut connection) = Connection::open(&settings(&url))
            && connection.is_complete()
            && writable(&mut connection)
        {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the cluster does not form"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    (nodes, url)
}

#[test]
fn a_cluster_is_read_and_written_as_one() {
    let (nodes, url) = cluster();
    let mut connection = connect(&url);
    let view = FeatureView::new("p", "v", "user_id", EntityKeyVersion::V3, ["age"]);
    let mut writer = Writer::new(&mut connection, view.clone(), None);
    for user in 0..3000 {
        writer
            .write(
                &EntityId::Int32(user),
                &[Some(Value::Int32(user))],
                Timestamp::from_micros(0),
            )
            .expect("written");
    }
    assert_eq!(writer.finish().expect("written"), 3000);
    for node in &nodes {
        let Reply::Int(keys) = command(&mut connect(&node.url(0)), &["DBSIZE"]) else {
            panic!("no number")
        };
        assert!(keys > 500, "{keys} of 3000 on one node");
    }
    let mut found = 0;
    load(
        &mut connection,
        &view,
        Duration::from_secs(5),
        &mut |id, row| {
            let EntityId::Int32(id) = id else {
                panic!("{id}")
            };
            assert_eq!(row.value(0).expect("a value"), Some(Value::Int32(id)));
            found += 1;
            Ok(())
        },
    )
    .expect("the view");
    assert_eq!(found, 3000);

    let link =
        Link::open(settings(&url).with_deadline(Duration::from_millis(500))).expect("a link");
    let mut client = link.client();
    assert!(client.wait(Duration::from_secs(5)));
    let mut pipeline = Pipeline::new();
    for user in 0..300 {
        view.read(&EntityId::Int32(user), &mut pipeline);
    }
    let mut replies = Vec::new();
    client.run(&pipeline, &mut replies).expect("replies");
    let age = |reply: &Reply| {
        view.row(reply)
            .expect("a row")
            .expect("a user")
            .value(0)
            .expect("a value")
    };
    for (user, reply) in replies.iter().enumerate() {
        assert_eq!(
            age(reply.as_ref().expect("a reply")),
            Some(Value::Int32(user as i32))
        );
    }

    // One master dies: the others' users are answered still.
    nodes[1].kill();
    let mut answered = 0;
    eventually("only the dead node's keys fail", || {
        answered = match client.run(&pipeline, &mut replies) {
            Ok(()) => replies.iter().filter(|reply| reply.is_ok()).count(),
            Err(_) => 0,
        };
        answered > 0 && answered < 300
    });
    assert_eq!(replies.len(), 300);
    nodes[1].restart().expect("a restart");
    eventually("all keys are back", || {
        client.run(&pipeline, &mut replies).is_ok() && replies.iter().all(Result::is_ok)
    });
}

#[test]
fn a_slot_that_moves_is_followed() {
    let (nodes, url) = cluster();
    let mut connection = connect(&url);
    // "b" has slot 3300, of the first node; an empty slot can be given away at once.
    command(&mut connection, &["DEL", "b"]);
    let mut first = connect(&nodes[0].url(0));
    let mut third = connect(&nodes[2].url(0));
    let words = |connection: &mut Connection, words: &[&str]| {
        let mut pipeline = Pipeline::new();
        pipeline.keyless(|cmd| {
            words.iter().for_each(|word| {
                cmd.arg(*word);
            });
        });
        connection
            .run(&pipeline, Duration::from_secs(5))
            .expect("a reply")
            .remove(0)
    };
    let id = String::from_utf8(crate::support::bytes(&words(
        &mut third,
        &["CLUSTER", "MYID"],
    )))
    .expect("an id");
    words(&mut third, &["CLUSTER", "SETSLOT", "3300", "NODE", &id]);
    words(&mut first, &["CLUSTER", "SETSLOT", "3300", "NODE", &id]);
    // The connection still has the old topology.
    command(&mut connection, &["SET", "b", "moved"]);
    assert_eq!(
        crate::support::bytes(&command(&mut connection, &["GET", "b"])),
        b"moved"
    );
    assert!(!connection.is_complete());
}
