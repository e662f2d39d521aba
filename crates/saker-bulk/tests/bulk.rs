//! Fitting and applying over files is what fitting and applying in memory is, however the rows are divided.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray};
use arrow::array::{ArrayRef, Float32Array, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use saker_bulk::{Engine, Error, Settings, Writer};
use saker_workflow::{Definition, Workflow, read_parquet, write_batch};
use serde_json::{Value, json};

fn engine(threads: usize, memory_mib: usize) -> Engine {
    Engine::new(Settings {
        memory_bytes: memory_mib << 20,
        threads,
        spill: None,
    })
    .unwrap()
}

fn definition(chains: Value) -> Definition {
    serde_json::from_value(json!({ "chains": chains })).unwrap()
}

/// A batch in files of these many rows, the last one of what is left.
fn files(folder: &Path, rows: &RecordBatch, sizes: &[usize]) -> Vec<PathBuf> {
    let mut first = 0;
    let mut files = Vec::new();
    let sizes = sizes.iter().copied().chain([usize::MAX]);
    for (number, size) in sizes.enumerate() {
        let size = size.min(rows.num_rows() - first);
        let path = folder.join(format!("part_{number:03}.parquet"));
        write_batch(&path, &rows.slice(first, size)).unwrap();
        files.push(path);
        first += size;
    }
    files
}

/// Every file that a workflow saves: `workflow.json` as text, tables as batches.
fn saved(workflow: &Workflow) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    workflow.save(folder.path()).unwrap();
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(of) = folders.pop() {
        for entry in fs::read_dir(of).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder.path()).unwrap();
            let name = name.display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".parquet") {
                files.insert(name, format!("{:?}", read_parquet(&path).unwrap()));
            } else {
                files.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    files
}

fn check(definition: &Definition, rows: &RecordBatch, sizes: &[usize], threads: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), rows, sizes);
    // What cannot be fitted in memory cannot be fitted in bulk, for the same reason.
    let memory = Workflow::fit(definition.clone(), std::slice::from_ref(rows));
    let memory = memory.map_err(|error| error.to_string());
    let memory = memory.map(|workflow| saved(&workflow));
    for &threads in threads {
        let engine = engine(threads, 64);
        let plan = engine.read(&files).unwrap();
        let bulk = engine.fit(definition, &plan, |_| {});
        let bulk = bulk.map_err(|error| error.to_string());
        let bulk = bulk.map(|workflow| saved(&workflow));
        assert_eq!(bulk, memory, "{threads} threads, {definition:?}");
    }
}

#[test]
fn goldens_are_fitted_as_in_memory() {
    let bounds = json!([18, 25, 35, 50, 65]);
    let categorify = json!([{ "op": "Categorify" }]);
    let stats = json!(["count", "sum", "mean", "std", "var", "min", "max"]);
    let cases = [
        (
            "bucketize_categorify",
            json!([{ "columns": ["age"], "operators": [{ "op": "Bucketize", "boundaries": bounds }, { "op": "Categorify" }] }]),
        ),
        (
            "categorify_combo",
            json!([{ "columns": ["gender", "brand"], "operators": [{ "op": "Categorify", "encode_type": "combo" }] }]),
        ),
        (
            "categorify_freq_threshold",
            json!([{ "columns": ["user_id"], "operators": [{ "op": "Categorify", "freq_threshold": 5 }] }]),
        ),
        (
            "categorify_int",
            json!([{ "columns": ["user_id", "item_id", "gender"], "operators": categorify }]),
        ),
        (
            "categorify_joint",
            json!([{ "columns": ["user_id", "item_id"], "operators": [{ "op": "Categorify", "encode_type": "joint" }] }]),
        ),
        (
            "categorify_max_size",
            json!([{ "columns": ["user_id"], "operators": [{ "op": "Categorify", "max_size": 50 }] }]),
        ),
        (
            "categorify_string_null",
            json!([{ "columns": ["brand"], "operators": categorify }]),
        ),
        (
            "difference_lag",
            json!([{ "columns": ["timestamp"], "operators": [
            { "op": "DifferenceLag", "partition": ["user_id"], "shift": [1] }, { "op": "Normalize" }] }]),
        ),
        (
            "fill_median",
            json!([{ "columns": ["score"], "operators": [{ "op": "FillMedian" }] }]),
        ),
        (
            "join_groupby",
            json!([{ "columns": ["click"], "operators": [{ "op": "JoinGroupby", "columns": ["price"], "stats": stats }] }]),
        ),
        (
            "list_categorify",
            json!([{ "columns": ["hist"], "operators": categorify }]),
        ),
        (
            "log_normalize",
            json!([{ "columns": ["price"], "operators": [{ "op": "LogOp" }, { "op": "Normalize" }] }]),
        ),
        (
            "minmax",
            json!([{ "columns": ["amount", "age"], "operators": [{ "op": "NormalizeMinMax" }] }]),
        ),
        (
            "target_encoding",
            json!([{ "columns": ["brand", "gender"], "operators": [{ "op": "TargetEncoding", "target": "click" }] }]),
        ),
    ];
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/nvtabular");
    for (case, chains) in cases {
        let rows = read_parquet(&goldens.join(case).join("fit.parquet")).unwrap();
        let chains: Value = chains;
        let definition = definition(chains);
        for name in definition.fit_input_names() {
            assert!(
                rows.column_by_name(name).is_some(),
                "{case}: {name} of {:?}",
                rows.schema()
            );
        }
        check(&definition, &rows, &[1, rows.num_rows() / 3], &[1, 3]);
    }
}

