//! Every case of tests/data/nvtabular: what NVTabular 23.8 saved and gave.
//!
//! *Apply*: a workflow folder made of the case's saved vocabularies and fitted numbers transforms apply.parquet into
//! expected.parquet, integers exactly, floats to 1e-6 relative. *Fit*: our own fit on fit.parquet finds the same numbers and
//! vocabularies, and what it saves and loads transforms as before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use saker_workflow::{Definition, Fitted, GroupTable, Keys, Vocabulary, Workflow, read_parquet};
use serde_json::{Value, json};

/// The chains of each case, as they stand in a definition.
fn definitions() -> BTreeMap<&'static str, Value> {
    let chain = |columns: &[&str], operators: Value| json!({ "chains": [{ "columns": columns, "operators": operators }] });
    let bounds = json!([18, 25, 35, 50, 65]);
    // NVTabular hashes a value together with its row number; ours reproduces that only when asked to.
    let rows = "value_and_row";
    BTreeMap::from([
        (
            "bucketize",
            chain(
                &["age"],
                json!([{ "op": "Bucketize", "boundaries": bounds }, { "op": "Rename", "name": "age_binned" }]),
            ),
        ),
        (
            "bucketize_categorify",
            chain(
                &["age"],
                json!([{ "op": "Bucketize", "boundaries": bounds }, { "op": "Rename", "name": "age_binned" },
                    { "op": "Categorify" }]),
            ),
        ),
        (
            "categorify_combo",
            chain(
                &["gender", "brand"],
                json!([{ "op": "Categorify", "encode_type": "combo" }]),
            ),
        ),
        (
            "categorify_freq_buckets",
            chain(
                &["user_id"],
                json!([{ "op": "Categorify", "freq_threshold": 5, "num_buckets": 8, "hash": rows }]),
            ),
        ),
        (
            "categorify_freq_threshold",
            chain(
                &["user_id"],
                json!([{ "op": "Categorify", "freq_threshold": 5 }]),
            ),
        ),
        (
            "categorify_int",
            chain(
                &["user_id", "item_id", "gender"],
                json!([{ "op": "Categorify" }]),
            ),
        ),
        (
            "categorify_joint",
            chain(
                &["user_id", "item_id"],
                json!([{ "op": "Categorify", "encode_type": "joint" }]),
            ),
        ),
        (
            "categorify_max_size",
            chain(
                &["user_id"],
                json!([{ "op": "Categorify", "max_size": 50 }]),
            ),
        ),
        (
            "categorify_num_buckets",
            chain(
                &["user_id"],
                json!([{ "op": "Categorify", "num_buckets": 10, "hash": rows }]),
            ),
        ),
        (
            "categorify_string_null",
            chain(&["brand"], json!([{ "op": "Categorify" }])),
        ),
        (
            "clip",
            chain(
                &["amount"],
                json!([{ "op": "Clip", "min": -10, "max": 25.5 }]),
            ),
        ),
        (
            "difference_lag",
            chain(
                &["timestamp"],
                json!([{ "op": "DifferenceLag", "partition": ["user_id"], "shift": [1] }]),
            ),
        ),
        (
            "fill_median",
            chain(&["score"], json!([{ "op": "FillMedian" }])),
        ),
        (
            "fill_missing",
            chain(&["score"], json!([{ "op": "FillMissing", "value": -7 }])),
        ),
        (
            "fill_missing_flag",
            chain(
                &["score"],
                json!([{ "op": "FillMissing", "add_binary_cols": true }]),
            ),
        ),
        (
            "hash_bucket",
            json!({ "chains": [
                { "columns": ["user_id"], "operators": [{ "op": "HashBucket", "num_buckets": 97, "hash": rows }] },
                { "columns": ["item_id"], "operators": [{ "op": "HashBucket", "num_buckets": 13, "hash": rows }] },
            ] }),
        ),
        (
            "hashed_cross",
            chain(
                &["user_id", "item_id"],
                json!([{ "op": "HashedCross", "num_buckets": 1000, "hash": rows }]),
            ),
        ),
        (
            "join_groupby",
            chain(
                &["click"],
                json!([{ "op": "JoinGroupby", "columns": ["price"],
                    "stats": ["count", "sum", "mean", "std", "min", "max"] }]),
            ),
        ),
        (
            "list_categorify",
            chain(&["hist"], json!([{ "op": "Categorify" }])),
        ),
        (
            "list_slice",
            chain(
                &["hist"],
                json!([{ "op": "ListSlice", "start": -3, "pad": true }]),
            ),
        ),
        (
            "list_slice_head",
            chain(
                &["hist"],
                json!([{ "op": "ListSlice", "start": 0, "end": 2 }]),
            ),
        ),
        (
            "log_normalize",
            chain(
                &["price"],
                json!([{ "op": "LogOp" }, { "op": "Normalize" }, { "op": "Rename", "postfix": "_log_norm" }]),
            ),
        ),
        (
            "minmax",
            chain(
                &["amount", "age"],
                json!([{ "op": "NormalizeMinMax", "dtype": "float64" }]),
            ),
        ),
        (
            "normalize_f32",
            chain(&["age"], json!([{ "op": "Normalize" }])),
        ),
        (
            "normalize_f64",
            chain(
                &["amount"],
                json!([{ "op": "Normalize", "dtype": "float64" }]),
            ),
        ),
        (
            "target_encoding",
            chain(
                &["brand", "gender"],
                json!([{ "op": "TargetEncoding", "target": "click", "p_smooth": 20 }]),
            ),
        ),
        (
            "time_features",
            json!({ "chains": ([("hour", 24), ("weekday", 7)].iter().flat_map(|(unit, period)| {
                let name = if *unit == "hour" { "hour" } else { "day_of_week" };
                ["sine", "cosine"].map(|wave| json!({ "columns": ["timestamp"], "operators": [
                    { "op": "LambdaOp", "function": unit },
                    { "op": "LambdaOp", "function": wave, "period": period },
                    { "op": "Rename", "name": format!("{name}_{wave}") },
                ] }))
            }).collect::<Vec<_>>()) }),
        ),
        (
            "user_workflow",
            json!({ "chains": [
                { "columns": ["user_id", "gender"], "operators": [{ "op": "Categorify" }] },
                { "columns": ["age"], "operators": [{ "op": "Normalize" }, { "op": "Rename", "name": "age_norm" }] },
                { "columns": ["age"], "operators": [{ "op": "Bucketize", "boundaries": bounds },
                    { "op": "Rename", "name": "age_binned" }, { "op": "Categorify" }] },
            ] }),
        ),
        (
            "value_count",
            chain(&["hist"], json!([{ "op": "ValueCount" }])),
        ),
    ])
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/nvtabular")
}

