//! Preparing a small shop: what is written, and what an error says.

mod tables;
mod values;

use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use saker::code::CODE;
use saker_bulk::Settings;
use saker_dataset::{features, prepare};
use saker_pipeline::Pipeline;
use saker_prepare::table;
use saker_serving::layout::{Layout, Schema};
use saker_train::data::Split;

const DEFINITION: &str = r#"
[pipeline]
name = "shop"

[data]
format = "atomic"
users.path = "shop.user"
items = { path = "shop.item", id = "sku" }
interactions = { path = "shop.inter", item = "sku", rating = "stars", positive_from = 3 }

[user]
id = "user_id"
columns = [
    { name = "age", default = "mean" },
    { name = "city", codes = "value" },
    { name = "top_genre", derive = { from = "top_of_recent", column = "genre", last = 3 } },
]
features = [
    { name = "user_id", operators = [{ op = "Categorify" }] },
    { name = "age_norm", columns = ["age"], operators = [{ op = "Normalize" }] },
    { name = "city", operators = [{ op = "Categorify" }] },
    { name = "top_genre", operators = [{ op = "Categorify" }] },
]

[context]
columns = [{ name = "device_type" }, { name = "timestamp", default = "now" }]
features = [
    { name = "hour_sine", columns = ["timestamp"], operators = [
        { op = "LambdaOp", function = "hour" },
        { op = "LambdaOp", function = "sine", period = 24.0 },
    ] },
]

[item]
id = "item_id"
title = "title"
columns = [
    { name = "title", type = "text" },
    { name = "genre", source = "words", codes = "first" },
    { name = "genres", source = "words", codes = "set" },
    { name = "year", empty = ["unknown"] },
    { name = "price", type = "float32", default = "mean" },
    { name = "popularity", derive = { from = "interaction_count" } },
]
features = [
    { name = "item_id", operators = [{ op = "Categorify", padding = -1 }], embedding_dim = 4 },
    { name = "genre", operators = [{ op = "Categorify" }] },
    { name = "popularity_norm", columns = ["popularity"], operators = [{ op = "LogOp" }, { op = "Normalize" }] },
]

[[item.embeddings]]
name = "vectors"
dim = 2
source = { from = "file", path = "vectors.npy" }
"#;

const USERS: &str = "user_id:token\tage:token\tcity:token\n\
    7\t30\tUlm\n3\t20\tBonn\n9\t\tUlm\n";

const ITEMS: &str = "sku:token\ttitle:token_seq\twords:token_seq\tyear:token\tprice:float\n\
    30\tLate\tWar Drama\t2001\t3.5\n10\tEarly\tDrama War\tunknown\t\n20\tNever\tComedy\t1999\t9\n";

/// User 7 has ten events, user 3 three, user 9 one; one event is of an item that the shop does not have.
fn interactions() -> String {
    let mut text = "user_id:token\tsku:token\tstars:float\ttimestamp:float\n".to_owned();
    for hour in (0..10).rev() {
        let (sku, stars) = if hour % 2 == 0 { (10, 5) } else { (30, 2) };
        text += &format!("7\t{sku}\t{stars}\t{}\n", hour * 3600);
    }
    text += "3\t10\t4\t7200\n3\t30\t4\t3600\n3\t10\t1\t0\n9\t10\t3\t0\n7\t999\t5\t50000\n";
    text
}

