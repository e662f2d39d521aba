//! What a cluster's session reads, sorts and counts is, file by file, what this machine prepares. The session here is DataFusion's own, in
//! this process; `scripts/compare-ballista` does the same with Ballista.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int8Array, Int32Array, Int64Array, StringArray,
    TimestampMillisecondArray, UInt32Array,
};
use proptest::prelude::*;
use saker_bulk::plan::SessionContext;
use saker_bulk::{Engine, Settings};
use saker_pipeline::Pipeline;
use saker_prepare::{Summary, table};
use saker_serving::layout::Layout;

const DEFINITION: &str = r#"
[pipeline]
name = "shop"

[data]
format = "parquet"
users.path = "users.parquet"
items.path = "items.parquet"

[data.interactions]
path = "events"
timestamp = "at"
unit = "ms"
rating = "kind"
ratings = { view = 1, cart = 3, buy = 5 }
missing_rating = 2
positive_from = 3

[split]
SPLIT

[user]
id = "user_id"
columns = [
    { name = "age", default = "mean" },
    { name = "top_genre", derive = { from = "top_of_recent", column = "genre", hours = 1 }, view = "live" },
    { name = "visits", derive = { from = "interaction_count" } },
]
features = [
    { name = "user_id", operators = [{ op = "Categorify" }] },
    { name = "age_norm", columns = ["age"], operators = [{ op = "Normalize" }] },
    { name = "top_genre", operators = [{ op = "Categorify" }] },
]

[context]
columns = [{ name = "device" }, { name = "shop" }, { name = "timestamp", default = "now" }]
features = [
    { name = "device", operators = [{ op = "Categorify" }] },
    { name = "shop", operators = [{ op = "Categorify" }] },
    { name = "hour", columns = ["timestamp"], operators = [{ op = "LambdaOp", function = "hour" }] },
]

[item]
id = "item_id"
title = "title"
columns = [
    { name = "title", type = "text" },
    { name = "genre" },
    { name = "price", type = "float32", default = "mean" },
]
features = [
    { name = "item_id", operators = [{ op = "Categorify", padding = -1 }] },
    { name = "genre", operators = [{ op = "Categorify" }] },
    { name = "price_norm", columns = ["price"], operators = [{ op = "Normalize" }] },
]
"#;

/// A user, an item, milliseconds, a kind, a device; users and items of 5 and more are in no table.
type Event = (Option<i32>, i32, i64, Option<&'static str>, Option<i8>);

const USERS: i32 = 5;
const ITEMS: i32 = 5;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    table::write(path, &table::table(columns).unwrap()).unwrap();
}

/// Tables of users and items, and the events of each file, which Hive's folders say the shop of.
fn source(folder: &Path, split: &str, files: &[Vec<Event>]) -> Pipeline {
    let int32 = |values: Vec<i32>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
    let ages = (0..USERS).map(|user| (user != 2).then_some(20 + user));
    write(
        &folder.join("users.parquet"),
        vec![
            ("user_id", int32((0..USERS).rev().collect())),
            ("age", Arc::new(Int32Array::from_iter(ages))),
        ],
    );
    let titles = (0..ITEMS).map(|item| format!("film {item}"));
    let prices = (0..ITEMS).map(|item| (item != 3).then_some(f64::from(item) / 2.0));
    write(
        &folder.join("items.parquet"),
        vec![
            ("item_id", int32((0..ITEMS).collect())),
            ("title", Arc::new(StringArray::from_iter_values(titles))),
            ("genre", int32((0..ITEMS).map(|item| item % 3).collect())),
            ("price", Arc::new(Float64Array::from_iter(prices))),
        ],
    );
    for (file, events) in files.iter().enumerate() {
        let users = events.iter().map(|event| event.0);
        // Widths of ids may differ from file to file.
        let users: ArrayRef = match file % 2 {
            0 => Arc::new(Int64Array::from_iter(users.map(|user| user.map(i64::from)))),
            _ => Arc::new(UInt32Array::from_iter(
                users.map(|user| user.map(|user| user as u32)),
            )),
        };
        let items: Vec<i32> = events.iter().map(|event| event.1).collect();
        let times = events.iter().map(|event| event.2);
        let kinds: StringArray = events.iter().map(|event| event.3).collect();
        let devices = events.iter().map(|event| event.4);
        write(
            &folder.join(format!("events/shop={}/{file}.parquet", file / 2)),
            vec![
                ("device", Arc::new(Int8Array::from_iter(devices))),
                ("user_id", users),
                ("item_id", int32(items)),
                (
                    "at",
                    Arc::new(TimestampMillisecondArray::from_iter_values(times)),
                ),
                ("kind", Arc::new(kinds)),
            ],
        );
    }
    let definition = folder.join("pipeline.toml");
    fs::write(&definition, DEFINITION.replace("SPLIT", split)).unwrap();
    Pipeline::load(&definition).unwrap()
}

