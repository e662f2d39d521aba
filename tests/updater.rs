//! `saker updater` killed at any instant, fifty times, while events keep coming: each is applied exactly once. And told to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use chrono::NaiveDate;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use saker_contract::Database;
use saker_contract::keys::{self, EVENTS_APPLIED};
use saker_offline::EVENTS;
use saker_offline::OfflineStore;
use saker_prepare::table;
use saker_store::events::{self, Event, Kind, Limits, Published};
use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Value};
use saker_store::seen::bitmap::Filter;
use saker_store::seen::{Method, Prefixes};
use saker_store::{Connection, Pipeline, Reply, Settings, recent};
use saker_testing::valkey::Valkey;

const KILLS: usize = 50;
const EVENTS_PER_SECOND: usize = 1000;
const USERS: i32 = 300;
const TIMEOUT: Duration = Duration::from_secs(10);

struct Shop {
    folder: tempfile::TempDir,
    valkey: Valkey,
}

impl Shop {
    fn new() -> Self {
        let shop = Self {
            folder: tempfile::tempdir().unwrap(),
            valkey: Valkey::start().unwrap(),
        };
        let retail = std::fs::read_to_string("examples/retail/pipeline.toml").unwrap();
        let (features, rest) = retail.split_once("[[item.embeddings]]").unwrap();
        let (_, serving) = rest.split_once("[retrieval]").unwrap();
        std::fs::write(shop.definition(), format!("{features}[retrieval]{serving}")).unwrap();
        let mut generate = saker();
        generate.args(["generate", "retail", "--users", "400", "--items", "120"]);
        generate.args(["--interactions", "20000", "--days", "3", "--out"]);
        done(generate.arg(shop.state().join("retail/source")));
        done(&mut shop.command("prepare"));
        shop
    }

    fn definition(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self, step: &str) -> Command {
        let mut command = saker();
        command.arg(step).arg("--pipeline").arg(self.definition());
        command.arg("--state").arg(self.state());
        command
    }