fn shop(folder: &Path, definition: &str) -> (Pipeline, Layout) {
    for (name, text) in [
        ("shop.user", USERS),
        ("shop.item", ITEMS),
        ("shop.inter", &interactions()),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let vectors = ndarray::arr2(&[[30.0f32, 0.5], [10.0, 0.5], [20.0, 0.5]]);
    ndarray_npy::write_npy(folder.join("vectors.npy"), &vectors).unwrap();
    let path = folder.join("pipeline.toml");
    fs::write(&path, definition).unwrap();
    (
        Pipeline::load(&path).unwrap(),
        Layout::new(&folder.join("state"), "shop"),
    )
}

fn column(table: &RecordBatch, name: &str) -> Vec<i32> {
    table::int32s(table, name).unwrap().to_vec()
}

#[test]
fn a_small_shop_is_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, layout) = shop(folder.path(), DEFINITION);
    let summary = prepare::prepare(&pipeline, &layout, Settings::default()).unwrap();
    assert_eq!((summary.users, summary.items), (3, 3));
    assert_eq!(
        summary.events,
        [8 + 1 + 1, 1 + 1, 1 + 1],
        "ten, three and one events"
    );
    assert_eq!(summary.dropped, 1);

    let users = table::read(&layout.data("users")).unwrap();
    assert_eq!(column(&users, "user_id"), [3, 7, 9]);
    // Training rows: 8 of age 30, 1 of age 20, 1 without; the mean of 28.9 is truncated.
    assert_eq!(column(&users, "age"), [20, 30, 28]);
    assert_eq!(column(&users, "city"), [0, 1, 1], "Bonn, Ulm");
    // User 7's last three training events are items 30, 10, 30; genre 2 is War, 1 is Drama.
    assert_eq!(column(&users, "top_genre"), [1, 2, 1]);

    let items = table::read(&layout.data("items")).unwrap();
    assert_eq!(column(&items, "item_id"), [10, 20, 30]);
    assert_eq!(column(&items, "genre"), [1, 0, 2]);
    assert_eq!(
        column(&items, "genres"),
        [1, 0, 1],
        "the order of words does not matter"
    );
    assert_eq!(column(&items, "year"), [-1, 1999, 2001]);
    assert_eq!(column(&items, "popularity"), [6, 0, 4]);
    assert_eq!(
        table::float32s(&items, "price").unwrap(),
        [3.5, 9.0, 3.5],
        "the mean of training rows"
    );
    let names: saker_pipeline::Names =
        serde_json::from_slice(&fs::read(layout.names()).unwrap()).unwrap();
    assert_eq!(names["genre"], ["Comedy", "Drama", "War"]);

    let events = table::read(&layout.data("interactions")).unwrap();
    assert_eq!(column(&events, "user_id")[..4], [3, 3, 3, 7]);
    assert!(column(&events, "timestamp")[3..13].is_sorted());
    let split: Vec<_> = table::texts(&events, "split")
        .unwrap()
        .iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    assert_eq!(split[..3], ["train", "validation", "test"]);
    assert_eq!(split[11..13], ["validation", "test"]);
}

#[test]
fn features_are_read_back_as_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, layout) = shop(folder.path(), DEFINITION);
    prepare::prepare(&pipeline, &layout, Settings::default()).unwrap();
    let data = features::read(&layout).unwrap();
    assert_eq!(
        (
            data.users.rows,
            data.items.rows,
            data.interactions.user.len()
        ),
        (3, 3, 14)
    );

    let items = &data.items.categorical[0];
    assert_eq!(
        (items.name.as_str(), items.cardinality, items.embedding_dim),
        ("item_id", 5, Some(4))
    );
    assert_eq!(
        items.codes,
        [3, 2, 4],
        "most frequent first; without training event out-of-vocabulary"
    );
    assert_eq!(
        data.pretrained[0].values,
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0, 0.5, 30.0, 0.5],
        "rows by code"
    );
    let user = &data.users.categorical[0];
    assert_eq!((user.cold_start, user.cardinality), (2, 6));

    assert_eq!(
        data.interactions.positive[..2],
        [false, true],
        "stars 1 and 4 of user 3"
    );
    assert_eq!(
        data.interactions.split[..3],
        [Split::Train, Split::Validation, Split::Test]
    );
    assert_eq!(
        data.context.continuous[0].values.get(1),
        (std::f64::consts::TAU / 24.0).sin() as f32
    );

    let schema: Schema = features::schema(&layout).unwrap();
    let age = schema
        .user
        .iter()
        .find(|feature| feature.name == "age_norm")
        .unwrap();
    assert!(
        age.cardinality.is_none() && age.cold_start.abs() < 1.0,
        "a newcomer's age is near the mean"
    );
}