/// A workflow folder with the case's saved state in place of our own fit's.
fn saved_workflow(case: &str, fitted: &Workflow, info: &Value) -> Workflow {
    let folder = tempfile::tempdir().unwrap();
    fitted.save(folder.path()).unwrap();
    let categories = data().join(case).join("saved/categories");
    if categories.exists() {
        fs::remove_dir_all(folder.path().join("categories")).unwrap();
        copy_folder(&categories, &folder.path().join("categories"));
    }
    let path = folder.path().join("workflow.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for chain in json["chains"].as_array_mut().unwrap() {
        for operator in chain["operators"].as_array_mut().unwrap() {
            let name = operator["operator"]["op"].as_str().unwrap().to_owned();
            let numbers = &info["fitted"][&name];
            let Some(state) = operator["fitted"].as_object_mut() else {
                continue;
            };
            for field in ["means", "stds", "mins", "maxs", "medians"] {
                if let (Some(ours), Some(theirs)) = (state.get_mut(field), numbers.get(field)) {
                    *ours = theirs.clone();
                }
            }
            if name == "TargetEncoding" {
                state["mean"] = numbers["means"]["click"].clone();
                for table in state["tables"].as_array_mut().unwrap() {
                    let key = table["name"].as_str().unwrap().to_owned();
                    table["file"] = json!(format!("categories/cat_stats.{key}.parquet"));
                }
            }
        }
    }
    fs::write(&path, json.to_string()).unwrap();
    Workflow::load(folder.path()).unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn near(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours.is_nan() && theirs.is_nan())
        || ours == theirs
        || (ours - theirs).abs() <= tolerance * theirs.abs().max(1e-30)
}

