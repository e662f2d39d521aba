//! Events through a real Valkey: what becomes of them, once, whatever goes wrong in between.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use chrono::NaiveDate;
use saker_contract::Database;
use saker_contract::keys::{EVENTS_APPLIED, EVENTS_REJECTED};
use saker_offline::{EVENTS, OfflineStore};
use saker_store::events::{self, Event, Kind, Limits, Published};
use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value};
use saker_store::seen::bitmap::{Filter, Geometry};
use saker_store::seen::{Method, Mode, Prefixes};
use saker_store::{Connection, Pipeline, Reply};
use saker_testing::valkey::Valkey;
use saker_updater::item_categories::{Item, ItemCategories};
use saker_updater::offline::{ENTRY, Place};
use saker_updater::{Settings, Updater};

const TIMEOUT: Duration = Duration::from_secs(10);
const NOW: i64 = 1_790_000_000_000_000;
const SECOND: i64 = 1_000_000;
const VIEW: &str = "user_activity";

struct Shop {
    valkey: Valkey,
    offline: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        Self {
            valkey: Valkey::start().unwrap(),
            offline: tempfile::tempdir().unwrap(),
        }
    }

    fn view(&self) -> FeatureView {
        FeatureView::new(
            "shop",
            VIEW,
            "user_id",
            EntityKeyVersion::V3,
            ["top_category"],
        )
    }

    /// Items 10 to 99, of category 1 to 9 by their first digit.
    fn settings(&self, name: &str) -> Settings {
        let item = |id: i32| Item {
            top: Some(id / 10),
            trending: [Some(id / 10), None],
        };
        let items: ItemCategories = (10..100).map(|id| (id, item(id))).collect();
        Settings {
            store: saker_store::Settings::parse(&self.valkey.url(0), None).unwrap(),
            group: "updater".into(),
            name: name.into(),
            workers: 2,
            batch: 64,
            claim_after: Duration::from_millis(300),
            half_life: Some(Duration::from_secs(7 * 86_400)),
            items,
            top_category: Some(self.view()),
            mode: Mode::Auto,
            geometry: Geometry::new(1000, 0.001).unwrap(),
            offline: Some(Place {
                location: self.offline.path().display().to_string(),
                every: Duration::from_millis(50),
                ids: ["user_id".into(), "item_id".into()],
                top_category: Some((VIEW.into(), "top_category".into())),
            }),
            drain: Settings::DRAIN,
            traces: saker_traces::Traces::off(),
        }
    }

    fn connect(&self, database: i64) -> Connection {
        let settings = saker_store::Settings::parse(&self.valkey.url(0), None).unwrap();
        let settings = settings.with_database(database).unwrap();
        Connection::open(&settings.with_bloom_probe()).unwrap()
    }

    fn ask(&self, database: i64, text: &str) -> Reply {
        let mut pipeline = Pipeline::new();
        pipeline.keyless(|cmd| {
            text.split(' ').for_each(|word| {
                cmd.arg(word);
            });
        });
        self.connect(database)
            .run(&pipeline, TIMEOUT)
            .unwrap()
            .remove(0)
    }

    fn publish(&self, events: &[Event]) {
        let mut connection = self.connect(Database::Activity.number());
        let published = events::publish(events, Limits::default(), |pipeline, replies| {
            connection.run_until(pipeline, Instant::now() + TIMEOUT, replies)
        });
        let stored = |published: &Published| matches!(published, Published::Stored(_));
        assert!(published.unwrap().iter().all(stored));
    }

    fn offline(&self, view: &str) -> Vec<RecordBatch> {
        let store = OfflineStore::open(&self.offline.path().display().to_string()).unwrap();
        let mut batches = Vec::new();
        store
            .read(view, NaiveDate::MIN..=NaiveDate::MAX, |batch| {
                batches.push(batch);
                Ok::<(), saker_offline::Error>(())
            })
            .unwrap();
        batches
    }

    /// Ids of the events in the offline store, sorted.
    fn written(&self) -> Vec<String> {
        let batches = self.offline(EVENTS);
        let mut ids: Vec<String> = batches
            .iter()
            .flat_map(|batch| batch["event_id"].as_string::<i32>().iter().flatten())
            .map(str::to_owned)
            .collect();
        ids.sort();
        ids
    }

    fn top_category(&self, user: i32) -> Option<Value> {
        let view = self.view();
        let mut pipeline = Pipeline::new();
        view.read(&EntityId::Int32(user), &mut pipeline);
        let replies = self.connect(0).run(&pipeline, TIMEOUT).unwrap();
        let row = view.row(&replies[0]).unwrap()?;
        row.value(0).unwrap()
    }

    fn has_seen(&self, user: i32, item: i64) -> bool {
        let has_bloom = self.connect(1).has_bloom();
        match Mode::Auto.method(has_bloom).unwrap() {
            Method::Server => {
                self.ask(1, &format!("BF.EXISTS bf:seen:{user} {item}")) == Reply::Int(1)
            }
            Method::Plain => {
                let key = Prefixes::default().key(Method::Plain, user.into());
                match self.ask(1, &format!("GET {key}")) {
                    Reply::BulkString(bytes) => Filter::read(&bytes).unwrap().contains(item),
                    _ => false,
                }
            }
        }
    }

    fn score(&self, set: &str, item: i64) -> f64 {
        match self.ask(3, &format!("ZSCORE {set} {item}")) {
            Reply::BulkString(score) => String::from_utf8(score).unwrap().parse().unwrap(),
            _ => 0.0,
        }
    }
}

