//! The offline store in a folder and in S3, and Feast as its reader.

use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int32Type;
use chrono::{NaiveDate, NaiveTime};
use saker_offline::{EVENT_TIMESTAMP, Error, OfflineStore};
use saker_testing::{runtime, s3_server::S3Server};

const VIEW: &str = "user_activity";

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 5, day).expect("a day")
}

fn at(of: u32, hour: u32) -> i64 {
    let time = day(of).and_time(NaiveTime::from_hms_opt(hour, 0, 0).expect("a time"));
    time.and_utc().timestamp_micros()
}

/// User, category, time.
fn rows(rows: &[(i32, i32, i64)]) -> RecordBatch {
    let users = Int32Array::from_iter_values(rows.iter().map(|row| row.0));
    let categories = Int32Array::from_iter_values(rows.iter().map(|row| row.1));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.2));
    RecordBatch::try_from_iter([
        ("user_id", Arc::new(users) as ArrayRef),
        ("top_category", Arc::new(categories)),
        (EVENT_TIMESTAMP, Arc::new(times.with_timezone("UTC"))),
    ])
    .expect("equal lengths")
}

fn users(store: &OfflineStore, first: u32, last: u32) -> Vec<i32> {
    let mut users = Vec::new();
    store
        .read(VIEW, day(first)..=day(last), |batch| {
            let column = batch.column_by_name("user_id").expect("the join key");
            users.extend(column.as_primitive::<Int32Type>().values());
            Ok::<(), Error>(())
        })
        .expect("rows");
    users
}

fn keeps_rows_by_day(store: &OfflineStore) {
    assert_eq!(store.days(VIEW).expect("days"), []);
    let first = rows(&[(7, 1, at(2, 23)), (8, 2, at(1, 0)), (9, 3, at(2, 1))]);
    let written = store.append(VIEW, "batch-1", &first).expect("written");
    let counts: Vec<_> = written.iter().map(|of| (of.day, of.rows)).collect();
    assert_eq!(counts, [(day(1), 1), (day(2), 2)]);
    store
        .append(VIEW, "batch-2", &rows(&[(10, 4, at(4, 12))]))
        .expect("written");
    assert_eq!(store.days(VIEW).expect("days"), [day(1), day(2), day(4)]);
    assert_eq!(users(store, 1, 4), [8, 7, 9, 10]);
    assert_eq!(users(store, 2, 3), [7, 9]);
    assert!(users(store, 5, 9).is_empty());
    // The same batch again counts once.
    store.append(VIEW, "batch-1", &first).expect("written");
    assert_eq!(users(store, 1, 4), [8, 7, 9, 10]);
    store
        .append(VIEW, "late", &rows(&[(11, 1, at(2, 3))]))
        .expect("written");
    store.remove(VIEW, "batch-2").expect("removed");
    assert_eq!(users(store, 1, 4), [8, 7, 9, 11]);
    assert!(
        store
            .append(VIEW, "empty", &rows(&[]))
            .expect("nothing to write")
            .is_empty()
    );

    for name in ["", "../up", "a/b", ".hidden"] {
        let error = store.append(name, "batch", &first).expect_err("refused");
        assert!(error.to_string().contains("accepted"), "{error}");
    }
    let without = first.project(&[0, 1]).expect("two columns");
    let error = store
        .append(VIEW, "batch-3", &without)
        .expect_err("refused");
    assert!(error.to_string().contains(EVENT_TIMESTAMP), "{error}");
}

#[test]
fn in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("deep/offline");
    let store = OfflineStore::open(&place.to_string_lossy()).expect("a store");
    keeps_rows_by_day(&store);
    // What somebody else left there, or broke, is named.
    let file = place
        .join(VIEW)
        .join("event_date=2026-05-01/batch-1.parquet");
    std::fs::write(&file, b"no parquet").expect("a file");
    let error = store
        .read(VIEW, day(1)..=day(1), |_| Ok::<(), Error>(()))
        .expect_err("broken");
    assert!(error.to_string().contains("batch-1.parquet"), "{error}");
}

#[test]
fn in_s3() {
    let server = S3Server::start().expect("a running server");
    let place = format!("s3://{}/features", S3Server::BUCKET);
    let store = OfflineStore::open_with(&place, server.settings()).expect("a store");
    keeps_rows_by_day(&store);
    let nowhere =
        OfflineStore::open_with("s3://nobody/features", server.settings()).expect("a store");
    let error = nowhere
        .append(VIEW, "batch", &rows(&[(7, 1, at(1, 0))]))
        .expect_err("no such bucket");
    assert!(
        error.to_string().contains("event_date=2026-05-01"),
        "{error}"
    );
}

/// Feast joins to each question the row that was the newest at that moment, and none from later.
#[test]
fn feast_reads_it_point_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        OfflineStore::open(&folder.path().join("offline").to_string_lossy()).expect("a store");
    let history = rows(&[
        (7, 1, at(1, 6)),
        (7, 2, at(2, 6)),
        (7, 3, at(2, 18)),
        (8, 4, at(2, 6)),
    ]);
    store.append(VIEW, "batch-1", &history).expect("written");
    let output = Command::new(runtime::peers_python().expect("Feast"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real_feast.py"))
        .arg(folder.path())
        .env("FEAST_USAGE", "False")
        .output()
        .expect("a Python with Feast");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let answers: serde_json::Value = serde_json::from_str(last)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    // Feast leaves a question out to which only later rows would answer: 8 on the 1st.
    let expected = serde_json::json!([
        [7, "01 12", 1],
        [7, "02 12", 2],
        [7, "02 20", 3],
        [8, "02 12", 4],
    ]);
    assert_eq!(answers, expected);
}