/// Chains of every way of reading: grouped (one column and several, one pass and two), streamed, whole.
fn chains() -> Value {
    json!([
        { "columns": ["id"], "operators": [{ "op": "Categorify" }] },
        { "columns": ["id"], "operators": [{ "op": "Rename", "name": "id_norm" }, { "op": "Normalize" }] },
        { "columns": ["city"], "operators": [{ "op": "Categorify", "freq_threshold": 2 }] },
        { "columns": ["city", "id"], "operators": [{ "op": "Categorify", "encode_type": "combo" }] },
        { "columns": ["price"], "operators": [{ "op": "FillMedian" }, { "op": "LogOp" }, { "op": "Normalize" }] },
        { "columns": ["price"], "operators": [{ "op": "Rename", "name": "price_minmax" }, { "op": "NormalizeMinMax" }] },
        { "columns": ["weight"], "operators": [{ "op": "Normalize", "dtype": "float64" }] },
        { "columns": ["city"], "operators": [
            { "op": "JoinGroupby", "columns": ["price", "weight"], "stats": ["count", "mean", "std", "min"] },
            { "op": "Rename", "postfix": "_of_city" }] },
        { "columns": ["id"], "operators": [{ "op": "TargetEncoding", "target": "weight" }] },
        { "columns": ["id"], "operators": [
            { "op": "Rename", "name": "id_folds" },
            { "op": "TargetEncoding", "target": "price", "kfold": 3 }] },
        { "columns": ["city", "price"], "operators": [{ "op": "DataStats" }, { "op": "Rename", "postfix": "_seen" }] },
        { "columns": ["id"], "operators": [{ "op": "Rename", "name": "id_small" }, { "op": "ReduceDtypeSize" }] },
        { "columns": ["words"], "operators": [{ "op": "Rename", "name": "words_coded" }, { "op": "Categorify" }] },
        { "columns": ["words"], "operators": [{ "op": "ValueCount" }] },
        { "columns": ["weight"], "operators": [
            { "op": "DifferenceLag", "partition": ["city"], "shift": [1, -2] }, { "op": "Normalize" }] },
        { "columns": ["time"], "operators": [
            { "op": "LambdaOp", "function": "hour" }, { "op": "LambdaOp", "function": "sine", "period": 24.0 }] },
    ])
}

#[test]
fn operators_over_the_table_are_fitted_as_in_memory() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/nvtabular");
    let rows = read_parquet(&goldens.join("categorify_int/fit.parquet")).unwrap();
    let tables = [
        json!({ "op": "Filter", "condition": { "column": "user_id", "is": ">", "value": 5 } }),
        json!({ "op": "Groupby", "groupby_cols": ["user_id"], "aggs": { "item_id": ["count"] } }),
    ];
    let outputs = ["item_id", "item_id_count"];
    for (table, output) in tables.into_iter().zip(outputs) {
        let definition = json!({ "table": [table], "chains": [
            { "columns": ["user_id"], "operators": [{ "op": "Categorify" }] },
            { "columns": [output], "operators": [{ "op": "Normalize" }] },
        ] });
        let definition = serde_json::from_value(definition).unwrap();
        check(&definition, &rows, &[1, rows.num_rows() / 2], &[1, 3]);
    }
}

