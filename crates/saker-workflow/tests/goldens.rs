//! Every case of tests/data/nvtabular: what NVTabular 23.8 saved and gave.
//!
//! *Apply*: a workflow folder made of the case's saved vocabularies and fitted numbers transforms apply.parquet into
//! expected.parquet, integers exactly, floats to 1e-6 relative. *Fit*: our own fit on fit.parquet finds the same numbers and
//! vocabularies, and what it saves and loads transforms as before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use arrow::compute::cast;
use arrow::record_batch::RecordBatch;
use saker_workflow::operators::{ColumnStatistics, Statistics, Target};
use saker_workflow::{Definition, Fitted, GroupTable, Keys, Vocabulary, Workflow, read_parquet};
use serde_json::{Value, json};

mod support;

use support::{compare, near};

/// A test for each case, with the definition that reproduces it.
macro_rules! cases {
    ($($case:ident => $definition:expr,)+) => {
        mod cases {
            use super::*;

            $(#[test]
            fn $case() {
                reproduce(stringify!($case), &$definition);
            })+
        }

        #[test]
        fn every_folder_is_a_case() {
            let cases = BTreeSet::from([$(stringify!($case).to_owned()),+]);
            let folders = fs::read_dir(data()).unwrap().map(|entry| entry.unwrap());
            let folders = folders.filter(|entry| entry.path().is_dir());
            let folders = folders.map(|entry| entry.file_name().into_string().unwrap());
            assert_eq!(folders.collect::<BTreeSet<_>>(), cases);
        }
    };
}

/// Boundaries of ages.
const AGES: [i32; 5] = [18, 25, 35, 50, 65];

/// NVTabular hashes a value together with its row number; ours reproduces that only when asked to.
const HASH: &str = "value_and_row";

/// One chain.
fn chain(columns: &[&str], operators: Value) -> Value {
    json!({ "chains": [{ "columns": columns, "operators": operators }] })
}

