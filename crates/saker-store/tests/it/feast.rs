//! Tests with dumps of a real Feast 0.67 store: reading returns Feast's answers, writing returns the same bytes.

use std::collections::BTreeMap;

use saker_store::feast::{
    EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer, feature_field, list, load,
    timestamp_field,
};
use saker_store::{Pipeline, Reply};
use saker_testing::valkey::Valkey;
use serde_json::Value as Json;

use crate::support::{command, connect, settings};

/// Entities with their values, in the order of the view's features.
type Rows = Vec<(EntityId, Vec<Option<Value>>)>;
type Hash = BTreeMap<Vec<u8>, Vec<u8>>;

fn golden(version: u8) -> Json {
    let place = format!(
        "{}/../../tests/data/feast/feast-online-redis-v{version}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(place).expect("the golden file")).expect("JSON")
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
        .collect()
}

fn dump(golden: &Json) -> BTreeMap<Vec<u8>, Hash> {
    let entries = golden["redis"].as_array().expect("a dump");
    let entry = |entry: &Json| {
        let hash = entry["hash"].as_object().expect("a hash");
        let hash = hash
            .iter()
            .map(|(field, value)| (unhex(field), unhex(value.as_str().expect("hex"))));
        (unhex(entry["key"].as_str().expect("hex")), hash.collect())
    };
    entries.iter().map(entry).collect()
}

fn versions() -> [(u8, EntityKeyVersion); 2] {
    [(2, EntityKeyVersion::V2), (3, EntityKeyVersion::V3)]
}

/// (answers' name, view, join key)
const VIEWS: [(&str, &str, &str); 3] = [
    ("user", "user_features", "user_id"),
    ("item", "item_features", "item_id"),
    ("misc", "misc_features", "name"),
];

fn id(value: &Json) -> EntityId {
    match value {
        Json::String(name) => EntityId::String(name.clone()),
        number => EntityId::Int32(number.as_i64().expect("an id") as i32),
    }
}

/// The stored value for which Feast answers `json`.
fn value(feature: &str, json: &Json) -> Option<Value> {
    let floats = |json: &Json| {
        json.as_array()
            .expect("a list")
            .iter()
            .map(|v| v.as_f64().expect("f64") as f32)
            .collect()
    };
    let ints = |json: &Json| {
        json.as_array()
            .expect("a list")
            .iter()
            .map(|v| v.as_i64().expect("i64"))
            .collect()
    };
    if json.is_null() {
        return None;
    }
    Some(match feature {
        "s" => Value::String(json.as_str().expect("a string").into()),
        "b" => Value::Bool(json.as_bool().expect("a boolean")),
        "i64" => Value::Int64(json.as_i64().expect("an integer")),
        "f64" => Value::Double(json.as_f64().expect("a float")),
        "price" => Value::Float(json.as_f64().expect("a float") as f32),
        "emb" => Value::FloatList(list::Float { val: floats(json) }),
        "li" => Value::Int64List(list::Int64 { val: ints(json) }),
        _ => Value::Int32(json.as_i64().expect("an integer") as i32),
    })
}

/// The view, its ids and, for each id, its values in the order of the view's features.
fn rows(golden: &Json, version: EntityKeyVersion, name: &str) -> (FeatureView, Rows) {
    let (_, view, join_key) = VIEWS
        .into_iter()
        .find(|view| view.0 == name)
        .expect("a view");
    let answers = golden["online_answers"][name].as_object().expect("answers");
    let features: Vec<&String> = answers.keys().filter(|key| *key != join_key).collect();
    let project = golden["project"].as_str().expect("a project");
    let feature_view = FeatureView::new(
        project,
        view,
        join_key,
        version,
        features.iter().map(|name| name.as_str()),
    );
    let rows = answers[join_key]
        .as_array()
        .expect("ids")
        .iter()
        .enumerate()
        .map(|(row, entity)| {
            (
                id(entity),
                features
                    .iter()
                    .map(|feature| value(feature, &answers[*feature][row]))
                    .collect(),
            )
        });
    (feature_view, rows.collect())
}

fn store(valkey: &Valkey, dump: &BTreeMap<Vec<u8>, Hash>) {
    let mut pipeline = Pipeline::new();
    for (key, hash) in dump {
        pipeline.command(key, |cmd| {
            cmd.arg("HSET").arg(key);
            for (field, value) in hash {
                cmd.arg(field).arg(value);
            }
        });
    }
    connect(&valkey.url(0))
        .run(&pipeline, std::time::Duration::from_secs(5))
        .expect("the dump written");
}

fn restore(valkey: &Valkey) -> BTreeMap<Vec<u8>, Hash> {
    let mut connection = connect(&valkey.url(0));
    let mut keys = Vec::new();
    let timeout = std::time::Duration::from_secs(5);
    connection
        .scan(b"*", timeout, &mut |_, found| {
            keys.extend(found);
            Ok(())
        })
        .expect("all keys");
    let mut pipeline = Pipeline::new();
    for key in &keys {
        pipeline.command(key, |cmd| {
            cmd.arg("HGETALL").arg(key);
        });
    }
    let hashes = connection.run(&pipeline, timeout).expect("all hashes");
    let hash = |reply: Reply| match reply {
        Reply::Array(words) => words
            .chunks(2)
            .map(|pair| {
                (
                    crate::support::bytes(&pair[0]),
                    crate::support::bytes(&pair[1]),
                )
            })
            .collect(),
        other => panic!("not a hash: {other:?}"),
    };
    keys.into_iter().zip(hashes.into_iter().map(hash)).collect()
}

#[test]
fn what_feast_wrote_is_read() {
    for (number, version) in versions() {
        let golden = golden(number);
        let valkey = Valkey::start().expect("a running Valkey");
        store(&valkey, &dump(&golden));
        for (name, _, _) in VIEWS {
            let (view, rows) = rows(&golden, version, name);
            let mut pipeline = Pipeline::new();
            for (id, _) in &rows {
                view.read(id, &mut pipeline);
            }
            let replies = connect(&valkey.url(0))
                .run(&pipeline, std::time::Duration::from_secs(5))
                .expect("replies");
            for ((id, expected), reply) in rows.iter().zip(&replies) {
                let row = view.row(reply).expect("a row");
                let got: Vec<Option<Value>> = (0..expected.len())
                    .map(|feature| row.and_then(|row| row.value(feature).expect("a value")))
                    .collect();
                assert_eq!(&got, expected, "version {number}, {name} {id}");
                assert_eq!(
                    row.is_none(),
                    expected.iter().all(Option::is_none),
                    "{name} {id}"
                );
            }
        }
    }
}

#[test]
fn what_we_write_is_what_feast_writes() {
    for (number, version) in versions() {
        let golden = golden(number);
        let valkey = Valkey::start().expect("a running Valkey");
        let mut connection = connect(&valkey.url(0));
        // 2026-05-01T12:00:00.123456Z
        let time = Timestamp::from_micros(1_777_636_800_123_456);
        for (name, _, _) in VIEWS {
            let (view, rows) = rows(&golden, version, name);
            let mut writer = Writer::new(&mut connection, view, None);
            for (id, values) in rows
                .iter()
                .filter(|(_, values)| values.iter().any(Option::is_some))
            {
                writer.write(id, values, time).expect("a row written");
            }
            writer.finish().expect("rows written");
        }
        assert_eq!(restore(&valkey), dump(&golden), "version {number}");
    }
}

#[test]
fn every_field_of_the_dump_is_known() {
    for (number, version) in versions() {
        let golden = golden(number);
        let mut fields = std::collections::BTreeSet::new();
        for (name, view, _) in VIEWS {
            fields.insert(timestamp_field(view));
            let (feature_view, rows) = rows(&golden, version, name);
            fields.extend(
                feature_view
                    .features()
                    .iter()
                    .map(|name| feature_field(view, name).to_vec()),
            );
            for (id, _) in rows {
                assert_eq!(feature_view.id_of(&feature_view.key(&id)), Some(id));
            }
        }
        for field in dump(&golden).values().flat_map(BTreeMap::keys) {
            assert!(fields.contains(field), "{field:02x?}");
        }
    }
}

#[test]
fn a_whole_view_is_loaded_and_nothing_else() {
    let golden = golden(3);
    let valkey = Valkey::start().expect("a running Valkey");
    store(&valkey, &dump(&golden));
    let mut connection = connect(&valkey.url(0));
    // Entities of another project and another view, with the same join key.
    for view in [
        FeatureView::new(
            "other",
            "item_features",
            "item_id",
            EntityKeyVersion::V3,
            ["price"],
        ),
        FeatureView::new(
            "my_feast_repo",
            "other_view",
            "item_id",
            EntityKeyVersion::V3,
            ["price"],
        ),
    ] {
        let mut writer = Writer::new(&mut connection, view, None);
        let time = Timestamp::from_micros(0);
        writer
            .write(&EntityId::Int32(77), &[Some(Value::Float(1.0))], time)
            .expect("a row written");
        writer.finish().expect("written");
    }
    // Enough for several rounds of SCAN.
    let many = FeatureView::new(
        "my_feast_repo",
        "item_features",
        "item_id",
        EntityKeyVersion::V3,
        ["price"],
    );
    let mut writer = Writer::new(
        &mut connection,
        many.clone(),
        Some(std::time::Duration::from_secs(600)),
    );
    let mut progress = 0;
    for item in 10_000..15_000 {
        let value = Value::Float(item as f32);
        progress = writer
            .write(
                &EntityId::Int32(item),
                &[Some(value)],
                Timestamp::from_micros(1),
            )
            .expect("written");
    }
    assert_eq!(progress, 5000);
    assert_eq!(writer.finish().expect("written"), 5000);
    let mut found = BTreeMap::new();
    load(
        &mut connection,
        &many,
        std::time::Duration::from_secs(5),
        &mut |id, row| {
            found.insert(format!("{id}"), row.value(0).expect("a value"));
            Ok(())
        },
    )
    .expect("the view");
    assert_eq!(found.len(), 5003);
    assert_eq!(found["14999"], Some(Value::Float(14_999.0)));
    assert_eq!(found["2"], Some(Value::Float(120.5)));
    assert!(!found.contains_key("77"));
    let key = String::from_utf8_lossy(b"never").into_owned();
    assert_eq!(command(&mut connection, &["TTL", &key]), Reply::Int(-2));
    assert_eq!(settings(&valkey.url(0)).url().to_string(), valkey.url(0));
}
