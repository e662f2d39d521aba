//! `feature_lookup`: Feast's online store, asked per request or held in memory.

use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_testing::{cluster::Cluster, tls::TlsProxy, valkey::Valkey};
use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, wrong_tensors_are_refused},
    config::Config,
    stage::Stage,
    store::{connect, golden_items, golden_users},
};

const USERS: &str = "feast_user_lookup";
const ITEMS: &str = "feast_item_lookup";

pub(super) fn users(url: &str) -> Config {
    Config::new("feature_lookup")
        .input("user_id", "INT32", &[-1])
        .output("user_id", "INT32", &[-1])
        .output("age", "INT32", &[-1])
        .output("gender", "INT32", &[-1])
        .output("top_category", "INT32", &[-1])
        .parameter("REDIS_URL", url)
        .parameter("FEATURE_VIEW", "user_features")
        .parameter("ENTITY", "user_id")
        .parameter("DEFAULT_USER_AGE", "35")
        .parameter("DEFAULTS", r#"{"gender":-1,"top_category":-1}"#)
        // The machine that runs the tests may be busy.
        .parameter("DEADLINE_MS", "500")
}

fn items(url: &str) -> Config {
    Config::new("feature_lookup")
        .input("filtered_ids", "INT32", &[-1])
        .output("item_id", "INT32", &[-1])
        .output("price", "FP32", &[-1])
        .output("category_l1", "INT32", &[-1])
        .output("category_l2", "INT32", &[-1])
        .output("item_gender", "INT32", &[-1])
        .parameter("REDIS_URL", url)
        .parameter("MODE", "cached")
        .parameter("FEATURE_VIEW", "item_features")
        .parameter("ENTITY", "item_id")
        .parameter(
            "DEFAULTS",
            r#"{"price":0,"category_l1":-1,"category_l2":-1,"item_gender":-1}"#,
        )
}

fn column(view: &crate::support::store::View<'_>, name: &str, row: usize) -> i32 {
    let (_, values) = view
        .features
        .iter()
        .find(|(feature, _)| *feature == name)
        .expect("a feature");
    match values[row] {
        saker_store::feast::Value::Int32(value) => value,
        ref other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn users_are_found_in_both_key_serializations() {
    for (version, number) in [(EntityKeyVersion::V2, "2"), (EntityKeyVersion::V3, "3")] {
        let valkey = Valkey::start().expect("a running Valkey");
        let view = golden_users(version);
        view.write(&valkey);
        let config = users(&valkey.url(0)).parameter("ENTITY_KEY_SERIALIZATION", number);
        let stage = Stage::with(USERS, &config, &[]);
        for rows in SIZES {
            // Every third one is nobody.
            let ids: Vec<i32> = (0..rows)
                .map(|row| {
                    if row % 3 == 2 {
                        -5 - row as i32
                    } else {
                        view.ids[row % view.ids.len()]
                    }
                })
                .collect();
            let outputs = stage.answer(USERS, &[Tensor::i32("user_id", &ids)]);
            for (name, absent) in [("age", 35), ("gender", -1), ("top_category", -1)] {
                let expected: Vec<i32> = (0..rows)
                    .map(|row| {
                        if row % 3 == 2 {
                            absent
                        } else {
                            column(&view, name, row % view.ids.len())
                        }
                    })
                    .collect();
                assert_eq!(outputs.i32(name), expected, "{name}, {rows} rows");
            }
            let expected: Vec<i32> = ids.iter().map(|&id| id.max(-1)).collect();
            assert_eq!(outputs.i32("user_id"), expected);
        }
        let ends = [i32::MIN, -1, 0, i32::MAX];
        let outputs = stage.answer(USERS, &[Tensor::i32("user_id", &ends)]);
        assert_eq!(outputs.i32("user_id"), [-1; 4]);
        assert_eq!(outputs.i32("age"), [35; 4]);
    }
}

/// A server whose model reads this store answers with the golden users.
fn finds_users(config: &Config) {
    let view = golden_users(EntityKeyVersion::V3);
    let stage = Stage::with(USERS, config, &[]);
    let ids = &view.ids[..300];
    // A cluster's connections are made one after another, in the background.
    let start = std::time::Instant::now();
    let outputs = loop {
        let outputs = stage.answer(USERS, &[Tensor::i32("user_id", ids)]);
        if outputs.i32("user_id") == ids {
            break outputs;
        }
        assert!(
            start.elapsed().as_secs() < 10,
            "users are missing: {}",
            stage.server.log()
        );
    };
    for name in ["age", "gender", "top_category"] {
        let expected: Vec<i32> = (0..ids.len()).map(|row| column(&view, name, row)).collect();
        assert_eq!(outputs.i32(name), expected, "{name}");
    }
}

#[test]
fn users_are_found_over_tls_with_a_login() {
    let valkey = Valkey::builder()
        .user("saker", "word")
        .start()
        .expect("a running Valkey");
    golden_users(EntityKeyVersion::V3).write(&valkey);
    let proxy = TlsProxy::start(valkey.port()).expect("a proxy");
    let url = format!("rediss://saker:word@localhost:{}/0", proxy.port());
    let authority = proxy.authority();
    let config = users(&url).parameter("TLS_CA", &authority.to_string_lossy());
    finds_users(&config);
}

#[test]
fn users_are_found_in_a_cluster() {
    let cluster = Cluster::start().expect("a running cluster");
    golden_users(EntityKeyVersion::V3).write_to(&cluster.url());
    finds_users(&users(&cluster.url()));
}

#[test]
fn what_clicks_wrote_survives_a_later_materialisation_of_older_rows() {
    let valkey = Valkey::start().expect("a running Valkey");
    let write = |view: &str, features: &[(&str, i32)], seconds: i64| {
        let names = features.iter().map(|(name, _)| *name);
        let view = FeatureView::new(
            "my_feast_repo",
            view,
            "user_id",
            EntityKeyVersion::V3,
            names,
        );
        let mut connection = connect(&valkey.url(0));
        let mut writer = Writer::new(&mut connection, view, None);
        let values: Vec<_> = features
            .iter()
            .map(|(_, value)| Some(Value::Int32(*value)))
            .collect();
        let time = Timestamp::from_micros(seconds * 1_000_000);
        writer
            .write(&EntityId::Int32(7), &values, time)
            .and_then(|_| writer.finish())
            .expect("a row written");
    };
    let whole = |category: i32| [("age", 40), ("gender", 1), ("top_category", category)];
    let config =
        users(&valkey.url(0)).parameter("OTHER_VIEWS", r#"{"top_category": "user_activity"}"#);
    let stage = Stage::with(USERS, &config, &[]);
    let category = || {
        let outputs = stage.answer(USERS, &[Tensor::i32("user_id", &[7])]);
        assert_eq!(outputs.i32("user_id"), [7]);
        (outputs.i32("age")[0], outputs.i32("top_category")[0])
    };
    write("user_activity", &[("top_category", 5)], 100);
    assert_eq!(category(), (35, 5), "known by clicks alone");
    write("user_features", &whole(2), 90);
    assert_eq!(category(), (40, 5), "older rows of the whole view");
    write("user_features", &whole(3), 110);
    assert_eq!(category(), (40, 3), "newer ones");
    write("user_activity", &[("top_category", 6)], 120);
    assert_eq!(category(), (40, 6));
}

#[test]
fn items_are_held_in_memory() {
    let valkey = Valkey::start().expect("a running Valkey");
    let view = golden_items();
    view.write(&valkey);
    let stage = Stage::with(ITEMS, &items(&valkey.url(0)), &[]);
    for rows in SIZES {
        let ids: Vec<i32> = (0..rows)
            .map(|row| view.ids[row % view.ids.len()])
            .collect();
        let outputs = stage.answer(ITEMS, &[Tensor::i32("filtered_ids", &ids)]);
        assert_eq!(outputs.i32("item_id"), ids);
        for name in ["category_l1", "category_l2", "item_gender"] {
            let expected: Vec<i32> = (0..rows)
                .map(|row| column(&view, name, row % view.ids.len()))
                .collect();
            assert_eq!(outputs.i32(name), expected, "{name}");
        }
    }
    let ends = [i32::MIN, -1, i32::MAX];
    let outputs = stage.answer(ITEMS, &[Tensor::i32("filtered_ids", &ends)]);
    assert_eq!(outputs.i32("item_id"), [-1; 3]);
    assert_eq!(outputs.f32("price"), [0.0; 3]);
    assert_eq!(outputs.i32("category_l1"), [-1; 3]);
    // The store is asked in the background, never by a request.
    valkey.kill();
    let outputs = stage.answer(ITEMS, &[Tensor::i32("filtered_ids", &[view.ids[0]])]);
    assert_eq!(outputs.i32("item_id"), [view.ids[0]]);
}

#[test]
fn a_cached_view_is_read_anew_while_requests_go_on() {
    let valkey = Valkey::start().expect("a running Valkey");
    let mut view = golden_items();
    view.write(&valkey);
    let config = items(&valkey.url(0)).parameter("REFRESH_SECONDS", "1");
    let stage = Stage::with(ITEMS, &config, &[]);
    let id = view.ids[0];
    let ask = || stage.answer(ITEMS, &[Tensor::i32("filtered_ids", &[id])]);
    let old = ask().f32("price")[0];
    view.features[0].1[0] = saker_store::feast::Value::Float(old + 1.0);
    view.write(&valkey);
    let start = std::time::Instant::now();
    while ask().f32("price") != [old + 1.0] {
        assert!(start.elapsed().as_secs() < 20, "{}", stage.server.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_named_user_on_a_unix_socket() {
    let valkey = Valkey::builder()
        .unix()
        .user("saker", "opensesame")
        .start()
        .expect("a running Valkey");
    let view = golden_users(EntityKeyVersion::V3);
    view.write(&valkey);
    let stage = Stage::with(USERS, &users(&valkey.url(0)), &[]);
    let outputs = stage.answer(USERS, &[Tensor::i32("user_id", &view.ids[..1])]);
    assert_eq!(outputs.i32("age"), [column(&view, "age", 0)]);
    // Gone: the defaults serve, and the log keeps the password to itself.
    valkey.kill();
    let outputs = stage.answer(USERS, &[Tensor::i32("user_id", &view.ids[..1])]);
    assert_eq!(outputs.i32("age"), [35]);
    assert!(!stage.server.log().contains("opensesame"));
}

#[test]
fn wrong_requests() {
    let valkey = Valkey::start().expect("a running Valkey");
    let view = golden_users(EntityKeyVersion::V3);
    view.write(&valkey);
    let stage = Stage::with(USERS, &users(&valkey.url(0)), &[]);
    let inputs = [Tensor::i32("user_id", &view.ids[..3])];
    wrong_tensors_are_refused(&stage, USERS, &inputs, &[]);
}

#[test]
fn wrong_configurations() {
    let valkey = Valkey::start().expect("a running Valkey");
    bad_parameters_are_refused(
        USERS,
        &users(&valkey.url(0)),
        &[],
        "REDIS_URL",
        &[
            ("MODE", "sometimes"),
            ("DEADLINE_MS", "soon"),
            ("ENTITY_KEY_SERIALIZATION", "4"),
            ("DEFAULT_USER_AGE", "young"),
            ("DEFAULTS", r#"{"nobody":1}"#),
            ("OTHER_VIEWS", r#"{"nobody":"clicks"}"#),
        ],
    );
    let stage = Stage::new();
    let config = users("redis://saker:opensesame@127.0.0.1:notaport/0");
    let reason = stage.refusal(USERS, &config, &[]);
    assert!(!reason.contains("opensesame"), "{reason}");
    assert!(!stage.server.log().contains("opensesame"));
}
