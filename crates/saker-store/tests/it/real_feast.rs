//! Tests with Feast itself: Saker reads what Feast writes, and Feast reads what Saker writes.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use saker_store::feast::{
    EntityId, EntityKeyVersion, EntityType, FeatureView, Found, Stored, Timestamp, Value, Writer,
    entity_key, load, survey,
};
use saker_store::{Connection, Pipeline};
use saker_testing::{runtime, valkey::Valkey};
use serde_json::{Value as Json, json};

use crate::support::connect;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The kind of Feast's entities.
#[derive(Clone, Copy)]
enum Entities {
    /// Users.
    Of(EntityType),
    /// Pairs of a user and a shop.
    Pairs,
}

impl Entities {
    fn name(self) -> &'static str {
        match self {
            Self::Of(kind) => kind.as_str(),
            Self::Pairs => "PAIR",
        }
    }

    fn view(self, version: EntityKeyVersion, name: &str, features: &[&str]) -> FeatureView {
        let features = features.iter().copied();
        let view = FeatureView::new("my_feast_repo", name, "user_id", version, features);
        match self {
            Self::Of(kind) => view.with_entity_type(kind),
            Self::Pairs => view,
        }
    }

    fn key(self, view: &FeatureView, user: i64) -> Vec<u8> {
        let shop = if user == 7 { "north" } else { "south" };
        match self {
            Self::Of(_) => view.key(&view.id(user)),
            Self::Pairs => entity_key(
                view.version(),
                "my_feast_repo",
                &[
                    ("user_id", EntityId::Int64(user)),
                    ("shop_id", EntityId::String(shop.into())),
                ],
            ),
        }
    }

    fn read(
        self,
        connection: &mut Connection,
        view: &FeatureView,
        user: i64,
    ) -> Option<Vec<Option<Value>>> {
        let mut pipeline = Pipeline::new();
        view.read_key(&self.key(view, user), &mut pipeline);
        let replies = connection.run(&pipeline, TIMEOUT).expect("a reply");
        let row = view.row(&replies[0]).expect("a row of HMGET")?;
        let values =
            (0..view.features().len()).map(|position| row.value(position).expect("a value"));
        Some(values.collect())
    }

    fn write(self, connection: &mut Connection, view: &FeatureView, rows: Vec<(i64, Values)>) {
        let time = Timestamp::from_micros(1_780_000_000_000_000);
        if let Self::Of(_) = self {
            let mut writer = Writer::new(connection, view.clone(), None);
            for (user, values) in rows {
                writer.write(&view.id(user), &values, time).expect("a row");
            }
            writer.finish().expect("written");
            return;
        }
        let mut pipeline = Pipeline::new();
        for (user, values) in rows {
            let key = self.key(view, user);
            let mut words = view.write(&view.id(user), &values, time).expect("a row");
            words[1].clone_from(&key);
            pipeline.command(&key, |cmd| {
                words.iter().for_each(|word| {
                    cmd.arg(word);
                });
            });
        }
        connection.run(&pipeline, TIMEOUT).expect("written");
    }

    /// Surveys the store that Feast has written; a definition can be compared with the result.
    fn is_found(self, connection: &mut Connection, view: &FeatureView) {
        let join_keys: &[(&str, &'static str)] = match self {
            Self::Of(kind) => &[("user_id", kind.as_str())],
            Self::Pairs => &[("shop_id", "STRING"), ("user_id", "INT64")],
        };
        let join_keys = join_keys.iter();
        let of_type = |kind| Stored {
            types: [(kind, 2)].into(),
            text: None,
        };
        let found = Found {
            version: view.version(),
            join_keys: join_keys
                .map(|(name, kind)| ((*name).to_owned(), *kind))
                .collect(),
            entities: 2,
            features: vec![of_type("INT32"), of_type("FLOAT")],
        };
        let otherwise = match view.version() {
            EntityKeyVersion::V2 => EntityKeyVersion::V3,
            EntityKeyVersion::V3 => EntityKeyVersion::V2,
        };
        let another = FeatureView::new(
            "my_feast_repo",
            "user_features",
            "customer",
            otherwise,
            ["age", "score"],
        );
        for view in [view, &another] {
            assert_eq!(
                survey(connection, view, TIMEOUT).expect("a survey"),
                [found.clone()]
            );
        }
        let mut ids = Vec::new();
        load(connection, view, TIMEOUT, &mut |id, _| {
            ids.push(id.number());
            Ok(())
        })
        .expect("the view");
        ids.sort_unstable();
        match self {
            Self::Of(_) => assert_eq!(ids, [Some(7), Some(8)]),
            Self::Pairs => assert_eq!(ids, []),
        }
    }
}