/// Sessions whose rows lie in several files and in more rows than a batch holds: codes, then groups, then cut lists.
#[test]
fn sessions_are_fitted_and_applied_as_in_memory() {
    let rows = 20_000;
    let ids = |modulus: i64| -> ArrayRef {
        let ids = (0..rows).map(|row: i64| (row * 7_919 + row / 13) % modulus);
        Arc::new(ids.collect::<Int64Array>())
    };
    let time: ArrayRef = Arc::new((0..rows).rev().map(Some).collect::<Int64Array>());
    let rows =
        RecordBatch::try_from_iter([("session", ids(301)), ("item", ids(97)), ("time", time)])
            .unwrap();
    let definition: Definition = serde_json::from_value(json!({
        "before": [{ "chains": [
            { "columns": ["item"], "operators": [{ "op": "Categorify" }, { "op": "TagAsItemID" }] },
            { "columns": ["session", "time"] },
        ] }],
        "table": [{ "op": "Groupby", "groupby_cols": ["session"], "sort_cols": ["time"],
            "aggs": { "item": ["list", "count", "last"], "time": ["first"] } }],
        "chains": [
            { "columns": ["session", "item_last"] },
            { "columns": ["item_list"], "operators": [{ "op": "ListSlice", "start": -5, "pad": true }] },
            { "columns": ["time_first"], "operators": [{ "op": "Normalize" }] },
            { "columns": ["item_count"], "operators": [{ "op": "Categorify" }] },
        ],
    }))
    .unwrap();
    check(&definition, &rows, &[1, 9_000], &[1, 3]);

    let workflow = Workflow::fit(definition, std::slice::from_ref(&rows)).unwrap();
    // What is known of a code is known of a list of codes, and of the last of them.
    for name in ["item_list", "item_last"] {
        let output = workflow.output(name).unwrap();
        assert_eq!(output.cardinality, Some(100), "{name}");
        assert_eq!(output.tags, ["id", "item"], "{name}");
    }
    assert_eq!(workflow.output("time_first").unwrap().cardinality, None);
    let memory = workflow.apply(&rows).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), &rows, &[1, 9_000]);
    let engine = engine(3, 64);
    let plan = engine.read(&files).unwrap();
    let path = folder.path().join("sessions.parquet");
    let written = engine.apply(&workflow, &plan, &path, |_| {}).unwrap();
    assert_eq!(written, 301);
    assert_eq!(read_parquet(&path).unwrap(), memory);
}

type Row = (
    Option<i32>,
    Option<String>,
    Option<f32>,
    f64,
    Option<Vec<Option<i32>>>,
    i64,
);