/// Compares two columns; missing values may be null in one and NaN in the other. Floats count as equal within `tolerance`, relative.
fn compare(name: &str, ours: &ArrayRef, theirs: &ArrayRef, tolerance: f64) -> Result<(), String> {
    if ours.len() != theirs.len() {
        return Err(format!("{name}: {} rows, not {}", ours.len(), theirs.len()));
    }
    if let DataType::List(_) = theirs.data_type() {
        let (ours, theirs) = (ours.as_list::<i32>(), theirs.as_list::<i32>());
        let lengths =
            |lists: &arrow::array::ListArray| lists.offsets().lengths().collect::<Vec<_>>();
        if lengths(ours) != lengths(theirs) {
            return Err(format!("{name}: list lengths differ"));
        }
        return compare(name, ours.values(), theirs.values(), tolerance);
    }
    if ours.data_type() != theirs.data_type() {
        return Err(format!(
            "{name}: type {}, not {}",
            ours.data_type(),
            theirs.data_type()
        ));
    }
    let tolerance = if theirs.data_type().is_floating() {
        tolerance
    } else {
        0.0
    };
    let numbers = |array: &ArrayRef| -> Vec<f64> {
        let array = cast(array, &DataType::Float64).unwrap();
        let array = array.as_primitive::<Float64Type>();
        array.iter().map(|x| x.unwrap_or(f64::NAN)).collect()
    };
    for (row, (ours, theirs)) in numbers(ours).into_iter().zip(numbers(theirs)).enumerate() {
        if !near(ours, theirs, tolerance) {
            return Err(format!("{name}, row {row}: {ours}, not {theirs}"));
        }
    }
    Ok(())
}

/// Cases that must agree in every bit.
const BIT_EXACT: [&str; 4] = [
    "log_normalize",
    "normalize_f32",
    "normalize_f64",
    "time_features",
];

fn check_applied(case: &str, workflow: &Workflow, applied: &RecordBatch) -> Result<(), String> {
    let ours = workflow.apply(applied).map_err(|error| error.to_string())?;
    let theirs = read_parquet(&data().join(case).join("expected.parquet")).unwrap();
    let names = |batch: &RecordBatch| -> BTreeSet<String> {
        batch
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect()
    };
    if names(&ours) != names(&theirs) {
        return Err(format!(
            "columns {:?}, not {:?}",
            names(&ours),
            names(&theirs)
        ));
    }
    let tolerance = if BIT_EXACT.contains(&case) { 0.0 } else { 1e-6 };
    for name in names(&theirs) {
        let column = |batch: &RecordBatch| batch.column_by_name(&name).unwrap().clone();
        compare(&name, &column(&ours), &column(&theirs), tolerance)?;
    }
    Ok(())
}

/// A vocabulary as sets of values by frequency: ties come in no reproducible order in NVTabular.
fn by_frequency(vocabulary: &Vocabulary) -> BTreeMap<i64, BTreeSet<String>> {
    let mut sets: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (row, &size) in vocabulary.sizes().iter().enumerate() {
        let value: Vec<String> = vocabulary
            .columns()
            .iter()
            .map(|(_, keys)| match keys {
                Keys::Int(keys) => format!("{:?}", keys[row]),
                Keys::String(keys) => format!("{:?}", keys[row]),
            })
            .collect();
        sets.entry(size).or_default().insert(value.join(" "));
    }
    sets
}