type Values = [Option<Value>; 2];

fn both_ways(version: EntityKeyVersion, entities: Entities) {
    let valkey = Valkey::start().expect("a running Valkey");
    let folder = tempfile::tempdir().expect("a folder");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/real_feast.py");
    let mut feast = Command::new(runtime::peers_python().expect("Feast"))
        .arg(program)
        .arg(folder.path())
        .args([&valkey.port().to_string(), &version.to_string()])
        .arg(entities.name())
        .env("FEAST_USAGE", "False")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a Python with Feast");
    // Lines that Feast prints on its own are skipped.
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
    let features = entities.view(version, "user_features", &["age", "score"]);
    let stored = |age, score| Some(vec![Some(Value::Int32(age)), Some(Value::Float(score))]);
    let mut read = |user| entities.read(&mut connection, &features, user);
    assert_eq!(read(7), stored(31, 0.5));
    assert_eq!(read(8), stored(44, -2.0));
    assert_eq!(read(9), None);
    entities.is_found(&mut connection, &features);

    let values = |age: Option<i32>, score| [age.map(Value::Int32), Some(Value::Float(score))];
    let rows = vec![(8, values(Some(45), 1.5)), (9, values(None, 3.0))];
    entities.write(&mut connection, &features, rows);
    let activity = entities.view(version, "user_activity", &["top_category", "visits"]);
    let values = |category, visits| [Some(Value::Int32(category)), Some(Value::Int32(visits))];
    let rows = vec![(7, values(3, 1)), (9, values(12, 2))];
    entities.write(&mut connection, &activity, rows);

    let mut input = feast.stdin.take().expect("its input");
    input.write_all(b"read\n").expect("a reader");
    let mut answers: Json = serde_json::from_str(&next("{")).expect("JSON");
    let answers = answers.as_object_mut().expect("columns");
    let ids = match entities {
        Entities::Of(EntityType::String) => json!(["7", "8", "9", "10"]),
        _ => json!([7, 8, 9, 10]),
    };
    assert_eq!(answers.remove("user_id"), Some(ids));
    answers.remove("shop_id");
    assert_eq!(
        Json::Object(answers.clone()),
        json!({
            "age": [31, 45, null, null],
            "score": [0.5, 1.5, 3.0, null],
            "top_category": [3, null, 12, null],
        })
    );
    assert!(feast.wait().expect("its end").success());
}

#[test]
fn feast_reads_what_we_write_and_we_read_what_it_writes_v2() {
    both_ways(EntityKeyVersion::V2, Entities::Of(EntityType::Int32));
}

#[test]
fn feast_reads_what_we_write_and_we_read_what_it_writes_v3() {
    both_ways(EntityKeyVersion::V3, Entities::Of(EntityType::Int32));
}

#[test]
fn the_ids_of_pandas_which_are_int64() {
    both_ways(EntityKeyVersion::V3, Entities::Of(EntityType::Int64));
    both_ways(EntityKeyVersion::V2, Entities::Of(EntityType::Int64));
}

#[test]
fn ids_that_are_texts() {
    both_ways(EntityKeyVersion::V3, Entities::Of(EntityType::String));
    both_ways(EntityKeyVersion::V2, Entities::Of(EntityType::String));
}

#[test]
fn entities_of_two_join_keys() {
    both_ways(EntityKeyVersion::V3, Entities::Pairs);
    both_ways(EntityKeyVersion::V2, Entities::Pairs);
}