    fn updater(&self, options: &[&str]) -> Child {
        let mut command = self.command("updater");
        command.args(options);
        command.args(["--claim-after", "0.5", "--offline-every", "0.1"]);
        command.args([
            "--batch",
            "64",
            "--redis-url",
            self.valkey.url(0).trim_end_matches("/0"),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn connect(&self, database: i64) -> Connection {
        let settings = Settings::parse(&self.valkey.url(0), None).unwrap();
        let settings = settings.with_database(database).unwrap();
        Connection::open(&settings.with_bloom_probe()).unwrap()
    }

    /// What each item was counted.
    fn popularity(&self) -> BTreeMap<i32, f64> {
        let words = ["ZRANGE", "trending:global", "0", "-1", "WITHSCORES"];
        let Reply::Array(scores) = ask(&mut self.connect(3), &words) else {
            panic!("no array");
        };
        let number = |reply: &Reply| -> f64 {
            match reply {
                Reply::BulkString(text) => std::str::from_utf8(text).unwrap().parse().unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let pairs = scores.chunks(2);
        pairs
            .map(|pair| (number(&pair[0]) as i32, number(&pair[1])))
            .collect()
    }

    /// Each item's first-level category.
    fn categories(&self) -> BTreeMap<i32, i32> {
        let items = table::read(&self.state().join("retail/data/items.parquet")).unwrap();
        let ids = table::int32s(&items, "item_id").unwrap().to_vec();
        let categories = table::int32s(&items, "category_l1").unwrap().to_vec();
        ids.into_iter().zip(categories).collect()
    }
}

fn saker() -> Command {
    Command::new(env!("CARGO_BIN_EXE_saker"))
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{error}");
}

fn terminate(child: &Child) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
}

fn ask(connection: &mut Connection, words: &[&str]) -> Reply {
    let mut pipeline = Pipeline::new();
    pipeline.keyless(|cmd| {
        words.iter().for_each(|word| {
            cmd.arg(*word);
        });
    });
    connection.run(&pipeline, TIMEOUT).unwrap().remove(0)
}

/// Publishes events until it is told to stop; those that were acknowledged.
fn publish(shop: &Shop, items: &[i32], stop: &AtomicBool) -> Vec<Event> {
    const LOT: usize = 20;
    let mut connection = shop.connect(Database::Activity.number());
    let mut rng = StdRng::seed_from_u64(4);
    let mut acknowledged: Vec<Event> = Vec::new();
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let lot: Vec<Event> = (0..LOT)
            .map(|place| {
                let number = acknowledged.len() + place;
                Event {
                    id: format!("event-{number:07}"),
                    user: rng.random_range(0..USERS),
                    item: items[rng.random_range(0..items.len())],
                    kind: Kind::ALL[number % 4],
                    time_us: 1_790_000_000_000_000 + number as i64 * 1000,
                    device_type: None,
                    traceparent: None,
                }
            })
            .collect();
        let published = events::publish(&lot, Limits::default(), |pipeline, replies| {
            connection.run_until(pipeline, Instant::now() + TIMEOUT, replies)
        });
        for (event, published) in lot.into_iter().zip(published.unwrap()) {
            assert!(matches!(published, Published::Stored(_)));
            acknowledged.push(event);
        }
        let due = Duration::from_secs_f64(acknowledged.len() as f64 / EVENTS_PER_SECOND as f64);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    acknowledged
}

#[test]
fn killed_at_any_instant_it_applies_every_event_once() {
    let shop = Shop::new();
    let categories = shop.categories();
    let items: Vec<i32> = categories.keys().copied().collect();
    let stop = AtomicBool::new(false);
    let mut rng = StdRng::seed_from_u64(1);
    let (mut applied, mut amid) = (0.0, 0);
    let (events, mut last) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(&shop, &items, &stop));
        for _ in 0..KILLS {
            let mut updater = shop.updater(&["--metrics", "off"]);
            // From before its first entry to amid its work.
            std::thread::sleep(Duration::from_millis(rng.random_range(10..700)));
            updater.kill().unwrap();
            updater.wait().unwrap();
            let now: f64 = shop.popularity().values().sum();
            amid += usize::from(now > applied);
            applied = now;
        }
        stop.store(true, Ordering::Relaxed);
        (
            publisher.join().unwrap(),
            shop.updater(&["--metrics", "off"]),
        )
    });
    assert!(amid > KILLS / 2, "only {amid} kills came amid its work");
    assert!(
        events.len() > 2 * EVENTS_PER_SECOND,
        "{} events",
        events.len()
    );

    let mut connection = shop.connect(Database::Activity.number());
    let deadline = Instant::now() + Duration::from_secs(60);
    for stream in [keys::EVENTS, EVENTS_APPLIED] {
        while ask(&mut connection, &["XLEN", stream]) != Reply::Int(0) {
            assert!(Instant::now() < deadline, "{stream} is not worked off");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    terminate(&last);
    assert!(
        last.wait().unwrap().success(),
        "it stops when it is told to"
    );

    // Popularity: what cannot be made twice without being noticed.
    let mut counts: BTreeMap<i32, f64> = BTreeMap::new();
    events
        .iter()
        .for_each(|event| *counts.entry(event.item).or_default() += 1.0);
    assert_eq!(shop.popularity(), counts);

    // History: each acknowledged event once.
    let place = shop.state().join("retail/offline");
    let store = OfflineStore::open(&place.display().to_string()).unwrap();
    let mut written: Vec<String> = Vec::new();
    let mut categorised = 0;
    let days = NaiveDate::MIN..=NaiveDate::MAX;
    store
        .read(EVENTS, days.clone(), |batch| {
            let ids = batch["event_id"].as_string::<i32>().iter().flatten();
            written.extend(ids.map(str::to_owned));
            Ok::<(), saker_offline::Error>(())
        })
        .unwrap();
    store
        .read("user_activity", days, |batch| {
            categorised += batch["top_category"].as_primitive::<Int32Type>().len();
            Ok::<(), saker_offline::Error>(())
        })
        .unwrap();
    let distinct: BTreeSet<&String> = written.iter().collect();
    assert_eq!(distinct.len(), written.len(), "an event was written twice");
    assert_eq!(distinct, events.iter().map(|event| &event.id).collect());
    assert_eq!(categorised, events.len());

    // What its users have seen, and their top category.
    let view = FeatureView::new(
        "my_feast_repo",
        "user_activity",
        "user_id",
        EntityKeyVersion::V3,
        ["top_category"],
    );
    let method = match connection.has_bloom() {
        Some(true) => Method::Server,
        _ => Method::Plain,
    };
    for user in 0..USERS {
        let met: Vec<(i64, i64)> = events
            .iter()
            .filter(|event| event.user == user)
            .map(|event| (event.item.into(), event.time_us))
            .collect();
        let Some(now) = met.iter().map(|&(_, time)| time).max() else {
            continue;
        };
        let mut latest: BTreeMap<i64, i64> = BTreeMap::new();
        met.iter().for_each(|&(item, time)| {
            let known = latest.entry(item).or_insert(time);
            *known = time.max(*known);
        });
        let latest: Vec<(i64, i64)> = latest.into_iter().collect();
        let category = |item: i64| categories.get(&(item as i32)).copied();
        let expected = recent::top_category(&latest, now, category).map(Value::Int32);
        let mut pipeline = Pipeline::new();
        view.read(&EntityId::Int32(user), &mut pipeline);
        let replies = shop.connect(0).run(&pipeline, TIMEOUT).unwrap();
        let row = view.row(&replies[0]).unwrap();
        assert_eq!(
            row.and_then(|row| row.value(0).unwrap()),
            expected,
            "user {user}"
        );
        let key = Prefixes::default().key(method, user.into());
        match method {
            Method::Plain => {
                let Reply::BulkString(bytes) = ask(&mut connection, &["GET", &key]) else {
                    panic!("user {user} has seen nothing");
                };
                let filter = Filter::read(&bytes).unwrap();
                assert!(latest.iter().all(|&(item, _)| filter.contains(item)));
            }
            Method::Server => {
                for (item, _) in &latest {
                    let item = item.to_string();
                    assert_eq!(
                        ask(&mut connection, &["BF.EXISTS", &key, &item]),
                        Reply::Int(1)
                    );
                }
            }
        }
    }
}

/// It says so first, finishes what is under way, and ends within its time even if the store does not answer.
#[test]
fn told_to_stop_it_is_not_ready_and_ends() {
    let shop = Shop::new();
    let items: Vec<i32> = shop.categories().into_keys().collect();
    let address = format!("127.0.0.1:{}", triton_testing::ports::free_port().unwrap());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(2)))
        .build()
        .into();
    let get = |path: &str| -> Option<(u16, String)> {
        let mut response = agent.get(format!("http://{address}{path}")).call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), text))
    };
    let until = |wished: &dyn Fn(&Option<(u16, String)>) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !wished(&get("/health/ready")) {
            assert!(Instant::now() < deadline, "{:?}", get("/health/ready"));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(&shop, &items, &stop));
        let mut updater = shop.updater(&["--metrics", &address, "--drain", "2"]);
        until(&|answer| answer.as_ref().is_some_and(|(status, _)| *status == 200));
        let live = get("/health/live").unwrap();
        assert_eq!(live, (200, r#"{"live":true}"#.to_owned()));
        assert!(get("/metrics").unwrap().1.contains("events_applied_total"));
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let published = publisher.join().unwrap();
        assert!(!published.is_empty());
        shop.valkey.freeze().unwrap();
        let start = Instant::now();
        terminate(&updater);
        until(&|answer| {
            let stopping = |text: &str| text.contains("stopping");
            answer
                .as_ref()
                .is_some_and(|(status, text)| *status == 503 && stopping(text))
        });
        assert!(updater.wait().unwrap().success());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        shop.valkey.thaw().unwrap();

        let mut updater = shop.updater(&["--metrics", "off"]);
        let mut connection = shop.connect(Database::Activity.number());
        let deadline = Instant::now() + Duration::from_secs(60);
        for stream in [keys::EVENTS, EVENTS_APPLIED] {
            while ask(&mut connection, &["XLEN", stream]) != Reply::Int(0) {
                assert!(Instant::now() < deadline, "{stream} is not worked off");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        terminate(&updater);
        assert!(updater.wait().unwrap().success());
        let counted: f64 = shop.popularity().values().sum();
        assert_eq!(counted, published.len() as f64);
    });
}
