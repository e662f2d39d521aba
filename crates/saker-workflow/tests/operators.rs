//! Operators against straightforward forms of their formulas, on arbitrary values; what serves and what does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    StringArray, TimestampNanosecondArray, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use saker_workflow::operators::{Medians, Statistics};
use saker_workflow::{
    Condition, DType, Definition, Fitted, Fitter, Pass, Plan, Scratch, Slice, SliceMut, Workflow,
    write_batch,
};

fn definition(json: &str) -> Definition {
    serde_json::from_str(json).unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

fn ints(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn floats(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

/// What a workflow's saved and loaded copy gives.
fn reloaded(workflow: &Workflow) -> Workflow {
    let folder = tempfile::tempdir().unwrap();
    workflow.save(folder.path()).unwrap();
    Workflow::load(folder.path()).unwrap()
}

fn condition() -> impl Strategy<Value = Condition> {
    let compare = (
        prop::sample::select(vec!["x", "y"]),
        prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]),
        -3i64..3,
    );
    let leaf = compare.prop_map(|(column, is, value)| {
        serde_json::from_value(serde_json::json!({ "column": column, "is": is, "value": value }))
            .unwrap()
    });
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Condition::And),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Condition::Or),
            inner.prop_map(|one| Condition::Not(Box::new(one))),
        ]
    })
}