#[test]
fn a_rerun_is_told_by_its_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, _) = shop(folder.path(), DEFINITION);
    let first = prepare::fingerprint(&pipeline, CODE).unwrap();
    assert_eq!(first, prepare::fingerprint(&pipeline, CODE).unwrap());
    let mut other = pipeline.clone();
    other.split.test = Some(0.2);
    assert_ne!(first, prepare::fingerprint(&other, CODE).unwrap());
    let mut other = pipeline.clone();
    other.ranking.topk = 3;
    assert_eq!(
        first,
        prepare::fingerprint(&other, CODE).unwrap(),
        "preparing does not read [ranking]"
    );
    fs::write(
        folder.path().join("shop.user"),
        format!("{USERS}11\t50\tUlm\n"),
    )
    .unwrap();
    assert_ne!(first, prepare::fingerprint(&pipeline, CODE).unwrap());
}

#[test]
fn errors_name_file_column_and_value() {
    let cases = [
        (
            "columns = [\"age\"]",
            "columns = [\"age\"]",
            "shop.user",
            "7\t30",
            "x7\t30",
            &["user_id", "\"x7\""][..],
        ),
        (
            "",
            "",
            "shop.user",
            "7\t30",
            "7\tthirty",
            &["shop.user", "column age", "\"thirty\""],
        ),
        (
            "",
            "",
            "shop.user",
            "3\t20",
            "7\t20",
            &["user_id 7 is in row 1 and in row 2"],
        ),
        (
            "",
            "",
            "shop.user",
            "7\t30",
            "-7\t30",
            &["an id must be 0 to"],
        ),
        (
            "",
            "",
            "shop.item",
            "unknown",
            "soon",
            &["column year", "\"soon\""],
        ),
        (
            "",
            "",
            "shop.inter",
            "stars:float",
            "rating:float",
            &["no column stars", "rating, sku"],
        ),
        (
            "",
            "",
            "shop.inter",
            "4\t7200",
            "4\t",
            &["column timestamp", "needs a time"],
        ),
        (
            "dim = 2",
            "dim = 3",
            "shop.item",
            "Late",
            "Late",
            &["vectors.npy", "needs [3, 3]"],
        ),
    ];
    for (from, to, file, find, replace, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (pipeline, layout) = shop(folder.path(), &DEFINITION.replacen(from, to, 1));
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(find), "{find} is not in {file}");
        fs::write(&path, text.replacen(find, replace, 1)).unwrap();
        let error = prepare::prepare(&pipeline, &layout, Settings::default()).expect_err(replace);
        let error = format!("{error:#}");
        for part in expected {
            assert!(
                error.contains(part),
                "{replace}: \"{error}\" lacks \"{part}\""
            );
        }
    }
}

/// Training starts from the schema, which must not stand beside tables of a run that has failed.
#[test]
fn a_run_that_fails_leaves_no_schema() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, layout) = shop(folder.path(), DEFINITION);
    prepare::prepare(&pipeline, &layout, Settings::default()).unwrap();
    assert!(layout.schema().is_file());
    let path = folder.path().join("shop.inter");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("4\t7200", "4\t", 1)).unwrap();
    prepare::prepare(&pipeline, &layout, Settings::default()).unwrap_err();
    assert!(!layout.schema().exists());
    fs::write(&path, text).unwrap();
    prepare::prepare(&pipeline, &layout, Settings::default()).unwrap();
    assert!(layout.schema().is_file());
    assert!(!layout.schema_without_tables().exists());
}

const DAYS: &str = r#"
[pipeline]
name = "shop"

[data]
format = "parquet"
users.path = "${SAKER_STATE}/source/users.parquet"
items.path = "${SAKER_STATE}/source/items.parquet"

[data.interactions]
path = "${SAKER_STATE}/source/day_*.parquet"
rating = "event_type"
ratings = { view = 1, click = 2, purchase = 4 }
positive_from = 2

[split]
by = "days"

