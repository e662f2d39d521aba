//! Feast itself at the other end of the store: we read what it writes, and it reads what we write.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_store::{Connection, Pipeline};
use serde_json::{Value as Json, json};
use triton_testing::{runtime, valkey::Valkey};

use crate::support::connect;

fn view(version: EntityKeyVersion, name: &str, features: &[&str]) -> FeatureView {
    let features = features.iter().copied();
    FeatureView::new("my_feast_repo", name, "user_id", version, features)
}

fn read(connection: &mut Connection, view: &FeatureView, user: i32) -> Option<Vec<Option<Value>>> {
    let mut pipeline = Pipeline::new();
    view.read(&EntityId::Int32(user), &mut pipeline);
    let replies = connection
        .run(&pipeline, std::time::Duration::from_secs(5))
        .expect("a reply");
    let row = view.row(&replies[0]).expect("a row of HMGET")?;
    let values = (0..view.features().len()).map(|position| row.value(position).expect("a value"));
    Some(values.collect())
}

fn both_ways(version: EntityKeyVersion, number: &str) {
    let valkey = Valkey::start().expect("a running Valkey");
    let folder = tempfile::tempdir().expect("a folder");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/real_feast.py");
    let mut feast = Command::new(runtime::peers_python().expect("Feast"))
        .arg(program)
        .arg(folder.path())
        .args([&valkey.port().to_string(), number])
        .env("FEAST_USAGE", "False")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a Python with Feast");
    // Lines that Feast prints of its own accord are passed over.
    let mut lines = BufReader::new(feast.stdout.take().expect("its output")).lines();
    let mut next = |begins: &str| {
        lines
            .by_ref()
            .map(|line| line.expect("a line"))
            .find(|line| line.starts_with(begins))
            .unwrap_or_else(|| panic!("Feast ended before it printed '{begins}…'"))
    };

    next("written");
    let mut connection = connect(&valkey.url(0));
    let features = view(version, "user_features", &["age", "score"]);
    let stored = |age, score| Some(vec![Some(Value::Int32(age)), Some(Value::Float(score))]);
    assert_eq!(read(&mut connection, &features, 7), stored(31, 0.5));
    assert_eq!(read(&mut connection, &features, 8), stored(44, -2.0));
    assert_eq!(read(&mut connection, &features, 9), None);

    let time = Timestamp::from_micros(1_780_000_000_000_000);
    let mut writer = Writer::new(&mut connection, features, None);
    for (user, age, score) in [(8, Some(45), Some(1.5)), (9, None, Some(3.0))] {
        let values = [age.map(Value::Int32), score.map(Value::Float)];
        writer
            .write(&EntityId::Int32(user), &values, time)
            .expect("a row");
    }
    writer.finish().expect("written");
    let activity = view(version, "user_activity", &["top_category"]);
    let mut writer = Writer::new(&mut connection, activity, None);
    for (user, category) in [(7, 3), (9, 12)] {
        writer
            .write(
                &EntityId::Int32(user),
                &[Some(Value::Int32(category))],
                time,
            )
            .expect("a row");
    }
    writer.finish().expect("written");

    let mut input = feast.stdin.take().expect("its input");
    input.write_all(b"read\n").expect("a reader");
    let answers: Json = serde_json::from_str(&next("{")).expect("JSON");
    assert_eq!(
        answers,
        json!({
            "user_id": [7, 8, 9, 10],
            "age": [31, 45, null, null],
            "score": [0.5, 1.5, 3.0, null],
            "top_category": [3, null, 12, null],
        })
    );
    assert!(feast.wait().expect("its end").success());
}

#[test]
fn feast_reads_what_we_write_and_we_read_what_it_writes_v2() {
    both_ways(EntityKeyVersion::V2, "2");
}

#[test]
fn feast_reads_what_we_write_and_we_read_what_it_writes_v3() {
    both_ways(EntityKeyVersion::V3, "3");
}