/// As pandas: a comparison with a missing value is false, but for `!=`.
fn meets(condition: &Condition, x: Option<i64>, y: f64) -> bool {
    match condition {
        Condition::And(all) => all.iter().all(|c| meets(c, x, y)),
        Condition::Or(any) => any.iter().any(|c| meets(c, x, y)),
        Condition::Not(one) => !meets(one, x, y),
        Condition::Compare { column, is, value } => {
            let value = serde_json::to_value(value).unwrap().as_f64().unwrap();
            let left = if column == "x" {
                x.map_or(f64::NAN, |x| x as f64)
            } else {
                y
            };
            match serde_json::to_value(is).unwrap().as_str().unwrap() {
                "==" => left == value,
                "!=" => left != value,
                "<" => left < value,
                "<=" => left <= value,
                ">" => left > value,
                _ => left >= value,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn filter_keeps_the_rows_that_meet_the_condition(
        condition in condition(),
        rows in prop::collection::vec((prop::option::of(-3i64..3), prop_oneof![-3f64..3.0, Just(f64::NAN), Just(1.0)]), 0..40),
    ) {
        let definition = definition(&format!(
            r#"{{ "table": [{{ "op": "Filter", "condition": {} }}], "chains": [{{ "columns": ["x", "y"] }}] }}"#,
            serde_json::to_string(&condition).unwrap()
        ));
        let table = batch(vec![("x", ints(rows.iter().map(|r| r.0))), ("y", floats(rows.iter().map(|r| Some(r.1))))]);
        let workflow = reloaded(&Workflow::fit(definition, std::slice::from_ref(&table)).unwrap());
        let out = workflow.apply(&table).unwrap();
        let expected: Vec<_> = rows.iter().filter(|(x, y)| meets(&condition, *x, *y)).collect();
        prop_assert_eq!(out.num_rows(), expected.len());
        for (row, (x, y)) in expected.into_iter().enumerate() {
            let ours = out.column(0).as_primitive::<Int64Type>();
            prop_assert_eq!(ours.is_valid(row).then(|| ours.value(row)), *x);
            prop_assert_eq!(out.column(1).as_primitive::<Float64Type>().value(row).to_bits(), y.to_bits());
        }
    }

    #[test]
    fn groupby_aggregates_each_key(
        rows in prop::collection::vec((prop::option::of(0i64..4), any::<u8>(), prop::option::of(-100i32..100)), 0..60),
    ) {
        let definition = definition(r#"{ "table": [{ "op": "Groupby", "groupby_cols": ["key"], "sort_cols": ["time"],
            "aggs": { "x": ["list", "first", "last", "count", "sum", "mean", "min", "max", "nunique", "median", "var"] } }],
            "chains": [{ "columns": ["key", "x_list", "x_first", "x_last", "x_count", "x_sum", "x_mean", "x_min", "x_max", "x_nunique", "x_median", "x_var"] }] }"#);
        let table = batch(vec![
            ("key", ints(rows.iter().map(|r| r.0))),
            ("time", ints(rows.iter().map(|r| Some(r.1.into())))),
            ("x", Arc::new(rows.iter().map(|r| r.2).collect::<Int32Array>())),
        ]);
        let out = Workflow::fit(definition, std::slice::from_ref(&table)).unwrap().apply(&table).unwrap();
        let mut groups: BTreeMap<i64, Vec<(u8, Option<i32>)>> = BTreeMap::new();
        for (key, time, x) in &rows {
            if let Some(key) = key {
                groups.entry(*key).or_default().push((*time, *x));
            }
        }
        prop_assert_eq!(out.num_rows(), groups.len());
        for (row, (key, mut group)) in groups.into_iter().enumerate() {
            group.sort_by_key(|(time, _)| *time);
            let all: Vec<Option<i32>> = group.iter().map(|(_, x)| *x).collect();
            let mut values: Vec<i32> = all.iter().flatten().copied().collect();
            let int = |name: &str| {
                let array = out.column_by_name(name).unwrap().as_primitive::<Int32Type>();
                array.is_valid(row).then(|| array.value(row))
            };
            let float = |name: &str| out.column_by_name(name).unwrap().as_primitive::<Float32Type>().value(row);
            prop_assert_eq!(out.column(0).as_primitive::<Int64Type>().value(row), key);
            let list = out.column(1).as_list::<i32>().value(row);
            let list: Vec<Option<i32>> = list.as_primitive::<Int32Type>().iter().collect();
            prop_assert_eq!(&list, &all);
            prop_assert_eq!(int("x_first"), all[0]);
            prop_assert_eq!(int("x_last"), *all.last().unwrap());
            prop_assert_eq!(int("x_count"), Some(values.len() as i32));
            prop_assert_eq!(int("x_min"), values.iter().copied().min());
            prop_assert_eq!(int("x_max"), values.iter().copied().max());
            prop_assert_eq!(float("x_sum"), values.iter().sum::<i32>() as f32);
            values.sort_unstable();
            let n = values.len();
            let x: Vec<f64> = values.iter().map(|&x| x.into()).collect();
            let mean = x.iter().sum::<f64>() / n as f64;
            let near = |a: f32, b: f64| (a.is_nan() && b.is_nan()) || (f64::from(a) - b).abs() <= 1e-5 * b.abs().max(1.0);
            prop_assert!(near(float("x_mean"), mean));
            let median = if n == 0 { f64::NAN } else { (x[(n - 1) / 2] + x[n / 2]) / 2.0 };
            prop_assert!(near(float("x_median"), median));
            let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
            let variance = if n < 2 { f64::NAN } else { squares / (n - 1) as f64 };
            prop_assert!(near(float("x_var"), variance));
            values.dedup();
            prop_assert_eq!(int("x_nunique"), Some(values.len() as i32));
        }
    }

    /// Every row is encoded by the targets outside its fold, wherever the batches are cut; requests by all of them.
    #[test]
    fn folds_leave_out_a_rows_own_target(
        rows in prop::collection::vec((0i64..5, 0i64..2), 1..80),
        kfold in 2u32..5,
        seed in prop::option::of(any::<u32>()),
        cut in 0usize..80,
    ) {
        let json = format!(r#"{{ "chains": [{{ "columns": ["key"], "operators": [
            {{ "op": "TargetEncoding", "target": "y", "p_smooth": 3, "kfold": {kfold}, "fold_seed": {} }}] }}] }}"#,
            serde_json::to_string(&seed).unwrap());
        let table = batch(vec![("key", ints(rows.iter().map(|r| Some(r.0)))), ("y", ints(rows.iter().map(|r| Some(r.1))))]);
        let workflow = Workflow::fit(definition(&json), std::slice::from_ref(&table)).unwrap();
        let cut = cut.min(rows.len());
        let parts = [table.slice(0, cut), table.slice(cut, rows.len() - cut)];
        let parted = reloaded(&Workflow::fit(definition(&json), &parts).unwrap());
        let mean = rows.iter().map(|r| r.1 as f64).sum::<f64>() / rows.len() as f64;
        let encode = |sum: f64, count: f64| ((sum + 3.0 * mean) / (count + 3.0)) as f32;
        let values = |batch: RecordBatch| batch.column(0).as_primitive::<Float32Type>().values().to_vec();
        let whole = values(workflow.out_of_fold().apply(&table).unwrap());
        let mut parted = parted.out_of_fold();
        let pieces: Vec<f32> = parts.iter().flat_map(|part| values(parted.apply(part).unwrap())).collect();
        prop_assert_eq!(&whole, &pieces);
        let served = values(workflow.apply(&table).unwrap());
        // Which fold a row is in shows in no output; without a seed it is known.
        for (row, (key, _)) in rows.iter().enumerate() {
            let all = rows.iter().filter(|(k, _)| k == key);
            let expected = encode(all.clone().map(|r| r.1 as f64).sum(), all.count() as f64);
            prop_assert!((served[row] - expected).abs() < 1e-6);
            if seed.is_none() {
                let fold = row % kfold as usize;
                let others = rows.iter().enumerate()
                    .filter(|(other, (k, _))| k == key && other % kfold as usize != fold)
                    .map(|(_, row)| row);
                let expected = encode(others.clone().map(|r| r.1 as f64).sum(), others.count() as f64);
                prop_assert!((whole[row] - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn fill_median_takes_the_middle(x in prop::collection::vec(prop::option::of(-1e6f64..1e6), 1..60)) {
        prop_assume!(x.iter().any(Option::is_some));
        let mut sorted: Vec<f64> = x.iter().flatten().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let workflow = Workflow::fit(
            definition(r#"{ "chains": [{ "columns": ["x"], "operators": [{ "op": "FillMedian" }] }] }"#),
            &[batch(vec![("x", floats(x))])],
        ).unwrap();
        let Fitted::Medians(Medians { medians }) = &workflow.fitted()[0][0] else { panic!("no medians") };
        prop_assert_eq!(medians["x"], (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0);
    }

    /// Tables get the smallest type, requests int32 or int64; both hold the same numbers, the ends of the type for those beyond it.
    #[test]
    fn reduced_types_hold_the_range(
        fitted in prop::collection::vec(prop_oneof![-100i64..100, -30_000i64..30_000, any::<i32>().prop_map(i64::from), any::<i64>()], 1..20),
        asked in prop::collection::vec(any::<i64>(), 0..20),
    ) {
        let json = r#"{ "chains": [{ "columns": ["x"], "operators": [{ "op": "ReduceDtypeSize" }] }] }"#;
        let fit = batch(vec![("x", ints(fitted.iter().copied().map(Some)))]);
        let workflow = reloaded(&Workflow::fit(definition(json), &[fit]).unwrap());
        let (min, max) = (*fitted.iter().min().unwrap(), *fitted.iter().max().unwrap());
        let types = [
            (DataType::Int8, i64::from(i8::MIN), i64::from(i8::MAX)),
            (DataType::Int16, i16::MIN.into(), i16::MAX.into()),
            (DataType::Int32, i32::MIN.into(), i32::MAX.into()),
            (DataType::Int64, i64::MIN, i64::MAX),
        ];
        let (kind, least, greatest) = types.into_iter().find(|(_, a, b)| *a <= min && max <= *b).unwrap();
        let asked: Vec<i64> = asked.into_iter().chain(fitted).collect();
        let table = batch(vec![("x", ints(asked.iter().copied().map(Some)))]);
        let out = workflow.apply(&table).unwrap();
        prop_assert_eq!(out.column(0).data_type(), &kind);
        let out = arrow::compute::cast(out.column(0), &DataType::Int64).unwrap();
        let expected: Vec<i64> = asked.iter().map(|x| *x.clamp(&least, &greatest)).collect();
        prop_assert_eq!(out.as_primitive::<Int64Type>().values().to_vec(), expected.clone());
        let plan = Plan::prepare(&workflow, &[("x", DType::Int64)]).unwrap();
        let bound = plan.bind(&[Slice::Int64(&asked)]).unwrap();
        let mut scratch = Scratch::default();
        if kind == DataType::Int64 {
            let mut served = vec![0i64; asked.len()];
            bound.write(0, SliceMut::Int64(&mut served), &mut scratch).unwrap();
            prop_assert_eq!(served, expected);
        } else {
            let mut served = vec![0i32; asked.len()];
            bound.write(0, SliceMut::Int32(&mut served), &mut scratch).unwrap();
            prop_assert!(served.iter().zip(expected).all(|(a, b)| i64::from(*a) == b));
        }
    }

    /// The cosine of two rows, by dense vectors; what serves agrees with the bulk side.
    #[test]
    fn similarity_is_the_cosine(
        entries in prop::collection::btree_map((0i64..6, 0i64..5), 0.1f64..2.0, 1..20),
        asked in prop::collection::vec((-2i64..9, -2i64..9), 0..30),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix.parquet");
        write_batch(&path, &batch(vec![
            ("row", ints(entries.keys().map(|k| Some(k.0)))),
            ("column", ints(entries.keys().map(|k| Some(k.1)))),
            ("value", floats(entries.values().copied().map(Some))),
        ])).unwrap();
        let json = format!(r#"{{ "chains": [{{ "columns": ["a", "b"], "operators": [
            {{ "op": "ColumnSimilarity", "left": {path:?}, "metric": "cosine" }}] }}] }}"#);
        let table = batch(vec![("a", ints(asked.iter().map(|r| Some(r.0)))), ("b", ints(asked.iter().map(|r| Some(r.1))))]);
        let workflow = reloaded(&Workflow::fit(definition(&json), std::slice::from_ref(&table)).unwrap());
        let out = workflow.apply(&table).unwrap();
        let bulk = out.column_by_name("a_b_sim").unwrap().as_primitive::<Float32Type>().values().to_vec();
        let row = |row: i64| -> Vec<f64> { (0..5).map(|c| entries.get(&(row, c)).copied().unwrap_or(0.0)).collect() };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for ((a, b), ours) in asked.iter().zip(&bulk) {
            let (a, b) = (row(*a), row(*b));
            let norm = (dot(&a, &a) * dot(&b, &b)).sqrt();
            let expected = if norm == 0.0 { 0.0 } else { dot(&a, &b) / norm };
            prop_assert!((f64::from(*ours) - expected).abs() < 1e-6);
        }
        let (a, b): (Vec<i64>, Vec<i64>) = asked.into_iter().unzip();
        let plan = Plan::prepare(&workflow, &[("a", DType::Int64), ("b", DType::Int64)]).unwrap();
        let bound = plan.bind(&[Slice::Int64(&a), Slice::Int64(&b)]).unwrap();
        let mut served = vec![0f32; a.len()];
        bound.write(0, SliceMut::Float32(&mut served), &mut Scratch::default()).unwrap();
        prop_assert_eq!(served, bulk);
    }
}