fn row() -> impl Strategy<Value = Row> {
    (
        prop::option::weighted(0.9, -3..40i32),
        prop::option::weighted(0.9, "[a-d]{0,2}"),
        prop::option::weighted(0.9, 0.0..1e4f32),
        prop_oneof![-1e9..1e9f64, (0..5i32).prop_map(f64::from)],
        prop::option::weighted(
            0.9,
            prop::collection::vec(prop::option::weighted(0.9, 0..9), 0..4),
        ),
        0..2_000_000_000i64,
    )
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 6] = [
        (
            "id",
            Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>()),
        ),
        (
            "city",
            Arc::new(
                rows.iter()
                    .map(|row| row.1.clone())
                    .collect::<StringArray>(),
            ),
        ),
        (
            "price",
            Arc::new(rows.iter().map(|row| row.2).collect::<Float32Array>()),
        ),
        (
            "weight",
            Arc::new(rows.iter().map(|row| Some(row.3)).collect::<Float64Array>()),
        ),
        (
            "words",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                rows.iter().map(|row| row.4.clone()),
            )),
        ),
        (
            "time",
            Arc::new(rows.iter().map(|row| Some(row.5)).collect::<Int64Array>()),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_in_any_files_are_fitted_as_in_memory(
        mut rows in prop::collection::vec(row(), 3..120),
        sizes in prop::collection::vec(0..40usize, 0..4),
        threads in 1..5usize,
    ) {
        // A column of nothing but missing values cannot be fitted.
        (rows[0].0, rows[0].2) = (Some(1), Some(2.5));
        rows.iter_mut().take(3).for_each(|row| row.1 = Some("a".to_owned()));
        check(&definition(chains()), &batch(&rows), &sizes, &[threads]);
    }

    #[test]
    fn rows_keep_their_order(
        mut rows in prop::collection::vec(row(), 3..120),
        sizes in prop::collection::vec(0..40usize, 0..4),
        threads in 1..5usize,
    ) {
        (rows[0].0, rows[0].2) = (Some(1), Some(2.5));
        let rows = batch(&rows);
        let chains: Vec<Value> = chains().as_array().unwrap().iter()
            .filter(|chain| chain["operators"][0]["op"] != "DifferenceLag").cloned().collect();
        let workflow = Workflow::fit(definition(json!(chains)), std::slice::from_ref(&rows)).unwrap();
        let expected = workflow.apply(&rows).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(threads, 64);
        let plan = engine.read(&files(folder.path(), &rows, &sizes)).unwrap();
        let path = folder.path().join("applied");
        let written = engine.apply(&workflow, &plan, &path, |_| {}).unwrap();
        prop_assert_eq!(written as usize, rows.num_rows());
        let applied = read_parquet(&path).unwrap();
        prop_assert_eq!(applied.columns(), expected.columns());
    }
}

/// Distinct keys that take far more memory than the bound.
fn many(keys: usize) -> RecordBatch {
    let ids = (0..keys).map(|key| (key as i64).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

#[test]
fn groups_beyond_the_bound_are_spilled() {
    let rows = many(800_000);
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), &rows, &[350_000]);
    let definition =
        definition(json!([{ "columns": ["id"], "operators": [{ "op": "Categorify" }] }]));
    let spill = folder.path().join("spill");
    let engine = Engine::new(Settings {
        memory_bytes: 32 << 20,
        threads: 2,
        spill: Some(spill),
    })
    .unwrap();
    let workflow = engine
        .fit(&definition, &engine.read(&files).unwrap(), |_| {})
        .unwrap();
    let memory = Workflow::fit(definition, std::slice::from_ref(&rows)).unwrap();
    assert_eq!(saved(&workflow), saved(&memory));
}

/// The merge of what was spilled has memory of its own, whatever the other parts of the sort take.
#[test]
fn sorts_beyond_the_bound_are_spilled() {
    const ROWS: usize = 1_500_000;
    let random = |seed: u64| {
        (0..ROWS as u64).map(move |row| {
            let mixed = (row + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed);
            ((mixed ^ mixed >> 29) % 1_000_003) as i64
        })
    };
    let columns = ["user", "time", "item", "kind"].into_iter().zip(1..);
    let columns = columns.map(|(name, seed)| {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(random(seed)));
        (name, values)
    });
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), &rows, &[ROWS / 3, ROWS / 3]);
    for (threads, memory_mib) in [(1, 8), (1, 16), (2, 16), (2, 32), (4, 32), (4, 48)] {
        let engine = engine(threads, memory_mib);
        let rows = engine.read(&files).unwrap();
        let sorted = engine.sorted(rows, &["user", "time"]).unwrap();
        let (mut count, mut last) = (0, (i64::MIN, i64::MIN));
        let outcome = engine.run(
            sorted,
            |_| {},
            |batch| {
                let of = |name: &str| batch.column_by_name(name).unwrap().clone();
                let (users, times) = (of("user"), of("time"));
                let pairs = users.as_primitive::<Int64Type>().values().iter();
                for (&user, &time) in pairs.zip(times.as_primitive::<Int64Type>().values()) {
                    assert!(last <= (user, time));
                    last = (user, time);
                }
                count += batch.num_rows();
                Ok::<(), Error>(())
            },
        );
        outcome.unwrap_or_else(|error| panic!("{threads} threads, {memory_mib} MiB: {error}"));
        assert_eq!(count, ROWS);
    }
}

