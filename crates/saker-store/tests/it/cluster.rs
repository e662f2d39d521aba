//! Tests with a real cluster of three masters.

use std::time::Duration;

use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer, load};
use saker_store::{Connection, Link, Pipeline, Reply};
use saker_testing::cluster::Cluster;

use crate::support::{command, connect, eventually, settings};

#[test]
fn a_cluster_is_read_and_written_as_one() {
    let cluster = Cluster::start().expect("a running cluster");
    let (nodes, url) = (cluster.nodes(), cluster.url());
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
    for node in nodes {
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

    // One master dies: requests for the other masters' users still succeed.
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
    let cluster = Cluster::start().expect("a running cluster");
    let (nodes, url) = (cluster.nodes(), cluster.url());
    let mut connection = connect(&url);
    // "b" has slot 3300, which belongs to the first node; an empty slot can be moved at once.
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