#[test]
fn operators_that_change_rows_do_not_serve() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("external.parquet");
    write_batch(&path, &batch(vec![("x", ints([Some(1)]))])).unwrap();
    for (operator, json) in [
        (
            "Filter",
            r#"{ "op": "Filter", "condition": { "column": "x", "is": ">", "value": 0 } }"#
                .to_owned(),
        ),
        ("Dropna", r#"{ "op": "Dropna" }"#.to_owned()),
        (
            "Groupby",
            r#"{ "op": "Groupby", "groupby_cols": ["x"], "aggs": { "y": ["sum"] } }"#.to_owned(),
        ),
        (
            "JoinExternal",
            format!(
                r#"{{ "op": "JoinExternal", "path": {path:?}, "on": ["x"], "columns_ext": ["x"] }}"#
            ),
        ),
    ] {
        let definition = definition(&format!(
            r#"{{ "table": [{json}], "chains": [{{ "columns": ["x"] }}] }}"#
        ));
        let table = batch(vec![("x", ints([Some(1)])), ("y", ints([Some(2)]))]);
        let workflow = Workflow::fit(definition, &[table]).unwrap();
        let error = Plan::prepare(&workflow, &[("x", DType::Int64)])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(operator) && error.contains("one answer for each of its rows"),
            "{error}"
        );
    }
}

