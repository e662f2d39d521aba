//! The backend behind the fake C API, on a real Valkey.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array};
use arrow::record_batch::RecordBatch;
use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_store::{Connection, Settings};
use saker_workflow::{Chain, Definition, Operator, Workflow};
use triton_fused_query::FusedQuery;
use triton_testing::fake::{Config, Input, LoadedModel, Request, Server};
use triton_testing::valkey::Valkey;

fn server() -> Server {
    Server::start("fused_query", triton_backend::entry_points::<FusedQuery>()).unwrap()
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

/// Users 7, 8 and 9 of age 20, 30 and 40; the hour of the request and its device.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let categorify = || operators(r#"[{ "op": "Categorify" }]"#);
    save(
        &folder.path().join("1/user"),
        vec![
            Chain::new(["user_id"], categorify()),
            Chain::feature("age_norm", "age", operators(r#"[{ "op": "Normalize" }]"#)),
        ],
        &[("user_id", vec![7, 8, 9]), ("age", vec![20, 30, 40])],
    );
    let hour = operators(r#"[{ "op": "LambdaOp", "function": "hour" }]"#);
    save(
        &folder.path().join("1/context"),
        vec![
            Chain::new(["device_type"], categorify()),
            Chain::feature("hour", "timestamp", hour),
        ],
        &[("device_type", vec![0, 1, 2]), ("timestamp", vec![0, 1, 2])],
    );
    folder
}

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
        .optional_input("timestamp", "TYPE_INT32", &[-1])
        .output("user_id", "TYPE_INT32", &[-1])
        .output("age_norm", "TYPE_FP32", &[-1])
        .output("device_type", "TYPE_INT32", &[-1])
        .output("hour", "TYPE_INT32", &[-1])
        .output("stored_top_category", "TYPE_INT32", &[-1])
        .parameter("REDIS_URL", &valkey.url(0))
        .parameter("DEADLINE_MS", "500")
        .parameter("DEFAULT_USER_AGE", "30")
        .parameter(
            "USER_COLUMNS",
            r#"{"age": "INT32", "top_category": "INT32"}"#,
        )
        .parameter(
            "STORED_OUTPUTS",
            r#"{"stored_top_category": "top_category"}"#,
        )
        .parameter("REQUEST_DEFAULTS", r#"{"timestamp": "now"}"#)
}

const OUTPUTS: [&str; 5] = [
    "user_id",
    "age_norm",
    "device_type",
    "hour",
    "stored_top_category",
];

fn request(users: &[i32]) -> Request {
    let request = Request::new().input(Input::new("user_id", &[users.len() as i64], users));
    OUTPUTS
        .iter()
        .fold(request, |request, name| request.output(name))
}

fn with(request: Request, name: &str, values: &[i32]) -> Request {
    request.input(Input::new(name, &[values.len() as i64], values))
}

/// The connection is made in the background; the first requests may be answered with defaults.
fn connected(model: &LoadedModel<'_>) {
    for _ in 0..500 {
        let report = model.execute([request(&[7])]);
        if report.success(0).output::<i32>("stored_top_category").0 == [120] {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no connection to the store within 5 s");
}

#[test]
fn every_request_of_a_batch_gets_its_own_users_and_its_own_moment() {
    let (valkey, server, folder) = (store(), server(), folder());
    let model = server
        .load_from("fused", 1, folder.path(), config(&valkey))
        .unwrap();
    connected(&model);
    let report = model.execute([
        with(
            with(request(&[8]), "device_type", &[2]),
            "timestamp",
            &[5 * 3600],
        ),
        with(request(&[9, 77, 7]), "timestamp", &[3600, 7200, 3 * 3600]),
        with(request(&[]), "timestamp", &[60]),
        with(request(&[7, 8]), "timestamp", &[1, 2, 3]),
        with(
            with(request(&[7]), "device_type", &[1, 2]),
            "timestamp",
            &[1, 2, 3],
        ),
        Request::new().output("user_id"),
        request(&[9]),
    ]);
    let ints = |index: usize, name: &str| report.success(index).output::<i32>(name).0;
    let floats = |index: usize, name: &str| report.success(index).output::<f32>(name).0;
    assert_eq!(ints(0, "user_id"), [4]);
    assert_eq!(floats(0, "age_norm"), [0.0]);
    assert_eq!(
        (ints(0, "device_type"), ints(0, "hour")),
        (vec![5], vec![5])
    );
    assert_eq!(ints(0, "stored_top_category"), [130]);
    // The one in the middle is unknown: out-of-vocabulary, of the default age, without a category.
    assert_eq!(ints(1, "user_id"), [5, 2, 3]);
    assert_eq!(floats(1, "age_norm")[1], 0.0);
    assert_eq!(ints(1, "stored_top_category"), [140, -1, 120]);
    assert_eq!(
        (ints(1, "device_type"), ints(1, "hour")),
        (vec![2; 3], vec![1, 2, 3])
    );
    assert!(ints(2, "user_id").is_empty());
    assert_eq!(ints(2, "hour"), [0]);
    // One user at three moments is the ranker's business.
    assert_eq!((ints(3, "user_id"), ints(3, "hour").len()), (vec![3, 4], 3));
    assert!(report.failure(4).message.contains("device_type"));
    assert!(report.failure(5).message.contains("user_id"));
    assert_eq!((ints(6, "user_id"), ints(6, "hour").len()), (vec![5], 1));
    assert!(report.violations().is_empty(), "{:?}", report.violations());

    valkey.kill();
    let report = model.execute([request(&[8])]);
    assert_eq!(report.success(0).output::<i32>("user_id").0, [2]);
    valkey.restart().unwrap();
    drop(model);
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
    refused(
        base().output("size", "TYPE_INT32", &[-1]),
        &["'size'", "age_norm", "hour"],
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
        base().parameter("STORED_OUTPUTS", r#"{"hour": "size"}"#),
        &["STORED_OUTPUTS", "'size'"],
    );
    refused(
        base().parameter(
            "USER_COLUMNS",
            r#"{"age": "INT32", "top_category": "FP32"}"#,
        ),
        &["'stored_top_category'", "INT32, but it is FP32"],
    );
    refused(
        base().parameter("REQUEST_DEFAULTS", r#"{"size": 1}"#),
        &["REQUEST_DEFAULTS", "device_type, timestamp"],
    );
    refused(base().parameter("MODE", "cached"), &["MODE", "online"]);
    refused(
        base().parameter("TOPK", "1"),
        &["'TOPK'", "USER_COLUMNS", "REDIS_URL"],
    );
    refused(base().parameter("DEADLINE_MS", "0"), &["DEADLINE_MS"]);
}