/// Every file below a folder with its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn prepare(
    pipeline: &Pipeline,
    state: &Path,
    cluster: Option<SessionContext>,
) -> anyhow::Result<(Summary, BTreeMap<PathBuf, Vec<u8>>)> {
    let layout = Layout::new(state, "shop");
    let settings = Settings {
        threads: 2,
        ..Settings::default()
    };
    let summary = saker_prepare::prepare(pipeline, &layout, settings, cluster)?;
    saker_prepare::complete(&layout)?;
    Ok((summary, content(layout.root())))
}

fn session() -> SessionContext {
    SessionContext::new_with_config(Engine::configuration().with_target_partitions(3))
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec![
        Some("view"),
        Some("cart"),
        Some("buy"),
        Some("scroll"),
        None,
    ]);
    // Few seconds, so that many events share one; and two days.
    let time = (0i64..12, 0i64..3).prop_map(|(quarter, part)| quarter * 4 * 3_600_000 + part * 400);
    let user = prop_oneof![9 => (0..USERS + 1).prop_map(Some), 1 => Just(None)];
    (user, 0..ITEMS + 1, time, kind, prop::option::of(0i8..3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_clusters_files_are_this_machines(
        files in prop::collection::vec(prop::collection::vec(event(), 0..60), 1..5),
        by_days in any::<bool>(),
    ) {
        let split = match by_days {
            true => "by = \"days\"\ntest_days = 1\nvalidation_days = 0",
            false => "by = \"user\"",
        };
        let scratch = tempfile::tempdir().unwrap();
        let pipeline = source(scratch.path(), split, &files);
        let local = prepare(&pipeline, &scratch.path().join("local"), None);
        let cluster = prepare(&pipeline, &scratch.path().join("cluster"), Some(session()));
        match (local, cluster) {
            (Ok((summary, files)), Ok((of_cluster, cluster_files))) => {
                prop_assert_eq!(summary, of_cluster);
                prop_assert!(files.contains_key(Path::new("data/interactions.parquet")));
                let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
                prop_assert_eq!(names(&files), names(&cluster_files));
                for (name, content) in files {
                    prop_assert!(content == cluster_files[&name], "{} differs", name.display());
                }
            }
            (Err(local), Err(cluster)) => {
                prop_assert_eq!(format!("{local:#}"), format!("{cluster:#}"));
            }
            (local, cluster) => prop_assert!(false, "{:?}, {:?}", local.err(), cluster.err()),
        }
    }
}

/// The last event that is kept may be long before the last one of all.
#[test]
fn days_end_with_the_last_event_that_is_kept() {
    let day = 24 * 3_600_000;
    let stranger = |at| (Some(USERS), 0, at, Some("view"), None);
    let mut events: Vec<Event> = (0..3000).map(|event| stranger(9 * day + event)).collect();
    events.extend([0, 1, 2].map(|of| (Some(1), of, i64::from(of) * day, Some("buy"), Some(1))));
    let scratch = tempfile::tempdir().unwrap();
    let split = "by = \"days\"\ntest_days = 1\nvalidation_days = 1";
    let pipeline = source(scratch.path(), split, &[events]);
    let (summary, _) = prepare(&pipeline, &scratch.path().join("state"), Some(session())).unwrap();
    assert_eq!((summary.events, summary.dropped), ([1, 1, 1], 3000));
}

/// What a cluster would sort in another order than this machine is refused.
#[test]
fn types_that_a_cluster_cannot_sort_by_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let events = vec![(Some(1), 1, 1000, Some("view"), Some(1)); 3];
    let pipeline = source(
        scratch.path(),
        "by = \"user\"",
        std::slice::from_ref(&events),
    );
    let path = scratch.path().join("events/shop=0/0.parquet");
    let rows = table::read(&path).unwrap();
    let with = |name: &'static str, column: ArrayRef| {
        let columns = rows.schema();
        let columns = columns.fields().iter().zip(rows.columns());
        let columns = columns.map(|(field, values)| match field.name() == name {
            true => (name, ArrayRef::clone(&column)),
            false => (field.name().as_str(), ArrayRef::clone(values)),
        });
        table::table(columns.collect()).unwrap()
    };
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "1", "1"]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1000, 1000, 1000]));
    let error = |rows| {
        table::write(&path, &rows).unwrap();
        let prepared = prepare(&pipeline, &scratch.path().join("state"), Some(session()));
        format!("{:#}", prepared.unwrap_err())
    };
    let refused = error(with("user_id", Arc::clone(&texts)));
    assert!(
        refused
            .contains("column user_id is Utf8; a cluster sorts by it, and accepted are integers"),
        "{refused}"
    );
    let refused = error(with("at", texts));
    assert!(
        refused.contains("column at is Utf8") && refused.contains("timestamps and dates"),
        "{refused}"
    );
    let second = scratch.path().join("events/shop=0/1.parquet");
    table::write(&second, &rows).unwrap();
    let refused = error(with("at", numbers));
    assert!(
        refused.contains("a cluster reads columns of one type") && refused.contains("1.parquet"),
        "{refused}"
    );
}