fn check_vocabulary(ours: &Vocabulary, theirs: &Vocabulary, cut: bool) -> Result<(), String> {
    if ours.start() != theirs.start() || ours.len() != theirs.len() {
        return Err(format!(
            "{}: start {} and {} values, not {} and {}",
            ours.name(),
            ours.start(),
            ours.len(),
            theirs.start(),
            theirs.len()
        ));
    }
    let (mut ours_sets, mut theirs_sets) = (by_frequency(ours), by_frequency(theirs));
    if cut {
        // Which of the tied values a limit cuts off is not reproducible: compare their number alone.
        let (a, b) = (ours_sets.pop_first(), theirs_sets.pop_first());
        let summary = |set: Option<(i64, BTreeSet<String>)>| set.map(|(n, set)| (n, set.len()));
        if summary(a) != summary(b) {
            return Err(format!(
                "{}: the least frequent values differ in number",
                ours.name()
            ));
        }
    }
    if ours_sets != theirs_sets {
        return Err(format!("{}: values or frequencies differ", ours.name()));
    }
    Ok(())
}

fn check_table(ours: &GroupTable, theirs: &GroupTable) -> Result<(), String> {
    let rows = |table: &GroupTable| -> Vec<String> {
        (0..table.keys()[0].1.len())
            .map(|row| {
                let parts: Vec<String> = table
                    .keys()
                    .iter()
                    .map(|(_, keys)| match keys {
                        Keys::Int(keys) => format!("{:?}", keys[row]),
                        Keys::String(keys) => format!("{:?}", keys[row]),
                    })
                    .collect();
                parts.join(" ")
            })
            .collect()
    };
    let (our_rows, their_rows) = (rows(ours), rows(theirs));
    let set = |rows: &[String]| rows.iter().cloned().collect::<BTreeSet<_>>();
    if set(&our_rows) != set(&their_rows) {
        return Err("keys differ".to_owned());
    }
    for suffix in [
        "count",
        "click_sum",
        "price_sum",
        "price_mean",
        "price_std",
        "price_min",
        "price_max",
    ] {
        let name = format!("{}_{suffix}", ours.keys()[0].0);
        let (Some(a), Some(b)) = (ours.statistic(&name), theirs.statistic(&name)) else {
            continue;
        };
        for (row, key) in our_rows.iter().enumerate() {
            let other = their_rows.iter().position(|k| k == key).unwrap();
            // NVTabular counts a null key's rows as 0, and so divides its target sum by the smoothing alone. Ours counts them.
            if key == "None" && suffix == "count" && a[row] != b[other] {
                if b[other] != 0.0 || a[row] <= 0.0 {
                    return Err(format!("{name} of null: {}, theirs {}", a[row], b[other]));
                }
                continue;
            }
            if !near(a[row], b[other], 1e-6) {
                return Err(format!("{name} of {key}: {}, not {}", a[row], b[other]));
            }
        }
    }
    Ok(())
}

fn check_fitted(case: &str, ours: &Workflow, saved: &Workflow) -> Result<(), String> {
    let numbers = |what: &str, a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>| {
        for (column, &theirs) in b {
            match a.get(column) {
                Some(&ours) if near(ours, theirs, 1e-6) => {}
                ours => return Err(format!("{what} of {column}: {ours:?}, not {theirs}")),
            }
        }
        Ok(())
    };
    let pairs = ours
        .fitted()
        .iter()
        .flatten()
        .zip(saved.fitted().iter().flatten());
    for (ours, saved) in pairs {
        match (ours, saved) {
            (Fitted::Nothing, Fitted::Nothing) => {}
            (
                Fitted::Moments { means, stds },
                Fitted::Moments {
                    means: their_means,
                    stds: their_stds,
                },
            ) => {
                numbers("mean", means, their_means)?;
                numbers("std", stds, their_stds)?;
            }
            (
                Fitted::Extremes { mins, maxs },
                Fitted::Extremes {
                    mins: their_mins,
                    maxs: their_maxs,
                },
            ) => {
                numbers("min", mins, their_mins)?;
                numbers("max", maxs, their_maxs)?;
            }
            (Fitted::Medians { medians }, Fitted::Medians { medians: theirs }) => {
                numbers("median", medians, theirs)?;
            }
            (Fitted::Lengths { .. }, Fitted::Lengths { .. }) => {}
            (Fitted::Vocabularies(ours), Fitted::Vocabularies(theirs)) => {
                for (ours, theirs) in ours.iter().zip(theirs) {
                    check_vocabulary(ours, theirs, case == "categorify_max_size")?;
                }
            }
            (Fitted::Groups(ours), Fitted::Groups(theirs)) => {
                for (ours, theirs) in ours.iter().zip(theirs) {
                    check_table(ours, theirs)?;
                }
            }
            (
                Fitted::Target { tables, mean },
                Fitted::Target {
                    tables: theirs,
                    mean: their_mean,
                },
            ) => {
                if !near(*mean, *their_mean, 1e-6) {
                    return Err(format!("target mean {mean}, not {their_mean}"));
                }
                for (ours, theirs) in tables.iter().zip(theirs) {
                    check_table(ours, theirs)?;
                }
            }
            _ => return Err("kinds of fitted state differ".to_owned()),
        }
    }
    Ok(())
}

