//! The backend behind the fake C API, on a real Valkey.

use std::time::Duration;

use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_store::{Connection, Settings};
use triton_feature_lookup::FeatureLookup;
use triton_testing::fake::{Config, Input, LoadedModel, Request, Server};
use triton_testing::valkey::Valkey;

fn server() -> Server {
    Server::start(
        "feature_lookup",
        triton_backend::entry_points::<FeatureLookup>(),
    )
    .unwrap()
}

/// Users 1 to 9: age 20 and up, no gender for the even ones.
fn store() -> Valkey {
    let valkey = Valkey::start().unwrap();
    let settings = Settings::parse(&valkey.url(0), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    let view = FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        ["age", "gender"],
    );
    let mut writer = Writer::new(&mut connection, view, None);
    for user in 1..10 {
        let gender = (user % 2 == 1).then_some(Value::Int64(1));
        let values = [Some(Value::Int64(19 + i64::from(user))), gender];
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
        .output("user_id", "TYPE_INT32", &[-1])
        .output("age", "TYPE_INT32", &[-1])
        .output("gender", "TYPE_INT32", &[-1])
        .parameter("REDIS_URL", &valkey.url(0))
        .parameter("DEFAULT_USER_AGE", "35")
        .parameter("DEADLINE_MS", "500")
}

fn request(users: &[i32]) -> Request {
    Request::new()
        .input(Input::new("user_id", &[users.len() as i64], users))
        .output("user_id")
        .output("age")
        .output("gender")
}

/// The connection is made in the background; the first requests may be answered with defaults.
fn connected(model: &LoadedModel<'_>) {
    for _ in 0..500 {
        let report = model.execute([request(&[1])]);
        if report.success(0).output::<i32>("user_id").0 == [1] {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no connection to the store within 5 s");
}

#[test]
fn every_request_of_a_batch_gets_its_own_users_online_and_cached() {
    let (valkey, server) = (store(), server());
    for mode in ["online", "cached"] {
        let model = server
            .load("users", config(&valkey).parameter("MODE", mode))
            .unwrap();
        connected(&model);
        let report = model.execute([
            request(&[1]),
            request(&[2, 77, 3]),
            request(&[]),
            Request::new().output("age"),
            Request::new()
                .input(Input::new("user_id", &[2], &[4, -1]))
                .output("age"),
        ]);
        let ints = |index: usize, name: &str| report.success(index).output::<i32>(name).0;
        assert_eq!(
            (ints(0, "user_id"), ints(0, "age"), ints(0, "gender")),
            (vec![1], vec![20], vec![1])
        );
        assert_eq!(ints(1, "user_id"), [2, -1, 3]);
        assert_eq!(ints(1, "age"), [21, 35, 22]);
        assert_eq!(ints(1, "gender"), [-1, -1, 1]);
        assert!(ints(2, "age").is_empty());
        assert!(report.failure(3).message.contains("user_id"), "{mode}");
        assert_eq!(report.success(4).names(), ["age"]);
        assert_eq!(ints(4, "age"), [23, 35]);
        assert!(report.violations().is_empty(), "{:?}", report.violations());
    }
}

#[test]
fn a_store_that_is_down_gives_defaults_and_is_found_again() {
    let (valkey, server) = (store(), server());
    let model = server.load("users", config(&valkey)).unwrap();
    connected(&model);
    valkey.kill();
    let report = model.execute([request(&[1]), request(&[2, 3])]);
    assert_eq!(report.success(0).output::<i32>("age").0, [35]);
    assert_eq!(report.success(1).output::<i32>("user_id").0, [-1, -1]);
    valkey.restart().unwrap();
    connected(&model);
    // Unloading joins the thread that keeps the connection.
    drop(model);
    let again = server.load("users", config(&valkey)).unwrap();
    connected(&again);
}

#[test]
fn bad_configurations_do_not_load() {
    let (valkey, server) = (store(), server());
    for (key, value, reason) in [
        ("MODE", "offline", "online"),
        ("DEADLINE_MS", "0", "1 and up"),
        ("DEFAULTS", r#"{"height": 3}"#, "age, gender"),
        ("ENTITY_KEY_SERIALIZATION", "1", "ENTITY_KEY_SERIALIZATION"),
        ("REDIS_URL", "http://127.0.0.1", "unknown scheme"),
    ] {
        let failure = server
            .load("users", config(&valkey).parameter(key, value))
            .err()
            .unwrap_or_else(|| panic!("{key}={value} loads"));
        assert!(failure.message.contains(reason), "{}", failure.message);
    }
    let twice = config(&valkey).input("item_id", "TYPE_INT32", &[-1]);
    let failure = server.load("users", twice).err().unwrap();
    assert!(
        failure
            .message
            .contains("input 'item_id' is required, and nothing reads it"),
        "{}",
        failure.message
    );
}
