//! Tests the backend against the fake C API, with a real Valkey.

use std::time::Duration;

use saker_store::feast::{
    EntityId, EntityKeyVersion, EntityType, FeatureView, Timestamp, Value, Writer, feature_field,
};
use saker_store::{Connection, Pipeline, Settings};
use saker_testing::valkey::Valkey;
use triton_feature_lookup::FeatureLookup;
use triton_testing::fake::{self, Config, Input, LoadedModel, Request, Server};

fn server() -> Server {
    Server::start(
        "feature_lookup",
        triton_backend::entry_points::<FeatureLookup>(),
    )
    .unwrap()
}

fn view() -> FeatureView {
    FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        ["age", "gender"],
    )
}

/// Users 1 to 9: age from 20, and no gender for even ids.
fn store() -> Valkey {
    store_of(EntityType::Int32)
}

fn store_of(kind: EntityType) -> Valkey {
    let valkey = Valkey::start().unwrap();
    let settings = Settings::parse(&valkey.url(0), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    let mut writer = Writer::new(&mut connection, view(), None);
    for user in 1..10_i32 {
        let gender = (user % 2 == 1).then_some(Value::Int64(1));
        let values = [Some(Value::Int64(19 + i64::from(user))), gender];
        writer
            .write(&kind.id(user.into()), &values, Timestamp::from_micros(1))
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

/// Waits for the connection, which is made in the background. The first requests may be answered with defaults.
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

/// Checks the int32 request of the wire contract against a store of each id type, and each other type against its store.
#[test]
fn entities_of_every_type_are_found_by_the_ids_of_the_contract() {
    let server = server();
    for stored in EntityType::ALL {
        let valkey = store_of(stored);
        let config = |kind: EntityType| config(&valkey).parameter("ENTITY_TYPE", kind.as_str());
        for mode in ["online", "cached"] {
            let model = server
                .load("users", config(stored).parameter("MODE", mode))
                .unwrap();
            connected(&model);
            let report = model.execute([request(&[9, 77, -1, i32::MAX])]);
            let ints = |name: &str| report.success(0).output::<i32>(name).0;
            assert_eq!(ints("user_id"), [9, -1, -1, -1], "{stored} {mode}");
            assert_eq!(ints("age"), [28, 35, 35, 35], "{stored} {mode}");
        }
        // A copy accepts whole numbers of any type, unless ENTITY_TYPE is set.
        let any = server
            .load("users", self::config(&valkey).parameter("MODE", "cached"))
            .unwrap();
        let report = any.execute([request(&[9])]);
        assert_eq!(report.success(0).output::<i32>("age").0, [28], "{stored}");
        for other in EntityType::ALL.into_iter().filter(|kind| *kind != stored) {
            let model = server.load("users", config(other)).unwrap();
            let report = model.execute([request(&[9])]);
            assert_eq!(report.success(0).output::<i32>("age").0, [35], "{other}");
            let cached = config(other)
                .parameter("MODE", "cached")
                .parameter("LOAD_TIMEOUT_SECONDS", "0");
            let cached = server.load("users", cached);
            let failure = cached.err().expect("a copy without entities");
            for part in ["9 are skipped", "ENTITY_TYPE", other.as_str()] {
                assert!(failure.message.contains(part), "{}", failure.message);
            }
        }
    }
}

#[test]
fn a_copy_leaves_out_what_no_request_can_name_and_refuses_two_entities_of_one_number() {
    let (valkey, server) = (store(), server());
    let settings = Settings::parse(&valkey.url(0), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    let view = FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        ["age"],
    );
    let mut write = |id: EntityId| {
        let mut writer = Writer::new(&mut connection, view.clone(), None);
        let values = [Some(Value::Int64(90))];
        writer
            .write(&id, &values, Timestamp::from_micros(1))
            .unwrap();
        writer.finish().unwrap();
    };
    for text in ["u7", "007"] {
        write(EntityId::String(text.into()));
    }
    let cached = || {
        config(&valkey)
            .parameter("MODE", "cached")
            .parameter("LOAD_TIMEOUT_SECONDS", "0")
    };
    let model = server.load("left_out", cached()).unwrap();
    let metric = |name: &str| fake::metric(name, &[("model", "left_out"), ("version", "1")]);
    assert_eq!(metric("saker_feature_lookup_left_out"), Some(2.0));
    assert_eq!(metric("saker_feature_lookup_rows"), Some(9.0));
    drop(model);

    write(EntityId::Int64(7));
    let failure = server.load("users", cached()).err().unwrap().message;
    for part in ["user_id 7", "INT32", "INT64", "ENTITY_TYPE"] {
        assert!(failure.contains(part), "{failure}");
    }
    for (kind, age) in [("INT32", 26), ("INT64", 90)] {
        let model = server
            .load("users", cached().parameter("ENTITY_TYPE", kind))
            .unwrap();
        let report = model.execute([request(&[7])]);
        assert_eq!(report.success(0).output::<i32>("age").0, [age], "{kind}");
    }
}

/// Takes a minute, the interval of the gauge and the warning.
#[test]
fn a_minute_of_lookups_that_find_nobody_is_a_gauge_and_a_warning() {
    let (valkey, server) = (store_of(EntityType::Int64), server());
    let model = server.load("nobody", config(&valkey)).unwrap();
    let gauge = || {
        let labels = [("model", "nobody"), ("version", "1")];
        fake::metric("saker_feature_lookup_finds_nobody", &labels).unwrap()
    };
    let begin = std::time::Instant::now();
    assert_eq!(gauge(), 0.0);
    while gauge() == 0.0 {
        assert!(begin.elapsed() < Duration::from_secs(75), "not within 75 s");
        model.execute([request(&[1, 2])]);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(begin.elapsed() >= Duration::from_secs(59));
    let lines = fake::log_lines("no lookup has found an entity");
    let line = lines.first().expect("a warning");
    for part in ["'nobody'", "INT32", "ENTITY_TYPE", "user_features"] {
        assert!(line.message.contains(part), "{}", line.message);
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

/// Runs commands in the store.
fn run(valkey: &Valkey, commands: &Pipeline) {
    let settings = Settings::parse(&valkey.url(0), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    connection.run(commands, Duration::from_secs(5)).unwrap();
}

/// The key of a user's features.
fn key(user: i32) -> Vec<u8> {
    view().key(&EntityType::Int32.id(user.into()))
}

/// Replaces the rows of these users by a text value.
fn spoil(valkey: &Valkey, users: &[i32]) {
    let mut commands = Pipeline::new();
    for &user in users {
        let key = key(user);
        commands.command(&key, |command| {
            command.arg("SET").arg(&key).arg("no row");
        });
    }
    run(valkey, &commands);
}

#[test]
fn a_row_that_cannot_be_read_degrades_its_own_request_alone() {
    let (valkey, server) = (store(), server());
    let model = server.load("spoilt", config(&valkey)).unwrap();
    connected(&model);
    let count = |what: &str| {
        let labels = [("model", "spoilt"), ("version", "1")];
        fake::metric(&format!("saker_feature_lookup_{what}_total"), &labels).unwrap()
    };
    let grown = |users: &[&[i32]]| {
        let before = (count("degraded"), count("absent"));
        let report = model.execute(users.iter().map(|users| request(users)));
        for (index, users) in users.iter().enumerate() {
            let expected: Vec<i32> = (users.iter())
                .map(|user| match user {
                    3 | 4 | 77 => 35,
                    user => 19 + user,
                })
                .collect();
            assert_eq!(report.success(index).output::<i32>("age").0, expected);
        }
        (count("degraded") - before.0, count("absent") - before.1)
    };
    spoil(&valkey, &[3, 4]);
    assert_eq!(grown(&[&[1], &[2, 5], &[6]]), (0.0, 0.0));
    assert_eq!(grown(&[&[1], &[2, 3], &[6, 77]]), (1.0, 1.0));
    assert_eq!(grown(&[&[4], &[3, 2], &[6]]), (2.0, 0.0));
    assert_eq!(grown(&[&[3, 4, 3]]), (1.0, 0.0));
    assert_eq!(grown(&[&[3, 4], &[1], &[2, 4]]), (2.0, 0.0));
}

/// Sets a user's age to raw bytes.
fn set_age(valkey: &Valkey, user: i32, bytes: &[u8]) {
    let mut commands = Pipeline::new();
    let key = key(user);
    commands.command(&key, |command| {
        let field = feature_field("user_features", "age");
        command.arg("HSET").arg(&key).arg(&field).arg(bytes);
    });
    run(valkey, &commands);
}

#[test]
fn an_answer_says_which_users_have_a_value_that_cannot_be_read() {
    let (valkey, server, folder) = (store(), server(), tempfile::tempdir().unwrap());
    let version = folder.path().join("1");
    std::fs::create_dir(&version).unwrap();
    let codes = r#"{"format": 1, "columns": {"age": {"codes": "value", "texts": ["20", "21"], "empty": ["-"]}}}"#;
    std::fs::write(version.join("codes.json"), codes).unwrap();
    let config =
        config(&valkey)
            .parameter("CODES", "codes.json")
            .output("degraded", "TYPE_INT32", &[-1]);
    let model = server
        .load_from("values", 1, folder.path(), config)
        .unwrap();
    connected(&model);
    let text = |text: &str| Value::to_bytes(Some(&Value::String(text.into())));
    for (user, bytes, age, degraded) in [
        (1, Value::to_bytes(Some(&Value::Int64(44))), 44, 0),
        (2, Value::to_bytes(None), 35, 0),
        (3, text("21"), 1, 0),
        (4, text("-"), 35, 0),
        // A text that training did not see is valid in the store.
        (5, text("22"), 35, 0),
        // A value of another type than the feature, one out of its range, and no value at all.
        (6, Value::to_bytes(Some(&Value::Double(20.5))), 35, 1),
        (7, Value::to_bytes(Some(&Value::Int64(1 << 40))), 35, 1),
        (8, b"\xff\xff\xff".to_vec(), 35, 1),
    ] {
        set_age(&valkey, user, &bytes);
        let report = model.execute([request(&[9, user]).output("degraded")]);
        let of = |name: &str| report.success(0).output::<i32>(name).0;
        assert_eq!(of("user_id"), [9, user]);
        assert_eq!(of("age"), [28, age], "user {user}");
        assert_eq!(of("degraded"), [0, degraded], "user {user}");
    }
}

#[test]
fn bad_configurations_do_not_load() {
    let (valkey, server) = (store(), server());
    for (key, value, reason) in [
        ("MODE", "offline", "online"),
        ("DEADLINE_MS", "0", "1 and up"),
        ("DEFAULTS", r#"{"height": 3}"#, "age, gender"),
        ("ENTITY_KEY_SERIALIZATION", "1", "ENTITY_KEY_SERIALIZATION"),
        ("ENTITY_TYPE", "UINT64", "INT32, INT64, STRING"),
        ("CODES", "codes.json", "codes.json"),
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

#[test]
fn an_error_about_a_parameter_names_it() {
    let (valkey, server) = (store(), server());
    fake::parameters_are_named(|key, value| {
        let config = config(&valkey).parameter(key, value);
        server.load("users", config).map(drop)
    });
}