#[test]
fn dropna_looks_at_null_and_nan() {
    let table = batch(vec![
        ("x", ints([Some(1), None, Some(3), Some(4)])),
        ("y", floats([Some(f64::NAN), Some(1.0), Some(2.0), None])),
        (
            "t",
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, None])),
        ),
    ]);
    let rows = |dropna: &str| {
        let json = format!(r#"{{ "table": [{dropna}], "chains": [{{ "columns": ["x", "y"] }}] }}"#);
        let workflow = Workflow::fit(definition(&json), std::slice::from_ref(&table)).unwrap();
        workflow.apply(&table).unwrap().num_rows()
    };
    assert_eq!(rows(r#"{ "op": "Dropna", "columns": ["x"] }"#), 3);
    assert_eq!(rows(r#"{ "op": "Dropna", "columns": ["x", "y"] }"#), 1);
    assert_eq!(rows(r#"{ "op": "Dropna" }"#), 0);
}

#[test]
fn joins_repeat_and_keep_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("external.parquet");
    let external = batch(vec![
        ("k", ints([Some(2), Some(1), Some(2), None, Some(2)])),
        ("v", ints([Some(20), Some(10), Some(21), Some(0), Some(20)])),
    ]);
    write_batch(&path, &external).unwrap();
    let join = |rest: &str| {
        let json = format!(
            r#"{{ "table": [{{ "op": "JoinExternal", "path": {path:?}, "on": ["x"], "on_ext": ["k"], "columns_ext": ["k", "v"]{rest} }}],
            "chains": [{{ "columns": ["x", "v"] }}] }}"#
        );
        // An int32 key meets an int64 one.
        let x: ArrayRef = Arc::new(Int32Array::from(vec![Some(3), Some(2), None, Some(1)]));
        let table = batch(vec![("x", x)]);
        let workflow =
            reloaded(&Workflow::fit(definition(&json), std::slice::from_ref(&table)).unwrap());
        let out = workflow.apply(&table).unwrap();
        out.column(1)
            .as_primitive::<Int64Type>()
            .iter()
            .collect::<Vec<_>>()
    };
    let v = Some;
    assert_eq!(join(""), [None, v(20), v(21), v(20), v(0), v(10)]);
    assert_eq!(
        join(r#", "how": "inner", "drop_duplicates_ext": true"#),
        [v(20), v(21), v(0), v(10)]
    );
}

#[test]
fn statistics_of_columns_with_gaps() {
    let workflow = Workflow::fit(
        definition(
            r#"{ "chains": [{ "columns": ["x", "flag", "none"], "operators": [{ "op": "DataStats" }] }] }"#,
        ),
        &[batch(vec![
            ("x", ints([Some(4), None, Some(4), Some(-2)])),
            (
                "flag",
                Arc::new(BooleanArray::from(vec![true, true, false, true])),
            ),
            ("none", floats([None, None, Some(f64::NAN), None])),
        ])],
    )
    .unwrap();
    let workflow = reloaded(&workflow);
    let Fitted::Statistics(Statistics { columns }) = &workflow.fitted()[0][0] else {
        panic!("no statistics")
    };
    let x = &columns["x"];
    assert_eq!(
        (x.min, x.max, x.mean, x.per_nan, x.cardinality),
        (Some(-2.0), Some(4.0), Some(2.0), 25.0, Some(2))
    );
    assert_eq!(
        (columns["flag"].cardinality, columns["flag"].mean),
        (Some(2), Some(0.75))
    );
    let none = &columns["none"];
    assert_eq!(
        (
            none.min,
            none.mean,
            none.std,
            none.per_nan,
            none.cardinality
        ),
        (None, None, None, 100.0, None)
    );
}

#[test]
fn codes_of_few_values_are_dropped() {
    let few = ints((0..40).map(|i| Some(i % 2)));
    let many = ints((0..40).map(Some));
    let price: ArrayRef = Arc::new(Float32Array::from(vec![1.0; 40]));
    let table = batch(vec![("few", few), ("many", many), ("price", price)]);
    let outputs = |json: &str| -> Vec<String> {
        let workflow = Workflow::fit(definition(json), std::slice::from_ref(&table)).unwrap();
        let workflow = reloaded(&workflow);
        let names: Vec<String> = (workflow.apply(&table).unwrap().schema().fields().iter())
            .map(|field| field.name().clone())
            .collect();
        let declared = workflow.outputs().iter().map(|o| o.name.clone());
        assert_eq!(names, declared.collect::<Vec<_>>());
        names
    };
    // few has codes up to 4, many up to 42; price is no code.
    assert_eq!(
        outputs(
            r#"{ "chains": [
                { "columns": ["few", "many"], "operators": [{ "op": "Categorify" }, { "op": "Rename", "postfix": "_code" },
                    { "op": "DropLowCardinality", "min_cardinality": 5 }] },
                { "columns": ["price"], "operators": [{ "op": "DropLowCardinality", "min_cardinality": 5 }] }] }"#
        ),
        ["many_code", "price"]
    );
    assert_eq!(
        outputs(
            r#"{ "chains": [{ "columns": ["few", "many"], "operators": [{ "op": "Categorify" }, { "op": "DropLowCardinality" }] }] }"#
        ),
        ["few", "many"]
    );
    assert_eq!(
        outputs(
            r#"{ "chains": [{ "columns": ["few", "many"], "operators": [{ "op": "HashBucket", "num_buckets": 8 },
                { "op": "DropLowCardinality", "min_cardinality": 9 }] }, { "columns": ["price"] }] }"#
        ),
        ["price"]
    );
}

