//! Events, users and popular items with a real Valkey, and without one.

mod support;

use std::time::{Duration, Instant};

use saker_store::popularity::{self, Set};
use saker_store::recent::{self, Event};
use saker_store::seen::{Method, Prefixes};
use saker_store::{Connection, Pipeline, Reply, Settings};
use saker_testing::valkey::Valkey;
use serde_json::{Value, json};
use support::{Fixture, Mode, NO_STORE, catalogue_of};

fn start(valkey: &Valkey) -> Fixture {
    let url = valkey.url(0);
    let fixture = Fixture::start(url.trim_end_matches("/0"), |_| ());
    fixture.until("/health/ready", |answer| answer.status == 200);
    fixture
}

fn connect(valkey: &Valkey, database: u8) -> Connection {
    Connection::open(&Settings::parse(&valkey.url(database), None).unwrap()).unwrap()
}

fn run(connection: &mut Connection, words: &[&str]) -> Reply {
    let mut pipeline = Pipeline::new();
    pipeline.keyless(|cmd| {
        for word in words {
            cmd.arg(*word);
        }
    });
    connection
        .run(&pipeline, Duration::from_secs(5))
        .unwrap()
        .remove(0)
}

fn event(id: &str) -> Value {
    json!({"event_id": id, "user_id": 42, "item_id": 7, "type": "click", "timestamp": 1_700_000_000.5})
}

