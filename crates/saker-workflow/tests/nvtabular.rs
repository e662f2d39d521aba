//! Workflows from NVTabular and back: its JSON form, and what `scripts/export-nvtabular` makes of the pickles of the real NVTabular
//! 23.8, which runs here from the pins of tests/data/nvtabular.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::compute::cast;
use arrow::record_batch::RecordBatch;
use saker_workflow::{Definition, Fitted, Plan, Workflow, nvtabular, read_parquet, write_batch};
use serde_json::{Value, json};

mod support;

use support::compare;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python that NVTabular is installed in.
fn python() -> PathBuf {
    let path = match std::env::var_os("SAKER_NVTABULAR") {
        Some(path) => PathBuf::from(path),
        None => {
            let cache = std::env::var_os("SAKER_CACHE").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/saker"),
                PathBuf::from,
            );
            cache.join("runtime/nvtabular/bin/python")
        }
    };
    assert!(
        path.exists(),
        "{} is missing: run scripts/install, or let SAKER_NVTABULAR name a Python with NVTabular 23.8",
        path.display()
    );
    path
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The folders in `folder` that hold `mark`, by name: one for each case.
fn cases(folder: &Path, mark: &str) -> Vec<String> {
    let mut cases: Vec<String> = (fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join(mark).exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 45, "cases are missing: {cases:?}");
    cases
}

/// `loose`: NVTabular's types are wider than ours.
fn check(name: &str, ours: &RecordBatch, theirs: &RecordBatch, loose: bool) -> Result<(), String> {
    check_from(0.0, name, ours, theirs, loose)
}