fn event(number: usize, user: i32, item: i32, time_us: i64) -> Event {
    Event {
        id: format!("event-{number:06}"),
        user,
        item,
        kind: Kind::Click,
        time_us,
        device_type: number.is_multiple_of(2).then_some(1),
        traceparent: None,
    }
}

/// Waits until so many events are applied and trimmed, and stops the updater, which writes what is left.
fn finish(shop: &Shop, updater: Updater, applied: u64) {
    let counters = updater.counters();
    let deadline = Instant::now() + Duration::from_secs(30);
    while counters.applied.load(Ordering::Relaxed) + counters.rejected.load(Ordering::Relaxed)
        < applied
    {
        assert!(Instant::now() < deadline, "{counters:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Housekeeping comes by every second.
    while shop.ask(1, "XLEN events") != Reply::Int(0) {
        assert!(Instant::now() < deadline, "what is applied is not trimmed");
        std::thread::sleep(Duration::from_millis(5));
    }
    updater.stop();
}

#[test]
fn an_event_becomes_seen_recent_popular_and_history() {
    let shop = Shop::new();
    shop.publish(&[
        event(1, 7, 21, NOW),
        event(2, 7, 31, NOW + SECOND),
        event(3, 7, 32, NOW + 2 * SECOND),
        event(4, 8, 41, NOW),
        // A visitor without an id.
        event(5, -1, 21, NOW),
        // An item that the shop does not have.
        event(6, 8, 7, NOW + SECOND),
    ]);
    finish(&shop, Updater::start(shop.settings("a")).unwrap(), 6);

    assert!(shop.has_seen(7, 21) && shop.has_seen(7, 32) && shop.has_seen(8, 7));
    assert_eq!(shop.ask(1, "ZCARD user:8:recent_items"), Reply::Int(1));
    assert!(!shop.has_seen(7, 41) && !shop.has_seen(-1, 21));
    assert_eq!(shop.top_category(7), Some(Value::Int32(3)));
    assert_eq!(shop.top_category(8), Some(Value::Int32(4)));
    assert_eq!(shop.top_category(-1), None);
    assert_eq!(shop.ask(1, "ZCARD user:7:recent_items"), Reply::Int(3));
    assert_eq!(shop.ask(1, "ZCARD user:-1:recent_items"), Reply::Int(0));
    assert_eq!(shop.score("trending:global", 21), 2.0);
    assert_eq!(shop.score("trending:cat_l1:3", 32), 1.0);
    assert_eq!(
        shop.score("trending:global", 7),
        0.0,
        "an unknown item is not popular"
    );
    let Reply::Int(seconds) = shop.ask(1, "TTL user:7:recent_items") else {
        panic!("no time to live");
    };
    assert!((604_700..=604_800).contains(&seconds));

    assert_eq!(shop.written().len(), 6);
    let categories: Vec<(i32, i32)> = shop
        .offline(VIEW)
        .iter()
        .flat_map(|batch| {
            let column = |name: &str| batch[name].as_primitive::<Int32Type>().values().to_vec();
            column("user_id").into_iter().zip(column("top_category"))
        })
        .collect();
    let of_7: Vec<i32> = categories
        .iter()
        .filter(|row| row.0 == 7)
        .map(|row| row.1)
        .collect();
    // A tie goes to the category seen last.
    assert_eq!(of_7, [2, 3, 3]);
    assert_eq!(
        shop.ask(1, &format!("XLEN {EVENTS_APPLIED}")),
        Reply::Int(0)
    );
}

#[test]
fn a_new_catalogue_is_that_of_the_events_taken_from_then_on() {
    let shop = Shop::new();
    let updater = Updater::start(shop.settings("a")).unwrap();
    let counters = updater.counters();
    let applied = |count: u64| {
        let deadline = Instant::now() + TIMEOUT;
        while counters.applied.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "{counters:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    shop.publish(&[event(1, 7, 21, NOW), event(2, 7, 31, NOW)]);
    applied(2);
    // Item 21 moves to category 8, 31 is gone, and 300 is new.
    let item = |category| Item {
        top: Some(category),
        trending: [Some(category), None],
    };
    updater.replace_items([(21, item(8)), (300, item(9))].into_iter().collect());
    shop.publish(&[
        event(3, 7, 21, NOW + SECOND),
        event(4, 8, 31, NOW + SECOND),
        event(5, 8, 300, NOW + SECOND),
    ]);
    finish(&shop, updater, 5);
    assert_eq!(shop.score("trending:global", 21), 2.0);
    assert_eq!(shop.score("trending:cat_l1:2", 21), 1.0);
    assert_eq!(shop.score("trending:cat_l1:8", 21), 1.0);
    assert_eq!(shop.score("trending:global", 31), 1.0, "before it was gone");
    assert_eq!(shop.score("trending:cat_l1:9", 300), 1.0);
    assert!(shop.has_seen(8, 31) && shop.has_seen(8, 300));
    assert_eq!(shop.top_category(7), Some(Value::Int32(8)));
    assert_eq!(shop.top_category(8), Some(Value::Int32(9)));
    assert_eq!(shop.written().len(), 5);
}

/// Every event counts once, in the categories that one of the catalogues gives its item, however often they change meanwhile.
#[test]
fn events_count_once_while_catalogues_change() {
    const COUNT: usize = 3000;
    let shop = Shop::new();
    let of = |shift: i32| -> ItemCategories {
        let item = |id: i32| Item {
            top: Some(id / 10 + shift),
            trending: [Some(id / 10 + shift), Some(shift)],
        };
        (10..100).map(|id| (id, item(id))).collect()
    };
    let events: Vec<Event> = (0..COUNT)
        .map(|number| {
            let item = 10 + (number * 7 % 90) as i32;
            event(number, (number % 50) as i32, item, NOW + number as i64)
        })
        .collect();
    shop.publish(&events);
    let mut settings = shop.settings("a");
    settings.items = of(0);
    let updater = Updater::start(settings).unwrap();
    let counters = updater.counters();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut changes = 0;
    while counters.applied.load(Ordering::Relaxed) < COUNT as u64 {
        assert!(Instant::now() < deadline, "{counters:?}");
        updater.replace_items(of(100 * (changes % 2)));
        changes += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(changes > 2, "{changes} changes");
    finish(&shop, updater, COUNT as u64);
    let mut counted = [0.0, 0.0];
    for id in 10..100 {
        for (count, shift) in counted.iter_mut().zip([0, 100]) {
            let first = shop.score(&format!("trending:cat_l1:{}", id / 10 + shift), id.into());
            let second = shop.score(&format!("trending:cat_l2:{shift}"), id.into());
            assert_eq!(first, second, "item {id} with {shift}");
            *count += first;
        }
    }
    assert_eq!(counted.iter().sum::<f64>(), COUNT as f64, "{counted:?}");
}

#[test]
fn an_entry_that_cannot_be_read_is_put_aside_and_holds_nothing_up() {
    let shop = Shop::new();
    shop.ask(1, "XADD events * user_id 7");
    shop.ask(
        1,
        "XADD events * event_id x user_id 7 item_id 21 type click timestamp_us 9223372036854775807",
    );
    // A key of another type is that user's misfortune alone.
    shop.ask(1, "SET user:9:recent_items text");
    shop.publish(&[event(1, 9, 21, NOW), event(2, 7, 21, NOW)]);
    finish(&shop, Updater::start(shop.settings("a")).unwrap(), 4);
    assert!(shop.has_seen(7, 21));
    assert_eq!(shop.score("trending:global", 21), 1.0);
    let aside = format!(
        "{:?}",
        shop.ask(1, &format!("XRANGE {EVENTS_REJECTED} - +"))
    );
    let text = |what: &str| {
        let bytes: Vec<String> = what.bytes().map(|byte| byte.to_string()).collect();
        aside.contains(what) || aside.contains(&bytes.join(", "))
    };
    for reason in [
        "no field event_id",
        "9223372036854775807",
        "WRONGTYPE",
        "event-000001",
    ] {
        assert!(text(reason), "{reason} in {aside}");
    }
}

/// Each is more than a script can pass on at once, and stands before an event that is to be applied all the same.
#[test]
fn batches_of_any_size_are_applied_once() {
    const COUNT: usize = 9000;
    let shop = Shop::new();
    let mut settings = shop.settings("a");
    (settings.batch, settings.workers) = (10_000, 1);
    // A busy guest id, then a busy user, then a user like any other.
    for (lot, user) in [(0, -1), (1, 7)] {
        let events: Vec<Event> = (0..COUNT)
            .map(|number| {
                let item = 10 + (number % 90) as i32;
                event(lot * COUNT + number, user, item, NOW + number as i64 * 1000)
            })
            .collect();
        shop.publish(&events);
    }
    shop.publish(&[event(2 * COUNT, 8, 21, NOW)]);
    let applied = 2 * COUNT + 1;
    finish(&shop, Updater::start(settings).unwrap(), applied as u64);
    let counted: f64 = (10..100)
        .map(|item| shop.score("trending:global", item))
        .sum();
    assert_eq!(counted, applied as f64);
    assert_eq!(shop.written().len(), applied);
    assert_eq!(shop.ask(1, "ZCARD user:7:recent_items"), Reply::Int(90));
    assert!(shop.has_seen(7, 10) && shop.has_seen(7, 99) && shop.has_seen(8, 21));
    assert_eq!(
        shop.ask(1, &format!("XLEN {EVENTS_REJECTED}")),
        Reply::Int(0)
    );
}

/// One kind of fault after the other, each before an event of another user.
#[test]
fn what_can_never_be_applied_is_put_aside_whatever_is_wrong_with_it() {
    let shop = Shop::new();
    let run = |words: &[&[u8]]| {
        let mut pipeline = Pipeline::new();
        pipeline.keyless(|cmd| {
            words.iter().for_each(|word| {
                cmd.arg(*word);
            });
        });
        let mut connection = shop.connect(Database::Activity.number());
        connection.run(&pipeline, TIMEOUT).unwrap().remove(0)
    };
    // Entries that are no events: of too many fields, of a huge one, of bytes that are not text.
    let many: Vec<String> = (0..8000).map(|place| format!("field-{place}")).collect();
    let mut words: Vec<&[u8]> = vec![b"XADD", b"events", b"*"];
    words.extend(many.iter().map(String::as_bytes));
    run(&words);
    let huge = vec![b'x'; 5 << 20];
    run(&[b"XADD", b"events", b"*", b"event_id", &huge]);
    run(&[b"XADD", b"events", b"*", &[0xff, 0xfe], &[0x80]]);
    // Users whose keys hold something else, in every key that is written.
    let now = NOW.to_string();
    let seen = |user: i64| {
        let method = Mode::Auto.method(shop.connect(1).has_bloom()).unwrap();
        Prefixes::default().key(method, user)
    };
    run(&[
        b"ZADD",
        b"user:20:recent_items",
        now.as_bytes(),
        &[0xff, 0xfe],
    ]);
    run(&[b"ZADD", b"user:21:recent_items", now.as_bytes(), b"shoe"]);
    run(&[b"RPUSH", b"user:23:recent_items", b"21"]);
    run(&[b"RPUSH", seen(24).as_bytes(), b"21"]);
    run(&[b"SET", seen(25).as_bytes(), b"not a filter"]);
    let words = shop
        .view()
        .write(&EntityId::Int32(26), &[None], Timestamp::from_micros(NOW));
    let key = words.unwrap()[1].clone();
    let mut online = shop.connect(0);
    let mut pipeline = Pipeline::new();
    pipeline.keyless(|cmd| {
        cmd.arg("SET").arg(key).arg("text");
    });
    online.run(&pipeline, TIMEOUT).unwrap();

    let broken = [20, 21, 23, 24, 25, 26];
    let mut number = 0;
    for user in broken.into_iter().chain([7]) {
        let of_user: Vec<Event> = (0..3)
            .map(|place| event(number + place, user, 21, NOW + place as i64))
            .collect();
        number += of_user.len();
        shop.publish(&of_user);
    }
    let updater = Updater::start(shop.settings("a")).unwrap();
    let counters = updater.counters();
    finish(&shop, updater, 3 + number as u64);
    assert_eq!(counters.failures.load(Ordering::Relaxed), 0);
    assert_eq!(counters.applied.load(Ordering::Relaxed), 3);
    assert_eq!(shop.score("trending:global", 21), 3.0, "of user 7 alone");
    let aside = 3 + 3 * broken.len() as i64;
    assert_eq!(
        shop.ask(1, &format!("XLEN {EVENTS_REJECTED}")),
        Reply::Int(aside)
    );
}

#[test]
fn a_store_that_is_full_loses_nothing() {
    let shop = Shop::new();
    shop.publish(&[event(1, 7, 21, NOW), event(2, 7, 22, NOW)]);
    shop.ask(1, "CONFIG SET maxmemory-policy noeviction");
    shop.ask(1, "CONFIG SET maxmemory 1");
    assert!(matches!(
        events::publish(&[event(3, 7, 23, NOW)], Limits::default(), |pipeline, replies| {
            shop.connect(1).run_until(pipeline, Instant::now() + TIMEOUT, replies)
        }),
        Err(error) if error.is_out_of_memory()
    ));
    let updater = Updater::start(shop.settings("a")).unwrap();
    let counters = updater.counters();
    let deadline = Instant::now() + TIMEOUT;
    while counters.failures.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < deadline, "{counters:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(counters.applied.load(Ordering::Relaxed), 0);
    assert_eq!(shop.ask(1, "XLEN events"), Reply::Int(2));
    shop.ask(1, "CONFIG SET maxmemory 0");
    finish(&shop, updater, 2);
    assert_eq!(counters.rejected.load(Ordering::Relaxed), 0);
    assert_eq!(shop.written().len(), 2);
}

#[test]
fn what_was_applied_when_it_stops_is_history() {
    let shop = Shop::new();
    let mut written = 0;
    for round in 0..5 {
        let events: Vec<Event> = (0..2000)
            .map(|number| event(round * 2000 + number, number as i32 % 200, 21, NOW))
            .collect();
        shop.publish(&events);
        let mut settings = shop.settings("a");
        settings.offline.as_mut().unwrap().every = Duration::from_secs(600);
        let updater = Updater::start(settings).unwrap();
        let counters = updater.counters();
        let deadline = Instant::now() + TIMEOUT;
        while counters.applied.load(Ordering::Relaxed) == 0 {
            assert!(Instant::now() < deadline, "{counters:?}");
        }
        // Amid its work.
        updater.stop();
        written += counters.applied.load(Ordering::Relaxed);
        assert_eq!(
            shop.ask(1, &format!("XLEN {EVENTS_APPLIED}")),
            Reply::Int(0)
        );
        assert_eq!(shop.written().len() as u64, written);
    }
}

/// A store that hangs amid the work does not keep it from ending, and nothing is lost.
#[test]
fn it_stops_within_its_time_and_loses_nothing() {
    const COUNT: usize = 4000;
    let shop = Shop::new();
    let events: Vec<Event> = (0..COUNT)
        .map(|number| event(number, number as i32 % 400, 21, NOW))
        .collect();
    shop.publish(&events);
    let mut settings = shop.settings("a");
    settings.drain = Duration::from_secs(1);
    let updater = Updater::start(settings.clone()).unwrap();
    let (counters, readiness) = (updater.counters(), updater.readiness());
    let deadline = Instant::now() + TIMEOUT;
    while counters.applied.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < deadline, "{counters:?}");
    }
    // One of its workers may not be connected yet.
    assert_ne!(readiness.check(), Err("stopping".into()));
    shop.valkey.freeze().unwrap();
    let start = Instant::now();
    let stopping = std::thread::spawn(|| updater.stop());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(readiness.check(), Err("stopping".into()), "at first");
    assert!(!stopping.is_finished(), "a batch is under way");
    stopping.join().unwrap();
    let took = start.elapsed();
    // A store that hangs would hold it up for ten seconds.
    let expected = Duration::from_millis(900)..Duration::from_secs(8);
    assert!(expected.contains(&took), "{took:?}");
    shop.valkey.thaw().unwrap();

    let updater = Updater::start(settings).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while shop.score("trending:global", 21) < COUNT as f64 {
        assert!(Instant::now() < deadline, "{:?}", updater.counters());
        std::thread::sleep(Duration::from_millis(10));
    }
    while shop.ask(1, "XLEN events") != Reply::Int(0) {
        assert!(Instant::now() < deadline, "what is applied is not trimmed");
        std::thread::sleep(Duration::from_millis(10));
    }
    updater.stop();
    assert_eq!(shop.score("trending:global", 21), COUNT as f64);
    let written = shop.written();
    assert_eq!(written.len(), COUNT);
    assert!(written.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn it_is_ready_while_the_store_answers() {
    let shop = Shop::new();
    let updater = Updater::start(shop.settings("a")).unwrap();
    let readiness = updater.readiness();
    let until = |wished: bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while readiness.check().is_ok() != wished {
            assert!(Instant::now() < deadline, "{:?}", readiness.check());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until(true);
    shop.valkey.kill();
    until(false);
    let why = readiness.check().unwrap_err();
    assert!(why.contains("no connection to the store"), "{why}");
    shop.valkey.restart().unwrap();
    until(true);
    updater.stop();
    assert_eq!(readiness.check(), Err("stopping".into()));
}

#[test]
fn what_a_dead_worker_took_is_claimed() {
    let shop = Shop::new();
    shop.publish(&[event(1, 7, 21, NOW), event(2, 7, 22, NOW)]);
    shop.ask(1, "XGROUP CREATE events updater 0");
    shop.ask(1, "XREADGROUP GROUP updater dead-0 STREAMS events >");
    let updater = Updater::start(shop.settings("a")).unwrap();
    let counters = updater.counters();
    finish(&shop, updater, 2);
    assert_eq!(counters.claimed.load(Ordering::Relaxed), 2);
    assert_eq!(shop.score("trending:global", 21), 1.0);
    assert_eq!(shop.written().len(), 2);
}

#[test]
fn several_updaters_and_other_writers_count_every_event_once() {
    const COUNT: usize = 3000;
    let shop = Shop::new();
    let updaters: Vec<Updater> = ["a", "b", "c"]
        .iter()
        .map(|name| Updater::start(shop.settings(name)).unwrap())
        .collect();
    // Few users, so that workers get in each other's way; and an event writer of another make beside them.
    let events: Vec<Event> = (0..COUNT)
        .map(|number| {
            let item = 10 + (number * 7 % 90) as i32;
            event(
                number,
                (number % 5) as i32,
                item,
                NOW + number as i64 * 1000,
            )
        })
        .collect();
    for (lot, events) in events.chunks(50).enumerate() {
        shop.publish(events);
        shop.ask(
            1,
            &format!("ZADD user:{}:recent_items {} 55", lot % 5, NOW - SECOND),
        );
    }
    let applied = || -> u64 {
        let of = |updater: &Updater| updater.counters().applied.load(Ordering::Relaxed);
        updaters.iter().map(of).sum()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while applied() < COUNT as u64 {
        assert!(Instant::now() < deadline, "{} applied", applied());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(applied(), COUNT as u64);
    updaters.into_iter().for_each(Updater::stop);
    let counted: f64 = (10..100)
        .map(|item| shop.score("trending:global", item))
        .sum();
    assert_eq!(counted, COUNT as f64);
    let written = shop.written();
    assert_eq!(written.len(), COUNT, "each event once in the offline store");
    assert!(written.windows(2).all(|pair| pair[0] < pair[1]));
    for batch in shop.offline(EVENTS) {
        let entries: Vec<&str> = batch[ENTRY].as_string::<i32>().iter().flatten().collect();
        assert!(entries.is_sorted());
    }
}

#[test]
fn a_valkey_that_goes_away_comes_back_to_the_same_counts() {
    let shop = Shop::new();
    let updater = Updater::start(shop.settings("a")).unwrap();
    shop.publish(&[event(1, 7, 21, NOW)]);
    shop.valkey.freeze().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    shop.valkey.thaw().unwrap();
    shop.publish(&[event(2, 7, 22, NOW)]);
    finish(&shop, updater, 2);
    assert_eq!(shop.score("trending:global", 22), 1.0);
}

#[test]
fn popularity_fades_by_the_hour() {
    let shop = Shop::new();
    shop.ask(3, "ZADD trending:global 8 21 0.001 22");
    // As if it had faded last a half-life ago.
    let hour = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        / 3600;
    shop.ask(3, &format!("SET trending:faded {}", hour - 7 * 24));
    let updater = Updater::start(shop.settings("a")).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while shop.score("trending:global", 21) == 8.0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    updater.stop();
    // The hour may have turned meanwhile.
    let faded = shop.score("trending:global", 21);
    assert!((3.9..=4.0).contains(&faded), "{faded}");
    assert_eq!(shop.score("trending:global", 22), 0.0, "forgotten");
}