#[test]
fn tags_go_with_their_column() {
    let workflow = Workflow::fit(
        definition(
            r#"{ "chains": [{ "columns": ["id"], "operators": [{ "op": "TagAsUserID" }, { "op": "Categorify" },
                { "op": "AddProperties", "properties": { "source": "shop" } }, { "op": "AddTags", "tags": ["id", "key"] },
                { "op": "Rename", "name": "user" }] }] }"#,
        ),
        &[batch(vec![("id", ints([Some(1)]))])],
    )
    .unwrap();
    let user = reloaded(&workflow).output("user").unwrap().clone();
    assert_eq!(user.tags, ["id", "user", "key"]);
    assert_eq!(user.properties["source"], "shop");
    assert_eq!(user.cardinality, Some(4));
}

/// A column whose median needs several passes beside one that needs one.
#[test]
fn columns_of_different_length_find_their_medians() {
    let json = r#"{ "chains": [{ "columns": ["short", "long"], "operators": [{ "op": "FillMedian" }, { "op": "Normalize" }] }] }"#;
    let rows = 1 << 17;
    let parts: Vec<RecordBatch> = (0..10)
        .map(|part| {
            let long = (0..rows).map(|i| Some(((i * 10 + part) * 7 % 1_310_720) as f64));
            let short = (0..rows).map(|i| (i == 0).then_some(f64::from(part)));
            batch(vec![("short", floats(short)), ("long", floats(long))])
        })
        .collect();
    let mut passes = 0;
    let mut fitter = Fitter::new(definition(json)).unwrap();
    let workflow = loop {
        passes += 1;
        parts.iter().for_each(|part| fitter.update(part).unwrap());
        match fitter.finish().unwrap() {
            Pass::Done(workflow) => break workflow,
            Pass::Again(next) => fitter = next,
        }
    };
    let Fitted::Medians(Medians { medians }) = &workflow.fitted()[0][0] else {
        panic!("no medians")
    };
    assert_eq!((medians["short"], medians["long"]), (4.5, 655_359.5));
    assert_eq!(passes, 3, "two for the medians, one for Normalize");
}