cases! {
    bucketize => chain(
        &["age"],
        json!([{ "op": "Bucketize", "boundaries": AGES }, { "op": "Rename", "name": "age_binned" }]),
    ),
    bucketize_categorify => chain(
        &["age"],
        json!([{ "op": "Bucketize", "boundaries": AGES }, { "op": "Rename", "name": "age_binned" },
            { "op": "Categorify" }]),
    ),
    categorify_combo => chain(
        &["gender", "brand"],
        json!([{ "op": "Categorify", "encode_type": "combo" }]),
    ),
    categorify_freq_buckets => chain(
        &["user_id"],
        json!([{ "op": "Categorify", "freq_threshold": 5, "num_buckets": 8, "hash": HASH }]),
    ),
    categorify_freq_threshold => chain(
        &["user_id"],
        json!([{ "op": "Categorify", "freq_threshold": 5 }]),
    ),
    categorify_int => chain(
        &["user_id", "item_id", "gender"],
        json!([{ "op": "Categorify" }]),
    ),
    categorify_joint => chain(
        &["user_id", "item_id"],
        json!([{ "op": "Categorify", "encode_type": "joint" }]),
    ),
    categorify_max_size => chain(
        &["user_id"],
        json!([{ "op": "Categorify", "max_size": 50 }]),
    ),
    categorify_num_buckets => chain(
        &["user_id"],
        json!([{ "op": "Categorify", "num_buckets": 10, "hash": HASH }]),
    ),
    categorify_string_null => chain(&["brand"], json!([{ "op": "Categorify" }])),
    clip => chain(
        &["amount"],
        json!([{ "op": "Clip", "min": -10, "max": 25.5 }]),
    ),
    difference_lag => chain(
        &["timestamp"],
        json!([{ "op": "DifferenceLag", "partition": ["user_id"], "shift": [1] }]),
    ),
    fill_median => chain(&["score"], json!([{ "op": "FillMedian" }])),
    fill_missing => chain(&["score"], json!([{ "op": "FillMissing", "value": -7 }])),
    fill_missing_flag => chain(
        &["score"],
        json!([{ "op": "FillMissing", "add_binary_cols": true }]),
    ),
    hash_bucket => json!({ "chains": [
        { "columns": ["user_id"], "operators": [{ "op": "HashBucket", "num_buckets": 97, "hash": HASH }] },
        { "columns": ["item_id"], "operators": [{ "op": "HashBucket", "num_buckets": 13, "hash": HASH }] },
    ] }),
    hashed_cross => chain(
        &["user_id", "item_id"],
        json!([{ "op": "HashedCross", "num_buckets": 1000, "hash": HASH }]),
    ),
    join_groupby => chain(
        &["click"],
        json!([{ "op": "JoinGroupby", "columns": ["price"],
            "stats": ["count", "sum", "mean", "std", "min", "max"] }]),
    ),
    list_categorify => chain(&["hist"], json!([{ "op": "Categorify" }])),
    list_slice => chain(
        &["hist"],
        json!([{ "op": "ListSlice", "start": -3, "pad": true }]),
    ),
    list_slice_head => chain(
        &["hist"],
        json!([{ "op": "ListSlice", "start": 0, "end": 2 }]),
    ),
    log_normalize => chain(
        &["price"],
        json!([{ "op": "LogOp" }, { "op": "Normalize" }, { "op": "Rename", "postfix": "_log_norm" }]),
    ),
    minmax => chain(
        &["amount", "age"],
        json!([{ "op": "NormalizeMinMax", "dtype": "float64" }]),
    ),
    normalize_f32 => chain(&["age"], json!([{ "op": "Normalize" }])),
    normalize_f64 => chain(
        &["amount"],
        json!([{ "op": "Normalize", "dtype": "float64" }]),
    ),
    target_encoding => chain(
        &["brand", "gender"],
        json!([{ "op": "TargetEncoding", "target": "click", "p_smooth": 20 }]),
    ),
    time_features => json!({ "chains": ([("hour", 24), ("weekday", 7)].iter().flat_map(|(unit, period)| {
        let name = if *unit == "hour" { "hour" } else { "day_of_week" };
        ["sine", "cosine"].map(|wave| json!({ "columns": ["timestamp"], "operators": [
            { "op": "LambdaOp", "function": unit },
            { "op": "LambdaOp", "function": wave, "period": period },
            { "op": "Rename", "name": format!("{name}_{wave}") },
        ] }))
    }).collect::<Vec<_>>()) }),
    user_workflow => json!({ "chains": [
        { "columns": ["user_id", "gender"], "operators": [{ "op": "Categorify" }] },
        { "columns": ["age"], "operators": [{ "op": "Normalize" }, { "op": "Rename", "name": "age_norm" }] },
        { "columns": ["age"], "operators": [{ "op": "Bucketize", "boundaries": AGES },
            { "op": "Rename", "name": "age_binned" }, { "op": "Categorify" }] },
    ] }),
    value_count => chain(&["hist"], json!([{ "op": "ValueCount" }])),
    target_encoding_kfold => chain(
        &["user_id", "gender"],
        json!([{ "op": "TargetEncoding", "target": "click", "p_smooth": 10, "kfold": 3 }]),
    ),
    target_encoding_folds_in_turn => chain(
        &["user_id", "gender"],
        json!([{ "op": "TargetEncoding", "target": "click", "group": "combo", "kfold": 5, "fold_seed": null }]),
    ),
    drop_low_cardinality => chain(
        &["gender", "brand", "age"],
        json!([{ "op": "Categorify", "dtype": "int64" }, { "op": "DropLowCardinality", "min_cardinality": 6 }]),
    ),
    filter => table(
        json!({ "op": "Filter", "condition": { "or": [
            { "and": [{ "column": "price", "is": ">=", "value": 20 }, { "column": "age", "is": "<", "value": 65 }] },
            { "column": "brand", "is": "==", "value": "eff" },
        ] } }),
        &["price", "age", "brand"],
    ),
    dropna => table(
        json!({ "op": "Dropna", "columns": ["score", "price"] }),
        &["score", "price"],
    ),
    groupby => table(
        json!({ "op": "Groupby", "groupby_cols": ["user_id"], "sort_cols": ["timestamp"], "aggs": {
            "price": ["list", "sum", "mean", "std", "var", "min", "max", "median"],
            "score": ["first", "last", "count", "mean"],
            "brand": ["nunique", "last"],
            "timestamp": ["first", "last"],
        } }),
        &[
            "user_id",
            "price_list",
            "price_sum",
            "price_mean",
            "price_std",
            "price_var",
            "price_min",
            "price_max",
            "price_median",
            "score_first",
            "score_last",
            "score_count",
            "score_mean",
            "brand_nunique",
            "brand_last",
            "timestamp_first",
            "timestamp_last",
        ],
    ),
    groupby_descending => table(
        json!({ "op": "Groupby", "groupby_cols": ["user_id", "gender"], "sort_cols": ["timestamp"],
            "ascending": false, "name_sep": "-", "aggs": { "price": ["list", "first", "last"] } }),
        &[
            "user_id",
            "gender",
            "price-list",
            "price-first",
            "price-last",
        ],
    ),
    join_external => table(
        json!({ "op": "JoinExternal", "path": file("join_external/external.parquet"), "on": ["item_id"],
            "on_ext": ["item"], "columns_ext": ["item", "stock", "colour"] }),
        &["item_id", "price", "item", "stock", "colour"],
    ),
    join_external_inner => table(
        json!({ "op": "JoinExternal", "path": file("join_external_inner/external.parquet"), "on": ["item_id"],
            "how": "inner", "columns_ext": ["item_id", "colour"], "drop_duplicates_ext": true }),
        &["item_id", "price", "colour"],
    ),
    column_similarity_tfidf => similarity("column_similarity_tfidf", "tfidf"),
    column_similarity_cosine => similarity("column_similarity_cosine", "cosine"),
    column_similarity_inner => similarity("column_similarity_inner", "inner"),
    reduce_dtype_size => chain(
        &["age", "user_id", "item_id", "timestamp", "score", "price"],
        json!([{ "op": "ReduceDtypeSize" }]),
    ),
    data_stats => chain(&["age", "score", "brand"], json!([{ "op": "DataStats" }])),
    tags => json!({ "chains": [
        { "columns": ["user_id"], "operators": [{ "op": "Categorify", "dtype": "int64" }, { "op": "TagAsUserID" }] },
        { "columns": ["item_id"], "operators": [{ "op": "Categorify", "dtype": "int64" }, { "op": "TagAsItemID" }] },
        { "columns": ["age"], "operators": [{ "op": "Normalize", "dtype": "float64" }, { "op": "TagAsUserFeatures" }] },
        { "columns": ["price"], "operators": [
            { "op": "AddMetadata", "tags": ["item", "context"], "properties": { "unit": "euro" } }] },
    ] }),
    list_normalize => chain(&["words"], json!([{ "op": "Normalize" }])),
}