#[test]
fn an_event_is_stored_once_and_then_answered() {
    let valkey = Valkey::start().unwrap();
    let fixture = start(&valkey);
    let answer = fixture.post("/events", &event("a"));
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(
        answer.json,
        json!({"accepted": 1, "duplicates": 0, "event_ids": ["a"]})
    );
    let made = json!({"user_id": 1, "item_id": 1, "type": "view"});
    let answer = fixture.post("/events", &json!([event("a"), event("b"), made]));
    assert_eq!(
        (&answer.json["accepted"], &answer.json["duplicates"]),
        (&2.into(), &1.into())
    );
    assert_eq!(answer.json["event_ids"][2].as_str().unwrap().len(), 36);

    let mut connection = connect(&valkey, 1);
    assert_eq!(run(&mut connection, &["XLEN", "events"]), Reply::Int(3));
    let entries = format!(
        "{:?}",
        run(
            &mut connection,
            &["XRANGE", "events", "-", "+", "COUNT", "1"]
        )
    );
    for part in ["event_id", "1700000000500000", "click"] {
        assert!(entries.contains(part), "{entries}");
    }
    let metrics = fixture.get("/metrics").text;
    assert!(
        metrics.contains(r#"saker_gateway_events_total{outcome="accepted"} 3"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"saker_gateway_events_total{outcome="duplicate"} 1"#),
        "{metrics}"
    );
}

#[test]
fn a_wrong_event_is_named_and_none_is_stored() {
    let valkey = Valkey::start().unwrap();
    let fixture = start(&valkey);
    let mut wrong = event("b");
    wrong["item_id"] = 999.into();
    let answer = fixture.post("/events", &json!([event("a"), wrong]));
    answer.is_problem(400, Some("[1].item_id"));
    assert!(answer.json["detail"].as_str().unwrap().contains("999"));
    assert_eq!(
        run(&mut connect(&valkey, 1), &["XLEN", "events"]),
        Reply::Int(0)
    );
    fixture
        .ask("POST", "/events", &[], "{}")
        .is_problem(415, None);
    let large = " ".repeat((1 << 20) + 1);
    let json = [("content-type", "application/json")];
    fixture
        .ask("POST", "/events", &json, &large)
        .is_problem(413, None);
}

#[test]
fn a_full_stream_takes_no_event() {
    let valkey = Valkey::start().unwrap();
    let url = valkey.url(0);
    let fixture = Fixture::start(url.trim_end_matches("/0"), |settings| {
        settings.events.backlog = 2
    });
    fixture.until("/health/ready", |answer| answer.status == 200);
    assert_eq!(
        fixture
            .post("/events", &json!([event("a"), event("b")]))
            .status,
        202
    );
    let answer = fixture.post("/events", &event("c"));
    answer.is_problem(503, None);
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(fixture.post("/events", &event("a")).json["duplicates"], 1);
}

/// Memory in bytes, as the server reports it.
fn used_memory(connection: &mut Connection) -> u64 {
    let Reply::BulkString(info) = run(connection, &["INFO", "memory"]) else {
        panic!("no text");
    };
    let info = String::from_utf8(info).unwrap();
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

#[test]
fn a_store_without_memory_takes_no_event_and_leaves_the_updater_its_share() {
    let valkey = Valkey::start().unwrap();
    let fixture = start(&valkey);
    assert_eq!(fixture.post("/events", &event("a")).status, 202);
    let mut connection = connect(&valkey, 1);
    // Limits slightly above the current use and far below it. At the first one the server itself would still accept writes.
    for bounds in [[102, 100], [1, 100]] {
        let start = Instant::now();
        let refused = loop {
            let most = used_memory(&mut connection) * bounds[0] / bounds[1];
            let words = ["CONFIG", "SET", "maxmemory", &most.to_string()];
            run(&mut connection, &words);
            let answer = fixture.post("/events", &event(&format!("{most}-{:?}", start.elapsed())));
            if answer.status != 202 {
                break answer;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{}", answer.text);
            std::thread::sleep(Duration::from_millis(100));
        };
        refused.is_problem(503, None);
        assert_eq!(refused.header("retry-after"), "5");
        assert!(refused.text.contains("maxmemory"), "{}", refused.text);
        // Requests that free memory still work.
        assert_eq!(fixture.ask("DELETE", "/users/2/seen", &[], "").status, 204);
        run(&mut connection, &["CONFIG", "SET", "maxmemory", "0"]);
        let start = Instant::now();
        while fixture.post("/events", &event("b")).status != 202 {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let metrics = fixture.get("/metrics").text;
    assert!(
        metrics.contains(r#"saker_gateway_events_total{outcome="full"}"#),
        "{metrics}"
    );
}

#[test]
fn a_user_is_shown_and_forgotten() {
    let valkey = Valkey::start().unwrap();
    let fixture = start(&valkey);
    let mut connection = connect(&valkey, 1);
    let visit = Event {
        user: 2,
        item: 7,
        time_us: 1_700_000_000_000_000,
    };
    recent::add(&mut connection, &[visit], visit.time_us).unwrap();
    let key = Prefixes::default().key(Method::Plain, 2);
    run(&mut connection, &["SET", &key, "x"]);
    let user = fixture.get("/users/2").json;
    assert_eq!(user["known"], true);
    assert_eq!(user["has_seen_items"], true);
    assert_eq!(user["recent_items"][0]["title"], "Item 7");
    assert_eq!(user["recent_items"][0]["timestamp"], 1_700_000_000.0);
    let answer = fixture.ask("DELETE", "/users/2/seen", &[], "");
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    let user = fixture.get("/users/2").json;
    assert_eq!(
        (&user["has_seen_items"], &user["recent_items"]),
        (&false.into(), &json!([]))
    );
    assert_eq!(fixture.get("/users/-7").json["known"], false);
    fixture.get("/users/x").is_problem(400, Some("id"));
    assert_eq!(
        fixture.get("/users?k=2").json["users"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn popular_items_follow_the_sets() {
    let valkey = Valkey::start().unwrap();
    let mut connection = connect(&valkey, 3);
    popularity::write(&mut connection, Set::Global, &[(5, 10), (6, 30), (999, 50)]).unwrap();
    popularity::write(&mut connection, Set::CategoryL1(1), &[(5, 10), (7, 20)]).unwrap();
    let fixture = start(&valkey);
    let ids = |path: &str| -> Vec<i64> {
        let answer = fixture.get(path);
        let items = answer.json["items"].as_array().expect("items").iter();
        items.map(|item| item["id"].as_i64().unwrap()).collect()
    };
    // Items missing from the catalogue are not shown.
    assert_eq!(ids("/popular"), [6, 5]);
    assert_eq!(ids("/popular?category=category_l1:1"), [7, 5]);
    assert_eq!(ids("/items?category=category_l1:1&k=4"), [7, 5, 1, 3]);
    popularity::write(&mut connection, Set::Global, &[(1, 10)]).unwrap();
    fixture.until("/popular", |answer| answer.json["items"][0]["id"] == 1);
    fixture
        .get("/items?category=category_l1:9")
        .is_problem(400, Some("category"));
    fixture
        .get("/items?category=colour:1")
        .is_problem(400, Some("category"));
    fixture.get("/items").is_problem(400, Some("category"));
    let item = fixture.get("/items/7").json;
    assert_eq!(
        (&item["title"], &item["features"]["item_id"]),
        (&"Item 7".into(), &7.into())
    );
    fixture.get("/items/13").is_problem(404, Some("id"));
    assert_eq!(fixture.get("/categories").json.as_array().unwrap().len(), 2);
}

#[test]
fn popular_items_that_a_new_catalogue_lacks_are_not_answered() {
    let valkey = Valkey::start().unwrap();
    let mut trending = connect(&valkey, 3);
    for set in ["trending:global", "trending:cat_l1:1"] {
        let ranks = ["9", "1", "5", "3", "4", "11", "2", "7"];
        run(&mut trending, &[&["ZADD", set][..], &ranks].concat());
    }
    let fixture = start(&valkey);
    let ids = |path: &str| -> Vec<i64> {
        let answer = fixture.get(path).json;
        let items = answer["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].as_i64().unwrap()).collect()
    };
    fixture.stub().set(Mode::Refuse);
    let paths = [
        "/popular?k=3",
        "/popular?k=3&category=category_l1:1",
        "/recommendations?k=3",
    ];
    fixture.until(paths[2], |answer| answer.json["items"][0]["id"] == 1);
    for path in paths {
        assert_eq!(ids(path), [1, 3, 11], "{path}");
    }
    // Items 1 and 11 are gone; the remaining known items move up.
    let kept = (2..=10).chain(12..=20);
    fixture.gateway.replace_catalogue(catalogue_of(kept, "New"));
    for path in paths {
        assert_eq!(ids(path), [3, 7], "{path}");
    }
    let category = ids("/items?k=4&category=category_l1:1");
    assert_eq!(category, [3, 7, 5, 9]);
    let gone = json!({"user_id": 1, "item_id": 1, "type": "view"});
    fixture
        .post("/events", &gone)
        .is_problem(400, Some("item_id"));
}

#[test]
fn a_store_that_hangs_or_dies_is_said_at_once_and_comes_back() {
    let valkey = Valkey::start().unwrap();
    popularity::write(&mut connect(&valkey, 3), Set::Global, &[(11, 10), (12, 5)]).unwrap();
    let fixture = start(&valkey);
    fixture.until("/popular", |answer| answer.json["items"][0]["id"] == 11);
    valkey.freeze().unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let answer = fixture.post("/events", &event("a"));
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?}",
            start.elapsed()
        );
        answer.is_problem(503, None);
        assert_eq!(answer.header("retry-after"), "1");
    }
    // Triton still answers, without the data from the store.
    let answer = fixture.until("/recommendations", |answer| answer.json["degraded"] == true);
    assert_eq!(
        (&answer.json["reason"], &answer.json["release"]),
        (&"store_unreachable".into(), &"stub".into())
    );
    valkey.thaw().unwrap();
    fixture.until("/recommendations", |answer| {
        answer.json["degraded"] == false
    });
    valkey.kill();
    fixture.until("/health/ready", |answer| answer.status == 503);
    fixture.post("/events", &event("a")).is_problem(503, None);
    fixture
        .ask("DELETE", "/users/1/seen", &[], "")
        .is_problem(503, None);
    // Without the store and Triton, the answer has the last known popular items.
    fixture.stub().delay(Duration::from_secs(5));
    let answer = fixture.get("/recommendations?k=2");
    assert_eq!(answer.json["items"][0]["id"], 11, "{}", answer.text);
    assert_eq!(fixture.get("/popular").json["items"][0]["id"], 11);
    fixture.stub().delay(Duration::ZERO);
    valkey.restart().unwrap();
    fixture.until("/health/ready", |answer| answer.status == 200);
    fixture.until("/recommendations", |answer| {
        answer.json["degraded"] == false
    });
    assert_eq!(fixture.post("/events", &event("z")).status, 202);
}

#[test]
fn without_any_store_there_are_still_items() {
    let fixture = Fixture::start(NO_STORE, |_| ());
    fixture.stub().delay(Duration::from_secs(5));
    let answer = fixture.get("/recommendations?k=4");
    assert_eq!(answer.json["items"].as_array().unwrap().len(), 4);
    assert_eq!(answer.json["degraded"], true);
}