#[test]
fn errors_name_operator_column_and_what_is_accepted() {
    let table = batch(vec![
        ("x", ints([Some(1)])),
        ("t", Arc::new(StringArray::from(vec!["a"]))),
    ]);
    let says = |json: &str| match serde_json::from_str::<Definition>(json) {
        Ok(definition) => match Workflow::fit(definition, std::slice::from_ref(&table)) {
            Ok(_) => panic!("accepted: {json}"),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    for (json, parts) in [
        (
            r#"{ "table": [{ "op": "Filter", "condition": { "column": "t", "is": ">", "value": 1 } }], "chains": [{ "columns": ["x"] }] }"#,
            ["'t'", "1", "string"],
        ),
        (
            r#"{ "table": [{ "op": "Filter", "condition": { "column": "t", "value": 1 } }], "chains": [] }"#,
            ["condition", "`column`, `is` and `value`", "`and`"],
        ),
        (
            r#"{ "table": [{ "op": "Groupby", "groupby_cols": ["t"], "aggs": { "x": ["sum"] } }], "chains": [{ "columns": ["x"] }] }"#,
            ["'x'", "missing", "x_sum"],
        ),
        (
            r#"{ "table": [{ "op": "Groupby", "groupby_cols": ["x"], "aggs": { "t": ["sum"] } }], "chains": [{ "columns": ["t_sum"] }] }"#,
            ["'t'", "Utf8", "numeric"],
        ),
        (
            r#"{ "table": [{ "op": "JoinExternal", "path": "nowhere.parquet", "on": ["x"], "columns_ext": ["x"] }], "chains": [] }"#,
            ["nowhere.parquet", "No such file", ""],
        ),
        (
            r#"{ "chains": [{ "columns": ["x"], "operators": [{ "op": "ColumnSimilarity", "left": "matrix.parquet" }] }] }"#,
            ["'x'", "ColumnSimilarity", "two columns"],
        ),
        (
            r#"{ "chains": [{ "columns": ["x"], "operators": [{ "op": "TargetEncoding", "target": "x", "kfold": 0 }] }] }"#,
            ["'x'", "kfold", "1..=65536"],
        ),
    ] {
        let error = says(json);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("matrix.parquet");
    write_batch(
        path,
        &batch(vec![
            ("row", ints([Some(-4)])),
            ("column", ints([Some(0)])),
            ("value", ints([Some(1)])),
        ]),
    )
    .unwrap();
    let error = says(&format!(
        r#"{{ "chains": [{{ "columns": ["x", "y"], "operators": [{{ "op": "ColumnSimilarity", "left": {path:?} }}] }}] }}"#
    ));
    assert!(
        error.contains("matrix.parquet") && error.contains("row -4"),
        "{error}"
    );
}

/// Arrow keeps a column without any value as type null: it is the fitted column, every row missing.
#[test]
fn columns_of_type_null_are_missing_values() {
    let definition = definition(
        r#"{ "chains": [{ "columns": ["s"], "operators": [{ "op": "Categorify" }] },
            { "columns": ["n"], "operators": [{ "op": "Categorify" }, { "op": "Rename", "name": "code" }] },
            { "columns": ["n"], "operators": [{ "op": "FillMissing", "value": 7, "add_binary_cols": true }] },
            { "columns": ["f"], "operators": [{ "op": "FillMedian" }, { "op": "Normalize" }] },
            { "columns": ["l"], "operators": [{ "op": "Categorify" }] }] }"#,
    );
    let lists = |rows: Vec<Option<Vec<Option<i64>>>>| -> ArrayRef {
        Arc::new(arrow::array::ListArray::from_iter_primitive::<
            Int64Type,
            _,
            _,
        >(rows))
    };
    let fitted = batch(vec![
        ("s", Arc::new(StringArray::from(vec!["a", "b", "a"]))),
        ("n", ints([Some(1), Some(2), Some(2)])),
        ("f", floats([Some(0.5), Some(1.5), Some(4.0)])),
        (
            "l",
            lists(vec![
                Some(vec![Some(3)]),
                Some(vec![]),
                Some(vec![Some(4), None]),
            ]),
        ),
    ]);
    let workflow = Workflow::fit(definition, std::slice::from_ref(&fitted)).unwrap();
    let null = |kind: &DataType| arrow::array::new_null_array(kind, 2);
    let of_null = DataType::new_list(DataType::Null, true);
    let untyped = batch(vec![
        ("s", null(&DataType::Null)),
        ("n", null(&DataType::Null)),
        ("f", null(&DataType::Null)),
        ("l", null(&of_null)),
    ]);
    let kinds = fitted.schema();
    let typed = kinds
        .fields()
        .iter()
        .map(|field| (field.name().as_str(), null(field.data_type())));
    let expected = workflow.apply(&batch(typed.collect())).unwrap();
    let output = workflow.apply(&untyped).unwrap();
    assert_eq!(format!("{output:?}"), format!("{expected:?}"));
    let filled = output
        .column_by_name("n")
        .unwrap()
        .as_primitive::<Int64Type>();
    assert_eq!(filled.values(), &[7, 7]);
}

/// Datetimes of 2024-02-29 23:00:00, of the last nanosecond of 1969, and none.
fn moments(zone: Option<&str>, unit: TimeUnit) -> ArrayRef {
    let moments = [Some(1_709_247_600_000_000_000), Some(-1), None];
    let moments: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter(moments));
    cast(&moments, &DataType::Timestamp(unit, zone.map(Into::into))).unwrap()
}