[user]
id = "user_id"
columns = [
    { name = "age", default = 40 },
    { name = "top_genre", derive = { from = "top_of_recent", column = "genre", hours = 24 } },
]
features = [
    { name = "user_id", operators = [{ op = "Categorify" }] },
    { name = "age_norm", columns = ["age"], operators = [{ op = "Normalize" }] },
    { name = "top_genre", operators = [{ op = "Categorify" }] },
    { name = "taste", columns = ["top_genre", "age"], operators = [{ op = "HashedCross", num_buckets = 100 }] },
]

[context]
columns = [{ name = "device_type" }, { name = "timestamp", default = "now" }]
features = [{ name = "device_type", operators = [{ op = "Categorify" }] }]

[item]
id = "item_id"
columns = [{ name = "genre" }]
features = [
    { name = "item_id", operators = [{ op = "Categorify", padding = -1 }] },
    { name = "genre", operators = [{ op = "Categorify" }] },
]
"#;

/// Events of four days: user, item, time in hours, kind; the device is the user's last digit. Items 11 and 12 are of genre 1, 21
/// and 22 of genre 2.
const EVENTS: [(i32, i32, i32, &str); 14] = [
    (7, 11, 1, "view"),
    (7, 12, 2, "click"),
    (7, 21, 3, "click"),
    (7, 21, 4, "scroll"),
    (3, 21, 5, "view"),
    (3, 99, 6, "view"),
    (7, 21, 26, "view"),
    (7, 22, 27, "purchase"),
    (3, 21, 30, "click"),
    (7, 11, 50, "click"),
    (3, 12, 51, "click"),
    (9, 11, 73, "click"),
    (9, 21, 73, "view"),
    (7, 12, 74, "view"),
];

fn shop_of_days(folder: &Path) -> (Pipeline, Layout) {
    let source = folder.join("source");
    let write = |name: &str, columns| {
        table::write(&source.join(name), &table::table(columns).unwrap()).unwrap();
    };
    write(
        "users.parquet",
        vec![
            ("user_id", table::int32(vec![9, 7, 3])),
            ("age", table::int32(vec![20, 30, 50])),
        ],
    );
    write(
        "items.parquet",
        vec![
            ("item_id", table::int32(vec![11, 12, 21, 22])),
            ("genre", table::int32(vec![1, 1, 2, 2])),
        ],
    );
    for day in 0..4 {
        let of_day: Vec<_> = EVENTS.iter().filter(|event| event.2 / 24 == day).collect();
        let ints = |value: fn(&(i32, i32, i32, &str)) -> i32| {
            table::int32(of_day.iter().map(|event| value(event)).collect())
        };
        let kinds = of_day.iter().map(|event| event.3.to_owned()).collect();
        write(
            &format!("day_{day:02}.parquet"),
            vec![
                ("user_id", ints(|event| event.0)),
                ("item_id", ints(|event| event.1)),
                ("timestamp", ints(|event| event.2 * 3600)),
                ("device_type", ints(|event| event.0 % 10)),
                ("event_type", table::text(kinds)),
            ],
        );
    }
    let mut pipeline = Pipeline::parse(DAYS).unwrap();
    pipeline.state = Some(folder.to_owned());
    (pipeline, Layout::new(folder, "shop"))
}