#[test]
fn what_cannot_be_spilled_names_the_bound() {
    let rows = many(400_000);
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), &rows, &[]);
    let definition = definition(json!([{ "columns": ["id"], "operators": [
        { "op": "DifferenceLag", "partition": ["id"] }, { "op": "Normalize" }] }]));
    let engine = engine(1, 2);
    let error = engine
        .fit(&definition, &engine.read(&files).unwrap(), |_| {})
        .unwrap_err();
    assert!(
        matches!(error, Error::Memory { bound_mib: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("allow more memory"), "{error}");
}

#[test]
fn errors_name_file_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(2, 64);
    let missing = folder.path().join("none.parquet");
    let error = engine
        .read(std::slice::from_ref(&missing))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none.parquet") && error.contains("no such file"),
        "{error}"
    );
    fs::write(&missing, "no parquet").unwrap();
    let error = engine
        .read(std::slice::from_ref(&missing))
        .unwrap_err()
        .to_string();
    assert!(error.contains("none.parquet"), "{error}");

    let plan = engine.read(&files(folder.path(), &many(10), &[])).unwrap();
    let absent = definition(json!([{ "columns": ["age"], "operators": [{ "op": "Categorify" }] }]));
    let error = engine.fit(&absent, &plan, |_| {}).unwrap_err().to_string();
    assert!(error.contains("age") && error.contains("id"), "{error}");
}

#[test]
fn a_file_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let mut writer = Writer::new(&path);
    writer.write(&many(10)).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut writer = Writer::new(&path);
    writer.write(&many(10)).unwrap();
    assert_eq!(writer.finish().unwrap(), 10);
    assert_eq!(read_parquet(&path).unwrap(), many(10));
}

#[test]
fn functions_see_files_and_rows_and_their_errors_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(2, 64);
    let files = files(folder.path(), &many(100_000), &[40_000, 0]);
    let files: Vec<_> = files
        .into_iter()
        .map(|file| (file, vec!["id".to_owned()]))
        .collect();
    let schema = many(0).schema();
    let plan = engine
        .map_files(&files, schema.clone(), |batch, file, first| {
            if file == 2 && first > 0 {
                return Err(format!("file {file} from row {first}").into());
            }
            Ok(batch.clone())
        })
        .unwrap();
    let error = engine
        .run(plan, |_| {}, |_| Ok::<_, Error>(()))
        .unwrap_err();
    assert!(error.to_string().starts_with("file 2 from row "), "{error}");

    let batches = (0..3).map(|_| Ok(many(1000)));
    let plan = engine.batches(schema, batches).unwrap();
    let sorted = engine.sorted(plan, &["id"]).unwrap();
    let (mut rows, mut last) = (0, i64::MIN);
    engine
        .run(
            sorted,
            |_| {},
            |batch| {
                let ids = batch
                    .column(0)
                    .as_any()
                    .downcast_ref::<Int64Array>()
                    .unwrap();
                assert!(ids.value(0) >= last && ids.values().is_sorted());
                (rows, last) = (rows + ids.len(), ids.value(ids.len() - 1));
                Ok::<_, Error>(())
            },
        )
        .unwrap();
    assert_eq!(rows, 3000);
}

#[test]
fn a_column_of_one_number_and_nan_keeps_its_nan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let values = [4.0, f64::NAN, 4.0, f64::NAN, 4.0];
    let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let mut writer = Writer::new(&path);
    writer.write(&rows).unwrap();
    writer.finish().unwrap();

    let engine = engine(2, 64);
    let read = |plan| {
        let mut numbers = Vec::new();
        let each = |batch: RecordBatch| {
            let column = batch.column(0).as_any().downcast_ref::<Float64Array>();
            numbers.extend_from_slice(column.unwrap().values());
            Ok::<_, Error>(())
        };
        engine.run(plan, |_| {}, each).unwrap();
        numbers.iter().filter(|number| number.is_nan()).count()
    };
    let plan = engine.read(std::slice::from_ref(&path)).unwrap();
    assert_eq!(read(engine.select(&plan, &["x"]).unwrap()), 2);
    let files = [(path, vec!["x".to_owned()])];
    let plan = engine.map_files(&files, rows.schema(), |batch, _, _| Ok(batch.clone()));
    assert_eq!(read(plan.unwrap()), 2);
}