fn run_case(case: &str, definition: &Value) -> Result<(), String> {
    let folder = data().join(case);
    let info: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
    let definition: Definition =
        serde_json::from_value(definition.clone()).map_err(|e| format!("definition: {e}"))?;
    let fit_on = read_parquet(&folder.join("fit.parquet")).unwrap();
    let applied = read_parquet(&folder.join("apply.parquet")).unwrap();

    let ours = Workflow::fit(definition.clone(), std::slice::from_ref(&fit_on))
        .map_err(|e| format!("fit: {e}"))?;
    let saved = saved_workflow(case, &ours, &info);
    check_applied(case, &saved, &applied).map_err(|e| format!("apply: {e}"))?;
    check_fitted(case, &ours, &saved).map_err(|e| format!("fit: {e}"))?;

    // In parts, the fit is the same; saved and loaded, it transforms the same; no rows give no rows.
    let parts: Vec<RecordBatch> = (0..fit_on.num_rows())
        .step_by(1500)
        .map(|at| fit_on.slice(at, 1500.min(fit_on.num_rows() - at)))
        .collect();
    let parted = Workflow::fit(definition, &parts).map_err(|e| format!("fit in parts: {e}"))?;
    check_fitted("", &parted, &ours).map_err(|e| format!("fit in parts: {e}"))?;
    let kept = tempfile::tempdir().unwrap();
    ours.save(kept.path()).map_err(|e| format!("save: {e}"))?;
    let loaded = Workflow::load(kept.path()).map_err(|e| format!("load: {e}"))?;
    if loaded.apply(&applied).unwrap() != ours.apply(&applied).unwrap() {
        // Equal but for NaN, which differs from itself.
        let (a, b) = (
            loaded.apply(&applied).unwrap(),
            ours.apply(&applied).unwrap(),
        );
        for (index, field) in b.schema().fields().iter().enumerate() {
            compare(field.name(), a.column(index), b.column(index), 0.0)
                .map_err(|e| format!("saved and loaded: {e}"))?;
        }
    }
    let empty = ours
        .apply(&applied.slice(0, 0))
        .map_err(|e| format!("no rows: {e}"))?;
    if empty.num_rows() != 0 || empty.num_columns() != ours.outputs().len() {
        return Err("no rows: the output is not empty".to_owned());
    }
    Ok(())
}

#[test]
fn every_case_of_nvtabular() {
    let definitions = definitions();
    let mut cases: Vec<String> = fs::read_dir(data())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 29, "cases are missing: {cases:?}");
    let mut failed = Vec::new();
    for case in &cases {
        let result = match definitions.get(case.as_str()) {
            Some(definition) => run_case(case, definition),
            None => Err("not reached: the test has no definition for it".to_owned()),
        };
        match result {
            Ok(()) => println!("{case}: reproduced"),
            Err(error) => {
                println!("{case}: NOT reproduced: {error}");
                failed.push(case);
            }
        }
    }
    assert!(failed.is_empty(), "not reproduced: {failed:?}");
}