#[test]
fn a_shop_of_days_is_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, layout) = shop_of_days(folder.path());
    let summary = prepare::prepare(&pipeline, &layout, Settings::default()).unwrap();
    assert_eq!(summary.events, [7, 2, 3], "days 0 and 1, 2, 3");
    assert_eq!(summary.dropped, 1, "item 99");

    let events = table::read(&layout.data("interactions")).unwrap();
    assert_eq!(
        column(&events, "user_id"),
        [3, 3, 3, 7, 7, 7, 7, 7, 7, 7, 9, 9]
    );
    // What stood before each event: nothing for the first; user 7 has genre 1 while two of the last day's items are of it; after the
    // event of hour 26, items 12 and 21 remain and 21 is the later.
    assert_eq!(
        column(&events, "top_genre"),
        [-1, 2, 2, -1, 1, 1, 1, 2, 2, 2, -1, -1],
        "two events of one second do not see each other"
    );
    let split: Vec<_> = table::texts(&events, "split")
        .unwrap()
        .iter()
        .flatten()
        .collect();
    assert_eq!(split[..3], ["train", "train", "validation"]);
    assert_eq!(split[8..], ["validation", "test", "test", "test"]);
    assert_eq!(
        table::float32s(&events, "rating").unwrap()[3..8],
        [1.0, 2.0, 2.0, 1.0, 4.0]
    );

    let users = table::read(&layout.data("users")).unwrap();
    assert_eq!(
        column(&users, "top_genre"),
        [1, 1, 1],
        "the latest, of events of all parts"
    );

    let encoded = table::read(&layout.features("interactions")).unwrap();
    assert_eq!(
        column(&encoded, "top_genre"),
        [2, 4, 4, 2, 3, 3, 3, 4, 4, 4, 2, 2],
        "2 is out-of-vocabulary"
    );
    assert_eq!(
        table::float32s(&encoded, "label").unwrap()[3..8],
        [0.0, 1.0, 1.0, 0.0, 1.0]
    );
    assert_eq!(
        column(&encoded, "user_row"),
        [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2]
    );
    assert_eq!(column(&encoded, "device_type")[..4], [4, 4, 4, 3]);
    // A feature of a changing column and another: each interaction with its own user's age.
    let tastes = column(&encoded, "taste");
    let latest = column(&table::read(&layout.features("users")).unwrap(), "taste");
    assert_eq!([tastes[4], tastes[6]], [latest[1]; 2], "user 7 in genre 1");
    assert_ne!(tastes[7], latest[1], "user 7 in genre 2");

    let data = features::read(&layout).unwrap();
    let id = data
        .users
        .categorical
        .iter()
        .find(|column| column.name == "user_id")
        .unwrap();
    assert_eq!(id.codes, [4, 3, 2], "user 9 comes on the last day");
    assert!(!layout.root().join("spill").exists());
}

#[test]
fn one_thread_and_little_memory_prepare_the_same() {
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let prepared = |folder: &Path, threads, memory_bytes| {
        let (pipeline, layout) = shop_of_days(folder);
        let settings = Settings {
            memory_bytes,
            threads,
            ..Settings::default()
        };
        prepare::prepare(&pipeline, &layout, settings).unwrap();
        ["data", "features"].map(|of| {
            let path = layout.root().join(of).join("interactions.parquet");
            table::read(&path).unwrap()
        })
    };
    assert_eq!(
        prepared(one.path(), 1, 64 << 20),
        prepared(many.path(), 4, 1 << 30)
    );
}

#[test]
fn errors_of_days_name_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, layout) = shop_of_days(folder.path());
    let failed = |pipeline: &Pipeline, expected: &[&str]| {
        let error = prepare::prepare(pipeline, &layout, Settings::default()).unwrap_err();
        let error = format!("{error:#}");
        for part in expected {
            assert!(error.contains(part), "\"{error}\" lacks \"{part}\"");
        }
    };
    let changed = |from: &str, to: &str| {
        let mut changed = Pipeline::parse(&DAYS.replacen(from, to, 1)).unwrap();
        changed.state.clone_from(&pipeline.state);
        changed
    };
    failed(
        &changed("day_*", "week_*"),
        &["week_*.parquet", "data.interactions.path"],
    );
    failed(
        &changed("rating = \"event_type\"", "rating = \"kind\""),
        &["day_00.parquet", "kind", "event_type"],
    );
    let bad = table::table(vec![
        ("user_id", table::int32(vec![7, -4])),
        ("item_id", table::int32(vec![11, 11])),
        ("timestamp", table::int32(vec![0, 0])),
        ("device_type", table::int32(vec![0, 0])),
        ("event_type", table::text(vec!["view".to_owned(); 2])),
    ]);
    table::write(&folder.path().join("source/day_01.parquet"), &bad.unwrap()).unwrap();
    failed(
        &pipeline,
        &["day_01.parquet", "user_id", "row 2", "an id must be 0 to"],
    );
}
