//! What the tests write into a Valkey, through saker-store as `saker materialize` does.

use std::time::Duration;

use saker_store::{
    Connection, Pipeline, Reply, Settings,
    feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer},
    seen::{Mode, Prefixes, SeenWriter, bitmap::Geometry},
};
use saker_testing::valkey::Valkey;

use super::{parquet, stage::data};

/// Opens a connection to a database.
pub(crate) fn connect(url: &str) -> Connection {
    let settings = Settings::parse(url, None)
        .expect("a store address")
        .with_bloom_probe();
    Connection::open(&settings).expect("a connection")
}

/// Runs one command, and gives what the store answers.
pub(crate) fn command(url: &str, words: &[&[u8]]) -> Reply {
    let mut pipeline = Pipeline::new();
    pipeline.keyless(|cmd| {
        words.iter().for_each(|word| {
            cmd.arg(*word);
        });
    });
    let replies = connect(url).run(&pipeline, Duration::from_secs(10));
    replies.expect("the store answers").remove(0)
}

/// The key of a user's features.
pub(crate) fn features_key(user: i32) -> Vec<u8> {
    let view = FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        ["age"],
    );
    view.key(&EntityId::Int32(user))
}

/// Writes down what users have seen, in whichever way the server offers.
pub(crate) fn mark_seen(url: &str, seen: &[(i64, Vec<i64>)]) {
    let mut connection = connect(url);
    let geometry = Geometry::new(1000, 0.0001).expect("a geometry");
    SeenWriter::new(&mut connection, Mode::Auto, Prefixes::default(), geometry)
        .and_then(|mut writer| writer.add(seen))
        .expect("seen items written");
}

/// The rows of one feature view: ids, and the features' names with their columns.
pub(crate) struct View<'a> {
    pub(crate) name: &'a str,
    pub(crate) join_key: &'a str,
    pub(crate) version: EntityKeyVersion,
    pub(crate) ids: Vec<i32>,
    pub(crate) features: Vec<(&'a str, Vec<Value>)>,
}

impl View<'_> {
    /// Writes the view under the contract's project.
    pub(crate) fn write(&self, valkey: &Valkey) {
        self.write_to(&valkey.url(0));
    }

    /// The same at any address.
    pub(crate) fn write_to(&self, url: &str) {
        let names = self.features.iter().map(|(name, _)| *name);
        let view = FeatureView::new(
            "my_feast_repo",
            self.name,
            self.join_key,
            self.version,
            names,
        );
        let mut connection = connect(url);
        let mut writer = Writer::new(&mut connection, view, None);
        for (row, id) in self.ids.iter().enumerate() {
            let values: Vec<Option<Value>> = self
                .features
                .iter()
                .map(|(_, column)| Some(column[row].clone()))
                .collect();
            let time = Timestamp::from_micros(1_700_000_000_000_000);
            writer
                .write(&EntityId::Int32(*id), &values, time)
                .expect("a row written");
        }
        writer.finish().expect("all rows written");
    }
}

/// Writes the golden users and items.
pub(crate) fn write_golden(valkey: &Valkey) {
    golden_users(EntityKeyVersion::V3).write(valkey);
    golden_items().write(valkey);
}

/// `users.parquet` of the golden pipeline.
pub(crate) fn golden_users(version: EntityKeyVersion) -> View<'static> {
    View {
        name: "user_features",
        join_key: "user_id",
        version,
        ids: ids("users", "user_id"),
        features: ["age", "gender", "top_category"]
            .map(|name| (name, integers("users", name)))
            .to_vec(),
    }
}

/// `items.parquet` of the golden pipeline.
pub(crate) fn golden_items() -> View<'static> {
    let path = data("reference/items.parquet");
    let prices = parquet::f32_column(&path, "price");
    let mut features = vec![("price", prices.into_iter().map(Value::Float).collect())];
    features.extend(
        ["category_l1", "category_l2", "item_gender"].map(|name| (name, integers("items", name))),
    );
    View {
        name: "item_features",
        join_key: "item_id",
        version: EntityKeyVersion::V3,
        ids: ids("items", "item_id"),
        features,
    }
}

fn ids(table: &str, column: &str) -> Vec<i32> {
    parquet::i32_column(&data(&format!("reference/{table}.parquet")), column)
}

fn integers(table: &str, column: &str) -> Vec<Value> {
    ids(table, column).into_iter().map(Value::Int32).collect()
}