/// A datetime column of any unit is read as nanoseconds, and served as such.
#[test]
fn parts_of_datetimes() {
    let parts = definition(
        r#"{ "chains": [
            { "columns": ["t"], "operators": [{ "op": "LambdaOp", "function": "hour" }, { "op": "Rename", "name": "hour" }] },
            { "columns": ["t"], "operators": [{ "op": "LambdaOp", "function": "weekday" }, { "op": "Rename", "name": "weekday" }] },
            { "columns": ["t"], "operators": [{ "op": "LambdaOp", "function": "day" }, { "op": "Rename", "name": "day" }] },
            { "columns": ["t"], "operators": [{ "op": "LambdaOp", "function": "month" }, { "op": "Rename", "name": "month" }] },
            { "columns": ["t"], "operators": [{ "op": "LambdaOp", "function": "day" }, { "op": "Categorify" }, { "op": "Rename", "name": "code" }] },
            { "columns": ["t"], "operators": [] }] }"#,
    );
    let given = batch(vec![("t", moments(None, TimeUnit::Nanosecond))]);
    let workflow = reloaded(&Workflow::fit(parts.clone(), std::slice::from_ref(&given)).unwrap());
    assert!(workflow.inputs()[0].datetime && workflow.output("t").unwrap().datetime);
    assert_eq!(workflow.cardinality("day"), Some(32));
    let wanted: [(&str, [Option<i32>; 3]); 5] = [
        ("hour", [Some(23), Some(23), None]),
        ("weekday", [Some(3), Some(2), None]),
        ("day", [Some(29), Some(31), None]),
        ("month", [Some(2), Some(12), None]),
        ("code", [Some(3), Some(4), Some(1)]),
    ];
    for zone in [None, Some("UTC"), Some("+00:00")] {
        for unit in [
            TimeUnit::Nanosecond,
            TimeUnit::Microsecond,
            TimeUnit::Millisecond,
        ] {
            // -1 ns is 0 in a larger unit.
            let rows = if unit == TimeUnit::Nanosecond { 3 } else { 1 };
            let given = batch(vec![("t", moments(zone, unit).slice(0, rows))]);
            let output = workflow.apply(&given).unwrap();
            for (name, wanted) in &wanted {
                let ours = output
                    .column_by_name(name)
                    .unwrap()
                    .as_primitive::<Int32Type>();
                assert_eq!(ours.iter().collect::<Vec<_>>(), wanted[..rows], "{name}");
            }
            assert_eq!(output.column_by_name("t").unwrap(), &given.columns()[0]);
        }
    }
    // Served, the column is int64.
    let plan = Plan::prepare(&workflow, &[("t", DType::Int64)]).unwrap();
    let bound = plan
        .bind(&[Slice::Int64(&[1_709_247_600_000_000_000, -1])])
        .unwrap();
    for (name, wanted) in &wanted {
        let mut served = [0; 2];
        let index = plan.output_index(name).unwrap();
        bound
            .write(index, SliceMut::Int32(&mut served), &mut Scratch::default())
            .unwrap();
        assert_eq!(served.map(Some), wanted[..2], "{name}");
    }
    // Where the unit could be another one, the type is refused.
    let refused = |column: ArrayRef| {
        workflow
            .apply(&batch(vec![("t", column)]))
            .unwrap_err()
            .to_string()
    };
    let error = refused(moments(Some("Asia/Tokyo"), TimeUnit::Nanosecond));
    assert!(error.contains("'t'") && error.contains("in UTC"), "{error}");
    let error = refused(ints([Some(1)]));
    assert!(
        error.contains("'t'") && error.contains("accepted: datetime"),
        "{error}"
    );
    let error = Plan::prepare(&workflow, &[("t", DType::Int32)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("int64, nanoseconds"), "{error}");
    let numbers = Workflow::fit(parts, &[batch(vec![("t", ints([Some(1)]))])]).unwrap();
    let error = numbers.apply(&given).unwrap_err().to_string();
    assert!(
        error.contains("'t'") && error.contains("no datetime"),
        "{error}"
    );
    for operator in [
        r#"{ "op": "Normalize" }"#,
        r#"{ "op": "Clip", "min": 0 }"#,
        r#"{ "op": "FillMissing" }"#,
        r#"{ "op": "LogOp" }"#,
        r#"{ "op": "Bucketize", "boundaries": [1] }"#,
        r#"{ "op": "LambdaOp", "function": "sine", "period": 7 }"#,
        r#"{ "op": "LambdaOp", "function": "cast", "dtype": "int64" }"#,
    ] {
        let chain = definition(&format!(
            r#"{{ "chains": [{{ "columns": ["t"], "operators": [{operator}] }}] }}"#
        ));
        let error = Workflow::fit(chain, std::slice::from_ref(&given)).unwrap_err();
        assert!(
            error.to_string().contains("datetime"),
            "{operator}: {error}"
        );
    }
}