/// Floats may differ by `least`.
fn check_from(
    least: f64,
    name: &str,
    ours: &RecordBatch,
    theirs: &RecordBatch,
    loose: bool,
) -> Result<(), String> {
    if ours.num_columns() != theirs.num_columns() {
        return Err(format!(
            "{name}: columns {:?}, not {:?}",
            ours.schema().fields(),
            theirs.schema().fields()
        ));
    }
    for (field, theirs) in theirs.schema().fields().iter().zip(theirs.columns()) {
        let column = field.name();
        let ours = ours
            .column_by_name(column)
            .ok_or_else(|| format!("{name}: column '{column}' is missing"))?;
        let theirs = if loose {
            cast(theirs, ours.data_type()).unwrap()
        } else {
            theirs.clone()
        };
        compare(column, ours, &theirs, 1e-6, least).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

#[test]
fn reads_what_nvtabular_saves_after_23_8() {
    let folder = repository().join("tests/data/nvtabular-graph");
    let workflow = nvtabular::import(&folder).unwrap();
    let applied = read_parquet(&folder.join("apply.parquet")).unwrap();
    let expected = read_parquet(&folder.join("expected.parquet")).unwrap();
    let output = workflow.out_of_fold().apply(&applied).unwrap();
    check("graph.json", &output, &expected, false).unwrap();
    // The outputs stand in NVTabular's order, and its tags are kept.
    let names = |batch: &RecordBatch| -> Vec<String> {
        let schema = batch.schema();
        schema.fields().iter().map(|f| f.name().clone()).collect()
    };
    assert_eq!(names(&output), names(&expected));
    assert_eq!(workflow.output("user_id").unwrap().tags, ["id", "user"]);
    assert_eq!(workflow.output("price").unwrap().properties["unit"], "euro");

    // As a workflow of ours it is the same.
    let kept = tempfile::tempdir().unwrap();
    workflow.save(kept.path()).unwrap();
    let output = Workflow::load(kept.path()).unwrap();
    let output = output.out_of_fold().apply(&applied).unwrap();
    check("workflow.json", &output, &expected, false).unwrap();
}

/// Every operator that graph.json has a form for: exported and read again, it transforms as before.
#[test]
fn writes_what_nvtabular_reads() {
    let data = repository().join("tests/data/nvtabular-graph");
    let definition: Definition = serde_json::from_value(json!({ "chains": [
        { "columns": ["user_id"], "operators": [{ "op": "TagAsUserID" }, { "op": "Categorify" }] },
        { "columns": ["gender", "click"], "operators": [
            { "op": "Categorify", "encode_type": "joint", "dtype": "int64", "num_buckets": 3, "hash": "value_and_row" }] },
        { "columns": ["hist"], "operators": [{ "op": "Categorify" }, { "op": "ListSlice", "start": 0, "end": 2 }] },
        { "columns": ["age"], "operators": [{ "op": "Rename", "name": "age_binned" },
            { "op": "Bucketize", "boundaries": [18, 25, 35.5] }, { "op": "Categorify" }] },
        { "columns": ["age"], "operators": [{ "op": "Normalize" }] },
        { "columns": ["price"], "operators": [{ "op": "LogOp" }, { "op": "NormalizeMinMax", "dtype": "float64" },
            { "op": "Rename", "postfix": "_log" }] },
        { "columns": ["score"], "operators": [{ "op": "FillMedian", "add_binary_cols": true }] },
        { "columns": ["price"], "operators": [{ "op": "Clip", "min": 2, "max": 40 }, { "op": "FillMissing", "value": -1 },
            { "op": "AddProperties", "properties": { "unit": "euro" } }] },
        { "columns": ["item_id"], "operators": [{ "op": "HashBucket", "num_buckets": 50, "hash": "value_and_row" }] },
        { "columns": ["brand"], "operators": [{ "op": "JoinGroupby", "columns": ["price"], "stats": ["count", "mean"] }] },
        { "columns": ["brand"], "operators": [{ "op": "TargetEncoding", "target": "click", "kfold": 3 }] },
    ] }))
    .unwrap();
    let table = read_parquet(&data.join("apply.parquet")).unwrap();
    let workflow = Workflow::fit(definition, std::slice::from_ref(&table)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    nvtabular::export(&workflow, folder.path()).unwrap();
    let expected = workflow.out_of_fold().apply(&table).unwrap();
    let read = nvtabular::import(folder.path()).unwrap();
    let output = read.out_of_fold().apply(&table).unwrap();
    check("graph.json", &output, &expected, false).unwrap();
    assert_eq!(output.schema(), expected.schema());
    assert_eq!(read.output("user_id").unwrap().tags, ["id", "user"]);

    let refused = |operators: Value| {
        let definition = json!({ "chains": [{ "columns": ["item_id"], "operators": operators }] });
        let definition: Definition = serde_json::from_value(definition).unwrap();
        let workflow = Workflow::fit(definition, std::slice::from_ref(&table)).unwrap();
        nvtabular::export(&workflow, folder.path())
            .unwrap_err()
            .to_string()
    };
    let error = refused(json!([{ "op": "Categorify", "padding": -1 }]));
    assert!(
        error.contains("'item_id'") && error.contains("padding"),
        "{error}"
    );
    let error = refused(json!([{ "op": "HashBucket", "num_buckets": 9 }]));
    assert!(error.contains("value_and_row"), "{error}");
    let error = refused(json!([{ "op": "LambdaOp", "function": "hour" }]));
    assert!(error.contains("LambdaOp"), "{error}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let data = fs::canonicalize(repository().join("tests/data/nvtabular-graph")).unwrap();
    let graph = fs::read_to_string(data.join("graph.json")).unwrap();
    let graph: Value = serde_json::from_str(&graph).unwrap();
    let says = |change: &dyn Fn(&mut Value)| {
        let folder = tempfile::tempdir().unwrap();
        let mut graph = graph.clone();
        change(&mut graph);
        std::os::unix::fs::symlink(data.join("artifacts"), folder.path().join("artifacts"))
            .unwrap();
        fs::write(folder.path().join("graph.json"), graph.to_string()).unwrap();
        nvtabular::import(folder.path()).unwrap_err().to_string()
    };
    let node = |graph: &mut Value, class: &str| {
        let nodes = graph["nodes"].as_array_mut().unwrap();
        let found = nodes
            .iter()
            .position(|n| n["op_class"].as_str().unwrap().ends_with(class));
        found.unwrap()
    };
    let error = says(&|graph| graph["format_version"] = json!(2));
    assert!(error.contains("format_version 2"), "{error}");
    let error = says(&|graph| {
        let at = node(graph, "Clip");
        graph["nodes"][at]["op_class"] = json!("nvtabular.ops.lambdaop.LambdaOp");
        graph["nodes"][at]["op_params"] =
            json!({ "f": { "module": "shop", "qualname": "per_cent" } });
    });
    for part in [
        "price",
        "LambdaOp",
        "'shop.per_cent'",
        "hour, weekday, day and month",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let error = says(&|graph| {
        let at = node(graph, "Clip");
        graph["nodes"][at]["op_class"] = json!("shop.ops.Round");
    });
    assert!(error.contains("'Round'"), "{error}");
    let error = says(&|graph| {
        let at = node(graph, "Clip");
        graph["nodes"][at]["parent_ids"] = json!([at]);
    });
    assert!(error.contains("does not come before"), "{error}");
    let error = says(&|graph| {
        let at = node(graph, "Categorify");
        graph["nodes"][at]["op_state"]["categories"][0]["path"] = json!("../../../etc/passwd");
    });
    assert!(error.contains("inside"), "{error}");
    let error = says(&|graph| {
        // One of the columns that are joined at the end loses rows, the others do not.
        let at = node(graph, "Clip");
        graph["nodes"][at]["op_class"] = json!("nvtabular.ops.dropna.Dropna");
    });
    assert!(error.contains("does not pass through Dropna"), "{error}");
}

/// Fits every golden case in the real NVTabular, saves it, exports the pickle, reads that, and compares with NVTabular's own output.
#[test]
fn exports_of_the_real_nvtabular_transform_as_it_does() {
    let data = repository().join("tests/data/nvtabular");
    let work = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refit_goldens.py");
    let exporter = repository().join("scripts/export-nvtabular");
    let output = run(Command::new(python())
        .arg(script)
        .args([&data, &exporter, work.path()]));
    assert!(output.status.success());

    let cases = cases(&data, "case.json");
    let mut failed = Vec::new();
    for case in &cases {
        let folder = work.path().join(case);
        if case == "filter" {
            let refused = fs::read_to_string(folder.join("refused.txt")).unwrap();
            assert!(
                refused.contains("'price', 'age', 'brand'") && refused.contains("Python function"),
                "{refused}"
            );
            continue;
        }
        let applied = read_parquet(&data.join(case).join("apply.parquet")).unwrap();
        let result = nvtabular::import(&folder.join("exported"))
            .map_err(|error| format!("{case}: {error}"))
            .and_then(|workflow| {
                let theirs = read_parquet(&folder.join("expected.parquet")).unwrap();
                let ours = workflow.out_of_fold().apply(&applied);
                let ours = ours.map_err(|error| format!("{case}: {error}"))?;
                // pandas has keys of 64 bits only, and lists of Python's numbers.
                let loose = case.starts_with("groupby") || case.starts_with("list_");
                check(case, &ours, &theirs, loose)?;
                // What was fitted comes along.
                let fitted = workflow.fitted().iter().flatten();
                if case == "data_stats"
                    && !fitted.clone().any(|f| matches!(f, Fitted::Statistics(_)))
                {
                    return Err(format!("{case}: no statistics"));
                }
                Ok(())
            });
        match result {
            Ok(()) => println!("{case}: reproduced"),
            Err(error) => {
                println!("{error}");
                failed.push(case);
            }
        }
    }
    assert!(failed.is_empty(), "not reproduced: {failed:?}");

    // The program itself: from NVTabular's folder to ours.
    let exported = work.path().join("by_hand");
    let pickle = work.path().join("user_workflow/pickle");
    let output = run(Command::new(python())
        .arg(&exporter)
        .args([&pickle, &exported]));
    assert!(output.status.success());
    assert!(nvtabular::import(&exported).is_ok());
    let error = nvtabular::import(&pickle).unwrap_err().to_string();
    assert!(error.contains("scripts/export-nvtabular"), "{error}");
    let output = run(Command::new(python())
        .arg(&exporter)
        .args([&pickle, &exported]));
    assert_eq!(output.status.code(), Some(2), "a folder that is not empty");

    // A function that workflow.json has no name for.
    let saved = work.path().join("lambda");
    let code = format!(
        "import nvtabular as nvt, pandas as pd\n\
         w = nvt.Workflow(['price'] >> nvt.ops.LambdaOp(lambda x: x ** 2))\n\
         w.fit(nvt.Dataset(pd.DataFrame({{'price': [1.0, 2.0]}})))\n\
         w.save({:?})",
        saved.to_str().unwrap()
    );
    assert!(
        run(Command::new(python()).args(["-c", &code]))
            .status
            .success()
    );
    let out = work.path().join("lambda_exported");
    let output = run(Command::new(python()).arg(&exporter).args([&saved, &out]));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("'price'") && error.contains("hour, weekday, day and month"),
        "{error}"
    );
    assert!(!out.exists(), "half an export is left");
}

/// Workflows as people write them: each is exported and transforms as in NVTabular, or is refused with the reason.
#[test]
fn what_is_imported_means_what_it_meant() {
    let work = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imports.py");
    let exporter = repository().join("scripts/export-nvtabular");
    let output = run(Command::new(python())
        .arg(script)
        .arg(&exporter)
        .arg(work.path()));
    assert!(output.status.success());
    let applied = read_parquet(&work.path().join("apply.parquet")).unwrap();
    let cases = cases(work.path(), "pickle");
    let mut failed = Vec::new();
    for case in &cases {
        let folder = work.path().join(case);
        let refused = fs::read_to_string(folder.join("refused.txt"));
        let read = nvtabular::import(&folder.join("exported"));
        let result = match (case.starts_with("like_"), refused, read) {
            (true, Ok(reason), _) if reason.contains("its function") => Ok(()),
            (_, Ok(reason), _) => Err(format!("{case}: refused: {reason}")),
            (true, Err(_), _) => Err(format!("{case}: taken for a named function")),
            (false, Err(_), Err(error)) => match case.starts_with("refused_") {
                true if error.to_string().contains("rows") => Ok(()),
                _ => Err(format!("{case}: {error}")),
            },
            (false, Err(_), Ok(_)) if case.starts_with("refused_") => {
                Err(format!("{case}: not refused"))
            }
            (false, Err(_), Ok(workflow)) => as_in_nvtabular(case, &folder, &workflow, &applied),
        };
        if let Err(error) = result {
            println!("{error}");
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "not as in NVTabular: {failed:?}");
    versions_other_than_23_08_are_refused(&exporter, &work.path().join("filled_and_normalized"));
    vocabularies_of_older_versions_are_refused(&work.path().join("lists_of_two_lengths"));
}

/// An imported workflow gives NVTabular's columns, in its order, also after it was saved; it serves unless it changes rows.
fn as_in_nvtabular(
    case: &str,
    folder: &Path,
    workflow: &Workflow,
    applied: &RecordBatch,
) -> Result<(), String> {
    let theirs = read_parquet(&folder.join("expected.parquet")).unwrap();
    // NVTabular takes the fold of a row's number, in whatever it is applied to.
    let ours = workflow.out_of_fold().apply(applied);
    let ours = ours.map_err(|error| format!("{case}: {error}"))?;
    let names = |batch: &RecordBatch| -> Vec<String> {
        let schema = batch.schema();
        schema.fields().iter().map(|f| f.name().clone()).collect()
    };
    if names(&ours) != names(&theirs) {
        let (ours, theirs) = (names(&ours), names(&theirs));
        return Err(format!("{case}: {ours:?}, not {theirs:?}"));
    }
    // Functions give int32 and float32 here, int64 and float64 there. A wave near 0 is as exact as its angle, which has seven digits.
    let inexact = ["sine", "notebooks", "Lambda"];
    let least = if inexact.iter().any(|name| case.contains(name)) {
        1e-6
    } else {
        0.0
    };
    check_from(least, case, &ours, &theirs, true)?;
    let kept = tempfile::tempdir().unwrap();
    workflow.save(kept.path()).unwrap();
    let again = Workflow::load(kept.path()).map_err(|error| format!("{case}: {error}"))?;
    let again = again.out_of_fold().apply(applied).unwrap();
    if format!("{again:?}") != format!("{ours:?}") {
        return Err(format!("{case}: the saved workflow gives something else"));
    }
    if case.starts_with("session_") {
        let inputs = workflow.inputs().iter();
        let inputs: Vec<_> = inputs.map(|i| (i.name.as_str(), i.dtype)).collect();
        let error = Plan::prepare(workflow, &inputs).unwrap_err().to_string();
        let named = ["Groupby", "JoinExternal", "Dropna"];
        if !named.iter().any(|name| error.contains(name)) || !error.contains("cannot be served") {
            return Err(format!("{case}: {error}"));
        }
    }
    Ok(())
}

/// The exporter looks at the version that saved a workflow.
fn versions_other_than_23_08_are_refused(exporter: &Path, case: &Path) {
    let metadata = case.join("pickle/metadata.json");
    let out = case.join("by_hand");
    let text = fs::read_to_string(&metadata).unwrap();
    let with = |version: Value| {
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json["versions"]["nvtabular"] = version;
        fs::write(&metadata, json.to_string()).unwrap();
        let output = run(Command::new(python())
            .arg(exporter)
            .args([&case.join("pickle"), &out]));
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for version in [
        json!("23.02.00"),
        json!("23.06.00"),
        json!("1.8.1"),
        json!("24.08.00"),
    ] {
        let (status, error) = with(version.clone());
        let found = version.as_str().unwrap();
        assert!(
            status == Some(1) && error.contains(found) && error.contains("accepted is 23.08"),
            "{error}"
        );
        assert!(!out.exists(), "half an export is left");
    }
    let (status, error) = with(json!(null));
    assert!(
        status == Some(1) && error.contains("accepted is 23.08"),
        "{error}"
    );
    let (status, error) = with(json!("23.08.00"));
    assert!(status == Some(0), "{error}");
}

/// A null row heads the vocabularies of NVTabular before 23.06, whose codes begin elsewhere.
fn vocabularies_of_older_versions_are_refused(case: &Path) {
    let exported = case.join("exported");
    let vocabulary = (fs::read_dir(exported.join("artifacts")).unwrap())
        .map(|entry| entry.unwrap().path().join("categories/unique.a.parquet"))
        .find(|path| path.exists())
        .unwrap();
    let table = read_parquet(&vocabulary).unwrap();
    let columns = table.schema();
    let columns = columns.fields().iter().zip(table.columns());
    let with_null = columns.map(|(field, array)| {
        let null = arrow::array::new_null_array(array.data_type(), 1);
        (
            field.name(),
            arrow::compute::concat(&[&null, array]).unwrap(),
            true,
        )
    });
    let with_null = RecordBatch::try_from_iter_with_nullable(with_null).unwrap();
    fs::remove_file(&vocabulary).unwrap();
    write_batch(&vocabulary, &with_null).unwrap();
    let error = nvtabular::import(&exported).unwrap_err().to_string();
    for part in ["unique.a.parquet", "row 0", "null", "23.08"] {
        assert!(error.contains(part), "{error}");
    }
}

/// Cases that give something else than NVTabular, or are refused, and why. A `*` stands for any part of a name.
#[derive(serde::Deserialize)]
struct Difference {
    cases: Vec<String>,
    reason: String,
}

fn matches(pattern: &str, case: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == case,
        Some((start, rest)) => case.strip_prefix(start).is_some_and(|case| {
            let mut ends = case.char_indices().map(|(at, _)| at).chain([case.len()]);
            ends.any(|at| matches(rest, &case[at..]))
        }),
    }
}

/// Every operator over columns of every type, alone and in chains: as in NVTabular, or listed in `differences.json` with the reason.
///
/// A third of the cases takes half a minute; `SAKER_MATRIX=1` takes all of them.
#[test]
fn operators_over_every_type_are_nvtabulars() {
    let work = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let every = std::env::var("SAKER_MATRIX").unwrap_or_else(|_| "3".to_owned());
    let mut python = Command::new(python());
    python.arg(tests.join("matrix.py"));
    python.arg(repository().join("scripts/export-nvtabular"));
    assert!(run(python.arg(work.path()).arg(&every)).status.success());

    let differences = fs::read_to_string(tests.join("differences.json")).unwrap();
    let differences: Vec<Difference> = serde_json::from_str(&differences).unwrap();
    let patterns: Vec<&String> = differences.iter().flat_map(|d| &d.cases).collect();
    assert!(differences.iter().all(|d| !d.reason.is_empty()));
    let applied = read_parquet(&work.path().join("apply.parquet")).unwrap();
    let (mut wrong, mut equal) = (Vec::new(), 0);
    let mut used: BTreeSet<&String> = BTreeSet::new();
    for case in &cases(work.path(), "expected.parquet") {
        let folder = work.path().join(case);
        let result = match fs::read_to_string(folder.join("refused.txt")) {
            Ok(reason) => Err(format!("{case}: not exported: {reason}")),
            Err(_) => nvtabular::import(&folder.join("exported"))
                .map_err(|error| format!("{case}: not imported: {error}"))
                .and_then(|workflow| as_in_nvtabular(case, &folder, &workflow, &applied)),
        };
        let listed = patterns.iter().copied();
        let listed: Vec<_> = listed.filter(|p| matches(p, case)).collect();
        match result {
            Ok(()) if listed.is_empty() => equal += 1,
            Ok(()) => wrong.push(format!("{case}: as in NVTabular, but listed: {listed:?}")),
            Err(error) if listed.is_empty() => wrong.push(error),
            Err(_) => used.extend(listed),
        }
    }
    if every == "1" {
        let unused = patterns.iter().filter(|&&p| !used.contains(p));
        wrong.extend(unused.map(|pattern| format!("{pattern}: listed, but no case")));
    }
    println!("{equal} workflows as in NVTabular");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(equal >= 300, "cases are missing: {equal}");
}
