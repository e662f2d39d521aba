//! Tests the backend against the fake C API, with the real ONNX Runtime and a real Valkey.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array};
use arrow::record_batch::RecordBatch;
use ndarray::Array1;
use saker_index::{Index, Metric};
use saker_pipeline::training::{Ranker as RankerSizes, Towers as TowerSizes};
use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Mode, Prefixes, SeenWriter};
use saker_store::{Connection, Pipeline, Reply, Settings};
use saker_testing::valkey::Valkey;
use saker_train::data::{Categorical, Continuous, Dataset, Table};
use saker_train::onnx::{self, Items};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;
use saker_workflow::{Chain, Definition, Operator, Workflow};
use triton_fused_recommendation::FusedRecommendation;
use triton_testing::fake::{self, Config, Input, LoadedModel, Request, Server};

const ITEMS: i32 = 6;
/// Codes of the users 7, 8 and 9 follow the codes of padding, null and out-of-vocabulary.
const CODES: usize = 3 + 3;

fn server() -> Server {
    Server::start(
        "fused_recommendation",
        triton_backend::entry_points::<FusedRecommendation>(),
    )
    .unwrap()
}

fn operators(json: &str) -> Vec<Operator> {
    serde_json::from_str(json).unwrap()
}

fn save(folder: &Path, chains: Vec<Chain>, columns: &[(&str, Vec<i32>)]) {
    let columns = columns.iter().map(|(name, values)| {
        let values: ArrayRef = Arc::new(Int32Array::from(values.clone()));
        (*name, values)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let workflow = Workflow::fit(Definition::new(chains), &[batch]).unwrap();
    workflow.save(folder).unwrap();
}

fn categorical(name: &str, cardinality: usize) -> Categorical {
    Categorical {
        name: name.to_owned(),
        cardinality,
        embedding_dim: None,
        cold_start: 2,
        codes: Vec::new().into(),
    }
}

fn continuous(name: &str) -> Continuous {
    Continuous {
        name: name.to_owned(),
        cold_start: 0.0,
        values: Vec::new().into(),
    }
}

/// Training data without rows: tower and ranker keep their initial weights.
fn data(cardinality: usize) -> Dataset {
    Dataset {
        users: Table {
            categorical: vec![categorical("user_id", cardinality)],
            continuous: vec![continuous("age_norm")],
            ..Table::default()
        },
        context: Table {
            categorical: vec![categorical("device_type", CODES)],
            ..Table::default()
        },
        items: Table {
            categorical: vec![categorical("item_id", ITEMS as usize + 3)],
            continuous: vec![continuous("price")],
            ..Table::default()
        },
        ..Dataset::default()
    }
}

fn items() -> Vec<i64> {
    (1..=i64::from(ITEMS)).map(|item| item * 10).collect()
}

fn write_models(version: &Path, data: &Dataset) {
    let sizes = TowerSizes {
        layers: vec![8, ITEMS as usize],
        embedding_dim: 4,
        ..TowerSizes::default()
    };
    let towers = Towers::new(&sizes, data, 3);
    let tower = onnx::tower(&towers.query, "query_tower");
    std::fs::write(version.join("query_tower.onnx"), tower).unwrap();
    let sizes = RankerSizes {
        embedding_dim: 4,
        bottom_layers: vec![8, 4],
        top_layers: vec![8],
    };
    let of_items = Items {
        rows: ITEMS as usize,
        codes: BTreeMap::from([("item_id".to_owned(), (3..3 + ITEMS).collect())]),
        numbers: BTreeMap::from([(
            "price".to_owned(),
            (0..ITEMS).map(|item| item as f32 / 3.0 - 1.0).collect(),
        )]),
        vectors: BTreeMap::new(),
    };
    let exported = onnx::ranker(&Ranker::new(&sizes, data, 3));
    let hoisted = onnx::hoist(&exported, &of_items, "items.bin").unwrap();
    std::fs::write(version.join("ranker.onnx"), hoisted.model).unwrap();
    std::fs::write(version.join("items.bin"), hoisted.tables).unwrap();
}

/// Users 7, 8 and 9 of age 20, 30 and 40; items 10 to 60 along 6 axes.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("1");
    let categorify = || operators(r#"[{ "op": "Categorify" }]"#);
    save(
        &version.join("user"),
        vec![
            Chain::new(["user_id"], categorify()),
            Chain::feature("age_norm", "age", operators(r#"[{ "op": "Normalize" }]"#)),
        ],
        &[("user_id", vec![7, 8, 9]), ("age", vec![20, 30, 40])],
    );
    save(
        &version.join("context"),
        vec![Chain::new(["device_type"], categorify())],
        &[("device_type", vec![0, 1, 2])],
    );
    let count = ITEMS as usize;
    let mut vectors = vec![0.0; count * count];
    for axis in 0..count {
        vectors[axis * (count + 1)] = 1.0;
    }
    let index = Index::build("Flat", count, Metric::InnerProduct, &vectors, &items()).unwrap();
    index.write(&version.join("index.faiss")).unwrap();
    write_models(&version, &data(CODES));
    ndarray_npy::write_npy(version.join("items.npy"), &Array1::from(items())).unwrap();
    folder
}

/// The users' features in database 0.
fn store() -> Valkey {
    let valkey = Valkey::start().unwrap();
    let settings = Settings::parse(&valkey.url(0), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    let view = FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        ["age", "top_category"],
    );
    let mut writer = Writer::new(&mut connection, view, None);
    for (user, age) in [(7, 20), (8, 30), (9, 40)] {
        let values = [Some(Value::Int64(age)), Some(Value::Int64(100 + age))];
        writer
            .write(&EntityId::Int32(user), &values, Timestamp::from_micros(1))
            .unwrap();
    }
    writer.finish().unwrap();
    valkey
}

fn config(valkey: &Valkey) -> Config {
    Config::new()
        .input("user_id", "TYPE_INT32", &[-1])
        .optional_input("device_type", "TYPE_INT32", &[-1])
        .output("ordered_ids", "TYPE_INT32", &[-1])
        .output("ordered_scores", "TYPE_FP32", &[-1])
        .parameter("REDIS_URL", &valkey.url(0))
        .parameter("SEEN_MODE", "plain")
        .parameter("DEADLINE_MS", "500")
        .parameter("DEFAULT_USER_AGE", "30")
        .parameter(
            "USER_COLUMNS",
            r#"{"age": "INT32", "top_category": "INT32"}"#,
        )
        .parameter("CATEGORY_COLUMN", "top_category")
        .parameter("REQUEST_DEFAULTS", r#"{"device_type": 1}"#)
        .parameter("RETRIEVAL_TOPK", "4")
        .parameter("RANKING_TOPK", "3")
}

fn request(users: &[i32], devices: &[i32]) -> Request {
    let request = Request::new()
        .input(Input::new("user_id", &[users.len() as i64], users))
        .output("ordered_ids")
        .output("ordered_scores");
    match devices {
        [] => request,
        devices => request.input(Input::new("device_type", &[devices.len() as i64], devices)),
    }
}

fn mark_seen(url: &str, user: i64, items: Vec<i64>) {
    let settings = Settings::parse(url, None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    let geometry = Geometry::new(1000, 0.0001).unwrap();
    SeenWriter::new(&mut connection, Mode::Plain, Prefixes::default(), geometry)
        .and_then(|mut writer| writer.add(&[(user, items)]))
        .unwrap();
}

fn ids(model: &LoadedModel<'_>, request: Request) -> Vec<i32> {
    model
        .execute([request])
        .success(0)
        .output::<i32>("ordered_ids")
        .0
}

/// Waits for the connections, which are made in the background. Until then, users are unknown and no item counts as seen.
fn until(model: &LoadedModel<'_>, user: i32, what: impl Fn(&[i32]) -> bool) -> Vec<i32> {
    for _ in 0..500 {
        let ids = ids(model, request(&[user], &[]));
        if what(&ids) {
            return ids;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("not within 5 s");
}

fn raw(ids: &[i32]) -> Vec<i64> {
    ids.iter().copied().map(i64::from).collect()
}

#[test]
fn every_request_of_a_batch_gets_its_own_users_and_its_own_moment() {
    let (valkey, server, folder) = (store(), server(), folder());
    let model = server
        .load_from("fused", 1, folder.path(), config(&valkey))
        .unwrap();
    let stranger = ids(&model, request(&[77], &[2]));
    let alone = [
        ids(&model, request(&[8], &[2])),
        ids(&model, request(&[9], &[0])),
    ];
    let report = model.execute([
        request(&[8, 9], &[2, 0]),
        request(&[8], &[2]),
        request(&[], &[2]),
        request(&[9, 8], &[0, 1, 2]),
        request(&[77], &[2]),
        Request::new().output("ordered_ids"),
        request(&[9, -1], &[0]),
    ]);
    let of = |index: usize| report.success(index).output::<i32>("ordered_ids").0;
    assert_eq!(of(0), alone.concat());
    assert_eq!((of(1), of(4)), (alone[0].clone(), stranger));
    assert_eq!((alone[0].len(), of(2).len()), (3, 0));
    assert_eq!(of(6)[..3], alone[1]);
    let scores = report.success(0).output::<f32>("ordered_scores").0;
    assert!(
        scores[0] >= scores[1] && scores[1] >= scores[2] && scores[2] > 0.0,
        "{scores:?}"
    );
    let message = &report.failure(3).message;
    assert!(
        message.contains("'device_type' has 3 elements for 2 users"),
        "{message}"
    );
    assert!(report.failure(5).message.contains("user_id"));
    assert!(report.violations().is_empty(), "{:?}", report.violations());

    // Without a store, all users are unknown.
    valkey.kill();
    let report = model.execute([request(&[8], &[2])]);
    assert_eq!(report.success(0).output::<i32>("ordered_ids").0, of(4));
}

/// Number of SELECT commands that the server has received.
fn selects(valkey: &Valkey) -> usize {
    let settings = Settings::parse(&valkey.url(0), None).unwrap();
    let mut pipeline = Pipeline::new();
    pipeline.keyless(|cmd| {
        cmd.arg("INFO").arg("commandstats");
    });
    let mut connection = Connection::open(&settings).unwrap();
    let replies = connection.run(&pipeline, std::time::Duration::from_secs(5));
    let text = match &replies.unwrap()[0] {
        Reply::VerbatimString { text, .. } | Reply::SimpleString(text) => text.clone(),
        Reply::BulkString(text) => String::from_utf8(text.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let calls = text.split("cmdstat_select:calls=").nth(1).unwrap_or("0");
    let digits = calls.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

/// One round trip reads the user and the seen items, from two databases.
#[test]
fn one_connection_asks_for_both() {
    let (valkey, server, folder) = (store(), server(), folder());
    let model = server
        .load_from("fused", 1, folder.path(), config(&valkey))
        .unwrap();
    ids(&model, request(&[9], &[]));
    let before = selects(&valkey);
    for _ in 0..50 {
        ids(&model, request(&[9, 8], &[]));
    }
    // Two SELECTs per request, and more for each new connection.
    assert!(selects(&valkey) >= before + 100);
}

/// Seen items are in a second database of the features' server, or on another server.
#[test]
fn what_was_seen_goes() {
    let (valkey, other, server, folder) = (store(), Valkey::start().unwrap(), server(), folder());
    let beside = config(&valkey);
    let apart = config(&valkey).parameter("SEEN_URL", &other.url(1));
    for (config, url) in [(beside, valkey.url(1)), (apart, other.url(1))] {
        let model = server.load_from("fused", 1, folder.path(), config).unwrap();
        let before = until(&model, 9, |ids| ids.len() == 3);
        mark_seen(&url, 9, raw(&before[..2]));
        let left = until(&model, 9, |ids| ids.len() == 2);
        assert!(before[..2].iter().all(|item| !left.contains(item)));
        // The row is padded to the length of a user who has seen nothing, in either order.
        let eight = ids(&model, request(&[8], &[]));
        let both = ids(&model, request(&[8, 9], &[]));
        assert_eq!(both, [&eight[..], &left[..], &[-1]].concat());
        let both = ids(&model, request(&[-1, 9, 8], &[]));
        assert_eq!(both[3..], [&left[..], &[-1], &eight[..]].concat());
        // Two requests of a batch have separate answers.
        let report = model.execute([request(&[8], &[]), request(&[9], &[])]);
        let of = |index: usize| report.success(index).output::<i32>("ordered_ids").0;
        assert_eq!((of(0), of(1)), (eight, left));
        mark_seen(&url, 9, items());
        assert!(ids(&model, request(&[9], &[])).is_empty());
    }
    // Features missing from the server do not stop the request.
    let model = server
        .load_from(
            "fused",
            1,
            folder.path(),
            config(&valkey).parameter("SEEN_MODE", "server"),
        )
        .unwrap();
    assert_eq!(until(&model, 9, |ids| ids.len() == 3).len(), 3);
}

#[test]
fn a_draw_holds_each_item_once() {
    let (valkey, server, folder) = (store(), server(), folder());
    let config = config(&valkey)
        .parameter("DIVERSITY_MODE", "true")
        .parameter("SEED", "5");
    let model = server.load_from("fused", 1, folder.path(), config).unwrap();
    let mut orders = BTreeSet::new();
    for _ in 0..50 {
        let mut drawn = ids(&model, request(&[7], &[]));
        orders.insert(drawn.clone());
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 3);
    }
    assert!(orders.len() > 5, "{orders:?}");
}

#[test]
fn what_does_not_fit_fails_the_load() {
    let (valkey, server, folder) = (store(), server(), folder());
    let refused = |config: Config, says: &[&str]| {
        let refused = server.load_from("fused", 1, folder.path(), config);
        let message = refused.expect_err("a refusal").message;
        for part in says {
            assert!(message.contains(part), "{message}");
        }
    };
    let base = || config(&valkey);
    refused(base().parameter("RANKING_TOPK", "0"), &["RANKING_TOPK"]);
    refused(
        base().parameter("CATEGORY_COLUMN", "genre"),
        &["CATEGORY_COLUMN", "genre"],
    );
    refused(
        base().parameter("USER_COLUMNS", r#"{"top_category": "INT32"}"#),
        &["DEFAULT_USER_AGE", "USER_COLUMNS"],
    );
    refused(
        base().parameter("USER_COLUMNS", "age"),
        &["USER_COLUMNS", "JSON"],
    );
    refused(
        base().parameter("REQUEST_DEFAULTS", r#"{"size": 1}"#),
        &["REQUEST_DEFAULTS", "device_type"],
    );
    refused(base().parameter("MODE", "cached"), &["MODE", "online"]);
    refused(
        base().parameter("SEEN_MODE", "often"),
        &["SEEN_MODE", "plain"],
    );
    refused(base().parameter("SEEN_URL", "store"), &["SEEN_URL"]);
    refused(
        base().parameter("TOPK", "1"),
        &["'TOPK'", "RETRIEVAL_TOPK", "REDIS_URL", "SEED", "SEEN_URL"],
    );
    refused(base().parameter("DEADLINE_MS", "0"), &["DEADLINE_MS"]);
    let one_output = Config::new()
        .input("user_id", "TYPE_INT32", &[-1])
        .parameter("USER_COLUMNS", "{}")
        .parameter("REDIS_URL", &valkey.url(0));
    refused(one_output, &["1 inputs and 0 outputs"]);

    let version = folder.path().join("1");
    ndarray_npy::write_npy(version.join("items.npy"), &Array1::from(vec![10_i64, 10])).unwrap();
    refused(base(), &["items.npy", "the item 10 comes twice"]);
    ndarray_npy::write_npy(version.join("items.npy"), &Array1::from(items())).unwrap();
    let narrow = Index::build("Flat", 2, Metric::InnerProduct, &[0.0; 4], &[1, 2]).unwrap();
    let index = std::fs::read(version.join("index.faiss")).unwrap();
    narrow.write(&version.join("index.faiss")).unwrap();
    refused(base(), &["6 values per query", "have 2"]);
    std::fs::write(version.join("index.faiss"), index).unwrap();
    let foreign =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/reference/dlrm_ranking.onnx");
    std::fs::copy(foreign, version.join("ranker.onnx")).unwrap();
    refused(base(), &["ranker.onnx", "saker assemble"]);
    std::fs::copy(
        version.join("ranker.onnx"),
        version.join("query_tower.onnx"),
    )
    .unwrap();
    refused(base(), &["query_tower.onnx", "neither workflow returns"]);
    std::fs::remove_file(version.join("query_tower.onnx")).unwrap();
    refused(base(), &["query_tower.onnx is missing"]);
}

#[test]
fn a_code_beyond_the_rankers_table_is_refused_for_its_request_alone() {
    let (valkey, server, folder) = (store(), server(), folder());
    let version = folder.path().join("1");
    // The ranker knows only user 7; the tower knows all three.
    let tower = std::fs::read(version.join("query_tower.onnx")).unwrap();
    write_models(&version, &data(CODES - 2));
    std::fs::write(version.join("query_tower.onnx"), tower).unwrap();
    let model = server
        .load_from("fused", 1, folder.path(), config(&valkey))
        .unwrap();
    let report = model.execute([request(&[9], &[]), request(&[7], &[])]);
    let message = &report.failure(0).message;
    assert!(
        message.contains("'user_id' has the code 5; accepted: 0 to 3"),
        "{message}"
    );
    assert_eq!(report.success(1).output::<i32>("ordered_ids").0.len(), 3);
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let (valkey, server, folder) = (store(), server(), folder());
    fake::parameters_are_named(|key, value| {
        let config = config(&valkey).parameter(key, value);
        server
            .load_from("fused", 1, folder.path(), config)
            .map(drop)
    });
}