/// Integers of any unit become datetimes: pandas' `to_datetime`.
#[test]
fn datetimes_of_integers() {
    for (unit, per_second, arrow) in [
        ("s", 1, TimeUnit::Second),
        ("ms", 1_000, TimeUnit::Millisecond),
        ("us", 1_000_000, TimeUnit::Microsecond),
        ("ns", 1_000_000_000, TimeUnit::Nanosecond),
    ] {
        let workflow = definition(&format!(
            r#"{{ "chains": [
                {{ "columns": ["t"], "operators": [{{ "op": "LambdaOp", "function": "datetime", "unit": "{unit}" }}] }},
                {{ "columns": ["t"], "operators": [{{ "op": "LambdaOp", "function": "datetime", "unit": "{unit}" }},
                    {{ "op": "Rename", "name": "month" }}, {{ "op": "LambdaOp", "function": "month" }}] }},
                {{ "columns": ["t"], "operators": [{{ "op": "LambdaOp", "function": "day", "unit": "{unit}" }},
                    {{ "op": "Rename", "name": "day" }}] }}] }}"#
        ));
        let given = batch(vec![("t", ints([Some(1_709_247_600 * per_second), None]))]);
        let workflow = reloaded(&Workflow::fit(workflow, std::slice::from_ref(&given)).unwrap());
        let output = workflow.apply(&given).unwrap();
        assert_eq!(
            &cast(&output.columns()[0], &DataType::Timestamp(arrow, None)).unwrap(),
            &cast(
                &take(&moments(None, arrow), &UInt32Array::from(vec![0, 2]), None).unwrap(),
                &DataType::Timestamp(arrow, None)
            )
            .unwrap()
        );
        let of = |name| {
            output
                .column_by_name(name)
                .unwrap()
                .as_primitive::<Int32Type>()
                .clone()
        };
        assert_eq!(of("month").iter().collect::<Vec<_>>(), [Some(2), None]);
        assert_eq!(of("day").iter().collect::<Vec<_>>(), [Some(29), None]);
        let plan = Plan::prepare(&workflow, &[("t", DType::Int64)]).unwrap();
        let seconds = [1_709_247_600 * per_second];
        let bound = plan.bind(&[Slice::Int64(&seconds)]).unwrap();
        let mut month = [0];
        let index = plan.output_index("month").unwrap();
        bound
            .write(index, SliceMut::Int32(&mut month), &mut Scratch::default())
            .unwrap();
        assert_eq!(month, [2]);
    }
}