/// One operator over the table, and the columns after it as they are.
fn table(operator: Value, columns: &[&str]) -> Value {
    json!({ "table": [operator], "chains": [{ "columns": columns }] })
}

fn similarity(case: &str, metric: &str) -> Value {
    json!({ "chains": [{ "columns": ["item_id", "other_id"], "operators": [{ "op": "ColumnSimilarity",
        "left": file(&format!("{case}/matrix.parquet")), "metric": metric, "dtype": "float64" }] }] })
}

fn file(path: &str) -> PathBuf {
    data().join(path)
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
                for tables in ["tables", "folds"] {
                    for table in state
                        .get_mut(tables)
                        .and_then(Value::as_array_mut)
                        .into_iter()
                        .flatten()
                    {
                        let key = table["name"].as_str().unwrap().to_owned();
                        table["file"] = json!(format!("categories/cat_stats.{key}.parquet"));
                    }
                }
            }
            if name == "ReduceDtypeSize" {
                // Ours keeps the ranges of integers, which choose a type by them.
                for (column, range) in state["ranges"].as_object_mut().unwrap() {
                    *range = numbers["ranges"][column].clone();
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

/// Cases that must agree in every bit.
const BIT_EXACT: [&str; 9] = [
    "column_similarity_cosine",
    "column_similarity_inner",
    "filter",
    "join_external",
    "join_external_inner",
    "log_normalize",
    "normalize_f32",
    "normalize_f64",
    "time_features",
];

fn check_applied(case: &str, workflow: &Workflow, applied: &RecordBatch) -> Result<(), String> {
    // With folds, NVTabular applies as it fits: every row out of its fold.
    let ours = workflow.out_of_fold().apply(applied);
    let ours = ours.map_err(|error| error.to_string())?;
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
        let (ours, mut theirs) = (column(&ours), column(&theirs));
        // pandas has keys of 64 bits only, and lists of Python's numbers; ours keep the column's type.
        if case.starts_with("groupby") {
            theirs = cast(&theirs, ours.data_type()).unwrap();
        }
        compare(&name, &ours, &theirs, tolerance, 0.0)?;
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
    let keys: Vec<&str> = ours.keys().iter().map(|(name, _)| name.as_str()).collect();
    for suffix in [
        "count",
        "click_sum",
        "price_sum",
        "price_mean",
        "price_std",
        "price_min",
        "price_max",
    ] {
        let name = format!("{}_{suffix}", keys.join("_"));
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

fn check_target(ours: &Target, theirs: &Target) -> Result<(), String> {
    if !near(ours.mean, theirs.mean, 1e-6) {
        return Err(format!("target mean {}, not {}", ours.mean, theirs.mean));
    }
    let numbers = |state: &Target| (state.tables.len(), state.folds.len());
    if numbers(ours) != numbers(theirs) {
        return Err("another number of tables".to_owned());
    }
    let theirs = theirs.tables.iter().chain(&theirs.folds);
    for (ours, theirs) in ours.tables.iter().chain(&ours.folds).zip(theirs) {
        check_table(ours, theirs)?;
    }
    Ok(())
}

fn check_statistics(ours: &Statistics, theirs: &Statistics) -> Result<(), String> {
    let parts = |s: &ColumnStatistics| [s.min, s.max, s.mean, s.std, Some(s.per_nan)];
    for (name, ours) in &ours.columns {
        let theirs = &theirs.columns[name];
        let close = |(a, b): (Option<f64>, Option<f64>)| match (a, b) {
            (Some(a), Some(b)) => near(a, b, 1e-9),
            (a, b) => a == b,
        };
        if ours.cardinality != theirs.cardinality
            || ours.dtype != theirs.dtype
            || !parts(ours).into_iter().zip(parts(theirs)).all(close)
        {
            return Err(format!("statistics of {name}: {ours:?}, not {theirs:?}"));
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
            (Fitted::Moments(ours), Fitted::Moments(theirs)) => {
                numbers("mean", &ours.means, &theirs.means)?;
                numbers("std", &ours.stds, &theirs.stds)?;
            }
            (Fitted::Extremes(ours), Fitted::Extremes(theirs)) => {
                numbers("min", &ours.mins, &theirs.mins)?;
                numbers("max", &ours.maxs, &theirs.maxs)?;
            }
            (Fitted::Medians(ours), Fitted::Medians(theirs)) => {
                numbers("median", &ours.medians, &theirs.medians)?;
            }
            (Fitted::Lengths(_), Fitted::Lengths(_)) => {}
            (Fitted::Vocabularies(ours), Fitted::Vocabularies(theirs)) => {
                for (ours, theirs) in ours.vocabularies.iter().zip(&theirs.vocabularies) {
                    check_vocabulary(ours, theirs, case == "categorify_max_size")?;
                }
            }
            (Fitted::Groups(ours), Fitted::Groups(theirs)) => {
                for (ours, theirs) in ours.tables.iter().zip(&theirs.tables) {
                    check_table(ours, theirs)?;
                }
            }
            (Fitted::Target(ours), Fitted::Target(theirs)) => check_target(ours, theirs)?,
            (Fitted::Ranges(ours), Fitted::Ranges(theirs)) => {
                if ours != theirs {
                    return Err(format!("ranges {ours:?}, not {theirs:?}"));
                }
            }
            (Fitted::Statistics(ours), Fitted::Statistics(theirs)) => {
                check_statistics(ours, theirs)?;
            }
            (Fitted::Columns(ours), Fitted::Columns(theirs)) if ours == theirs => {}
            (Fitted::Similarity(ours), Fitted::Similarity(theirs))
                if ours.left == theirs.left && ours.right == theirs.right => {}
            _ => return Err("kinds of fitted state differ".to_owned()),
        }
    }
    Ok(())
}

/// What NVTabular says of the columns, and records of them, beside their values.
fn check_said(ours: &Workflow, info: &Value) -> Result<(), String> {
    for (name, tags) in info["tags"].as_object().into_iter().flatten() {
        let output = ours.output(name).ok_or("a tagged column is missing")?;
        // NVTabular's own operators add the kind of their output to what the tag operators say.
        let mut theirs: Vec<&str> = (tags.as_array().unwrap().iter())
            .filter_map(Value::as_str)
            .filter(|tag| !["categorical", "continuous"].contains(tag))
            .collect();
        let mut tags: Vec<&str> = output.tags.iter().map(String::as_str).collect();
        tags.sort_unstable();
        theirs.sort_unstable();
        if tags != theirs {
            return Err(format!("tags of {name}: {tags:?}, not {theirs:?}"));
        }
    }
    for (name, properties) in info["properties"].as_object().into_iter().flatten() {
        let output = ours
            .output(name)
            .ok_or("a column with properties is missing")?;
        if json!(output.properties) != *properties {
            return Err(format!("properties of {name}: {:?}", output.properties));
        }
    }
    for states in ours.fitted() {
        for state in states {
            if let Fitted::Statistics(Statistics { columns }) = state {
                for (name, ours) in columns {
                    let theirs = &info["fitted"]["DataStats"]["columns"][name];
                    for (what, ours) in [
                        ("min", ours.min),
                        ("max", ours.max),
                        ("mean", ours.mean),
                        ("std", ours.std),
                        ("per_nan", Some(ours.per_nan)),
                        ("cardinality", ours.cardinality.map(|n| n as f64)),
                    ] {
                        let same = match (ours, theirs[what].as_f64()) {
                            (Some(ours), Some(theirs)) => near(ours, theirs, 1e-9),
                            (ours, theirs) => ours == theirs,
                        };
                        if !same {
                            return Err(format!("{what} of {name}: {ours:?}, not {theirs}"));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Fails with what differs.
fn reproduce(case: &str, definition: &Value) {
    if let Err(error) = run_case(case, definition) {
        panic!("{case} is not reproduced: {error}");
    }
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
    check_said(&ours, &info)?;

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
            compare(field.name(), a.column(index), b.column(index), 0.0, 0.0)
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
