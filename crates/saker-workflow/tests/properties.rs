//! Kernels and lookups against straightforward formulas, on arbitrary values.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use saker_workflow::kernels::{self, TimePart};
use saker_workflow::{
    Chain, DType, Definition, Operator, Plan, Scratch, Slice, SliceMut, TimeUnit, Workflow,
};

fn operators(json: &str) -> Vec<Operator> {
    serde_json::from_str(json).unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

/// Fits and applies one chain of Categorify.
fn fit(columns: Vec<(&str, ArrayRef)>, json: &str) -> Workflow {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let definition = Definition::new(vec![Chain::new(names, operators(json))]);
    Workflow::fit(definition, &[batch(columns)]).unwrap()
}

fn codes(batch: &RecordBatch) -> Vec<i32> {
    batch
        .column(0)
        .as_primitive::<Int32Type>()
        .values()
        .to_vec()
}

/// Operators that treat each value by itself, and whether they take lists alone.
const SHAPED: [(&str, bool); 15] = [
    (r#"[{ "op": "Categorify" }]"#, false),
    (r#"[{ "op": "HashBucket", "num_buckets": 7 }]"#, false),
    (r#"[{ "op": "Bucketize", "boundaries": [-3, 2] }]"#, false),
    (r#"[{ "op": "LogOp" }]"#, false),
    (r#"[{ "op": "Normalize" }]"#, false),
    (r#"[{ "op": "NormalizeMinMax" }]"#, false),
    (r#"[{ "op": "Clip", "min": 0, "max": 5 }]"#, false),
    (
        r#"[{ "op": "FillMissing", "value": 3, "add_binary_cols": true }]"#,
        false,
    ),
    (
        r#"[{ "op": "FillMedian", "add_binary_cols": true }]"#,
        false,
    ),
    (r#"[{ "op": "ReduceDtypeSize" }]"#, false),
    (
        r#"[{ "op": "DataStats" }, { "op": "Rename", "postfix": "_x" }]"#,
        false,
    ),
    (r#"[{ "op": "LambdaOp", "function": "hour" }]"#, false),
    (
        r#"[{ "op": "LambdaOp", "function": "sine", "period": 7 }]"#,
        false,
    ),
    (
        r#"[{ "op": "FillMissing" }, { "op": "Clip", "max": 4 }, { "op": "Categorify" }]"#,
        false,
    ),
    (
        r#"[{ "op": "ValueCount" }, { "op": "ListSlice", "start": 0, "end": 2, "pad": true }, { "op": "Categorify" }]"#,
        true,
    ),
];

/// A row of a column of lists: null, empty, or with gaps.
fn row_of_list() -> impl Strategy<Value = Option<Vec<Option<i32>>>> {
    prop::option::weighted(
        0.9,
        prop::collection::vec(prop::option::weighted(0.8, -9i32..9), 0..5),
    )
}

proptest! {
    // A failing case is printed; it becomes a test of its own here.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bucketize_counts_boundaries(x in prop::collection::vec(any::<f64>(), 0..20), mut boundaries in prop::collection::vec(-1e3f64..1e3, 1..40)) {
        boundaries.sort_by(f64::total_cmp);
        let mut out = vec![0; x.len()];
        kernels::bucketize(&x, &boundaries, &mut out);
        for (x, out) in x.iter().zip(out) {
            let expected = if x.is_nan() { boundaries.len() } else { boundaries.iter().filter(|b| *b <= x).count() };
            prop_assert_eq!(out as usize, expected);
        }
    }

    #[test]
    fn normalize_is_the_formula(x in prop::collection::vec(any::<i32>(), 0..20), mean in -1e6f64..1e6, std in 1e-3f64..1e6) {
        let mut out = vec![0f32; x.len()];
        kernels::normalize(&x, mean, std, &mut out);
        for (x, out) in x.iter().zip(&out) {
            prop_assert_eq!(*out, ((f64::from(*x) - mean) / std) as f32);
        }
        kernels::normalize(&x, mean, 0.0, &mut out);
        for (x, out) in x.iter().zip(&out) {
            prop_assert_eq!(*out, (f64::from(*x) - mean) as f32);
        }
    }

    #[test]
    fn ln_is_within_four_units_in_the_last_place(bits in 1u32..0x7F80_0000) {
        let x = f32::from_bits(bits);
        let exact = f64::from(x).ln();
        let unit = f64::from((exact as f32).abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
        prop_assert!((f64::from(kernels::ln(x)) - exact).abs() <= 4.0 * unit, "ln({x})");
    }

    #[test]
    fn clip_stays_within(x in prop::collection::vec(any::<i64>(), 0..20), a in any::<i64>(), b in any::<i64>()) {
        let (min, max) = (a.min(b), a.max(b));
        let mut out = vec![0; x.len()];
        kernels::clip(&x, Some(min), Some(max), &mut out);
        let expected: Vec<i64> = x.iter().map(|x| *x.clamp(&min, &max)).collect();
        prop_assert_eq!(out, expected);
    }

    /// Arrow computes the parts of a date too, from the years 1677 to 2262 in nanoseconds.
    #[test]
    fn parts_of_time_are_arrows(moments in prop::collection::vec(any::<i64>(), 1..50), near in prop::collection::vec(any::<i32>(), 1..50)) {
        use arrow::compute::{DatePart, date_part};
        let parts = [
            (TimePart::Hour, DatePart::Hour),
            (TimePart::Weekday, DatePart::DayOfWeekMonday0),
            (TimePart::Day, DatePart::Day),
            (TimePart::Month, DatePart::Month),
        ];
        let seconds: Vec<i64> = near.iter().map(|&t| i64::from(t)).collect();
        let units = [
            (TimeUnit::S, 1_000_000_000, Arc::new(TimestampSecondArray::from(seconds.clone())) as ArrayRef),
            (TimeUnit::Ms, 1_000_000, Arc::new(TimestampMillisecondArray::from_iter_values(moments.iter().map(|t| t / 1_000_000)))),
            (TimeUnit::Us, 1_000, Arc::new(TimestampMicrosecondArray::from_iter_values(moments.iter().map(|t| t / 1_000)))),
            (TimeUnit::Ns, 1, Arc::new(TimestampNanosecondArray::from(moments.clone()))),
        ];
        for (part, theirs) in parts {
            for (unit, nanoseconds, array) in &units {
                let values: Vec<i64> = match unit {
                    TimeUnit::S => seconds.clone(),
                    _ => moments.iter().map(|t| t / nanoseconds).collect(),
                };
                let mut out = vec![0; values.len()];
                kernels::time_part(&values, part, *unit, &mut out);
                let theirs = date_part(array, theirs).unwrap();
                prop_assert_eq!(&out, theirs.as_primitive::<Int32Type>().values(), "{:?} {:?}", part, unit);
            }
            let mut narrow = vec![0; near.len()];
            kernels::time_part(&near, part, TimeUnit::S, &mut narrow);
            let mut wide = vec![0; near.len()];
            kernels::time_part(&seconds, part, TimeUnit::S, &mut wide);
            prop_assert_eq!(narrow, wide);
        }
    }

    /// Codes are the rank by frequency, then by value; everything else is a reserved code.
    #[test]
    fn categorify_ranks_by_frequency(values in prop::collection::vec(prop::option::of(-30i64..30), 1..200), wide in any::<bool>(), asked in prop::collection::vec(any::<i64>(), 0..20)) {
        // Values far apart take the hash map, others the table.
        let spread = if wide { 1 << 50 } else { 1 };
        let values: Vec<Option<i64>> = values.into_iter().map(|v| v.map(|v| v * spread)).collect();
        let array: ArrayRef = Arc::new(Int64Array::from(values.clone()));
        let workflow = fit(vec![("x", array)], r#"[{ "op": "Categorify" }]"#);
        let mut distinct: Vec<i64> = values.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let count = |v: i64| values.iter().filter(|x| **x == Some(v)).count();
        distinct.sort_by_key(|v| (std::cmp::Reverse(count(*v)), *v));
        let asked: Vec<Option<i64>> = asked.into_iter().map(Some).chain(values.clone()).collect();
        let out = workflow.apply(&batch(vec![("x", Arc::new(Int64Array::from(asked.clone())))])).unwrap();
        for (value, code) in asked.iter().zip(codes(&out)) {
            let expected = match value {
                None => 1,
                Some(v) => distinct.iter().position(|d| d == v).map_or(2, |p| p + 3),
            };
            prop_assert_eq!(code as usize, expected);
        }
        prop_assert_eq!(workflow.cardinality("x"), Some(3 + distinct.len()));
    }

    /// The plan that serves and the bulk side agree, on ids at the ends of their type too.
    #[test]
    fn plan_and_bulk_agree(fitted in prop::collection::vec(0i32..50, 1..100), asked in prop::collection::vec(prop_oneof![any::<i32>(), -3i32..60], 0..300)) {
        let definition = Definition::new(vec![
            Chain::new(["id"], operators(r#"[{ "op": "Categorify", "num_buckets": 4, "padding": -1 }]"#)),
            Chain::feature("norm", "id", operators(r#"[{ "op": "Clip", "min": 0, "max": 40 }, { "op": "LogOp" }, { "op": "Normalize" }]"#)),
            Chain::feature("binned", "id", operators(r#"[{ "op": "Bucketize", "boundaries": [0, 10] }, { "op": "Categorify" }]"#)),
        ]);
        let fitted: ArrayRef = Arc::new(Int32Array::from(fitted));
        let workflow = Workflow::fit(definition, &[batch(vec![("id", fitted)])]).unwrap();
        let bulk = workflow.apply(&batch(vec![("id", Arc::new(Int32Array::from(asked.clone())))])).unwrap();
        let plan = Plan::prepare(&workflow, &[("id", DType::Int32)]).unwrap();
        let mut scratch = Scratch::default();
        let bound = plan.bind(&[Slice::Int32(&asked)]).unwrap();
        for name in ["id", "binned"] {
            let mut out = vec![0i32; asked.len()];
            bound.write(plan.output_index(name).unwrap(), SliceMut::Int32(&mut out), &mut scratch).unwrap();
            prop_assert_eq!(&out, bulk.column_by_name(name).unwrap().as_primitive::<Int32Type>().values());
            let cardinality = workflow.cardinality(name).unwrap() as i32;
            prop_assert!(out.iter().all(|code| (0..cardinality).contains(code)));
        }
        let mut out = vec![0f32; asked.len()];
        bound.write(1, SliceMut::Float32(&mut out), &mut scratch).unwrap();
        let theirs = bulk.column(1).as_primitive::<arrow::datatypes::Float32Type>();
        prop_assert!(out.iter().zip(theirs.values()).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    /// A combination has a code exactly when it was seen.
    #[test]
    fn combinations_are_told_apart(rows in prop::collection::vec((0i64..5, prop::option::of("[ab]{1,2}")), 1..60), asked in prop::collection::vec((0i64..7, prop::option::of("[abc]{1,2}")), 0..40)) {
        let columns = |rows: &[(i64, Option<String>)]| -> Vec<(&'static str, ArrayRef)> {
            let (a, b): (Vec<i64>, Vec<Option<String>>) = rows.iter().cloned().unzip();
            vec![("a", Arc::new(Int64Array::from(a))), ("b", Arc::new(StringArray::from(b)))]
        };
        let workflow = fit(columns(&rows), r#"[{ "op": "Categorify", "encode_type": "combo" }]"#);
        let out = codes(&workflow.apply(&batch(columns(&asked))).unwrap());
        for (index, (pair, code)) in asked.iter().zip(&out).enumerate() {
            prop_assert_eq!(*code > 2, rows.contains(pair));
            for (other, other_code) in asked[..index].iter().zip(&out) {
                if *code > 2 {
                    prop_assert_eq!(pair == other, code == other_code);
                }
            }
        }
    }

    /// The columns of a chain may hold lists of different lengths, and single values: each comes out as from a chain of its own.
    #[test]
    fn columns_of_a_chain_keep_their_own_rows(
        rows in prop::collection::vec((row_of_list(), row_of_list(), prop::option::of(-9i32..9)), 1..30),
        at in 0..SHAPED.len(),
    ) {
        let list = |lists: Vec<Option<Vec<Option<i32>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))
        };
        let (operator, lists_alone) = SHAPED[at];
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("a", list(rows.iter().map(|row| row.0.clone()).collect())),
            ("b", list(rows.iter().map(|row| row.1.clone()).collect())),
        ];
        if !lists_alone {
            let single: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<Int32Array>());
            columns.insert(1, ("c", single));
        }
        // Every order of the columns: none may lend its rows to the others.
        for _ in 0..columns.len() {
            columns.rotate_left(1);
            let operators = operators(operator);
            let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
            let given = batch(columns.clone());
            let fit = |names: &[&str]| {
                let definition = Definition::new(vec![Chain::new(names.iter().copied(), operators.clone())]);
                Workflow::fit(definition, std::slice::from_ref(&given))
            };
            // A column without any value cannot be fitted, alone or with others.
            let alone: Result<Vec<_>, _> = names.iter().map(|name| fit(&[name])).collect();
            let (Ok(together), Ok(alone)) = (fit(&names), alone) else { continue };
            let together = together.apply(&given).unwrap();
            prop_assert_eq!(together.num_rows(), rows.len());
            let alone: Vec<_> = alone.iter().map(|workflow| workflow.apply(&given).unwrap()).collect();
            let alone: Vec<&ArrayRef> = alone.iter().flat_map(RecordBatch::columns).collect();
            prop_assert_eq!(together.num_columns(), alone.len());
            for (ours, expected) in together.columns().iter().zip(alone) {
                // As text, for NaN differs from itself.
                prop_assert_eq!(format!("{ours:?}"), format!("{expected:?}"));
            }
        }
    }
}

#[test]
fn a_value_has_one_bucket_wherever_it_stands() {
    let array: ArrayRef = Arc::new(Int32Array::from(vec![7, 8, 7, -1, 7]));
    let workflow = fit(
        vec![("x", array.clone())],
        r#"[{ "op": "HashBucket", "num_buckets": 1000 }]"#,
    );
    let out = codes(&workflow.apply(&batch(vec![("x", array)])).unwrap());
    assert!(out[0] == out[2] && out[2] == out[4]);
    assert!(out.iter().all(|bucket| (0..1000).contains(bucket)));
}

#[test]
fn errors_name_column_value_and_what_is_accepted() {
    let says = |json: &str, array: ArrayRef| {
        let definition = Definition::new(vec![Chain::new(["x"], operators(json))]);
        Workflow::fit(definition, &[batch(vec![("x", array)])])
            .unwrap_err()
            .to_string()
    };
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let strings: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let error = says(r#"[{ "op": "Clip", "min": 0.5 }]"#, ints.clone());
    assert!(
        error.contains("'x'") && error.contains("0.5") && error.contains("whole"),
        "{error}"
    );
    let error = says(r#"[{ "op": "Normalize" }]"#, strings);
    assert!(error.contains("'x'") && error.contains("string"), "{error}");
    let error = says(
        r#"[{ "op": "Bucketize", "boundaries": [2, 1] }]"#,
        ints.clone(),
    );
    assert!(error.contains("ascending"), "{error}");
    let error = says(r#"[{ "op": "ListSlice", "start": 0, "end": 2 }]"#, ints);
    assert!(
        error.contains("int32") && error.contains("lists"),
        "{error}"
    );
    let error = serde_json::from_str::<Operator>(r#"{ "op": "Bucketise" }"#).unwrap_err();
    assert!(error.to_string().contains("Bucketize"), "{error}");
    let error =
        serde_json::from_str::<Operator>(r#"{ "op": "Normalize", "type": 1 }"#).unwrap_err();
    assert!(error.to_string().contains("dtype"), "{error}");
}

#[test]
fn a_workflow_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("workflow.json");
    std::fs::write(&path, r#"{ "format": 4, "something": "new" }"#).unwrap();
    let error = Workflow::load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("format 4") && error.contains("workflow.json"),
        "{error}"
    );
    std::fs::write(
        &path,
        r#"{ "format": 1, "inputs": [{ "name": "x", "dtype": "int32" }], "chains": [{ "columns": ["x"], "operators": [{
            "operator": { "op": "Categorify" }, "fitted": { "kind": "vocabularies", "vocabularies": [{ "name": "x", "file": "../x.parquet" }] } }] }] }"#,
    )
    .unwrap();
    let error = Workflow::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("inside"), "{error}");
}
