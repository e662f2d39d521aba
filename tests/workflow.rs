//! `saker workflow`: from NVTabular's form to ours and back, and what it shows.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Exit code and everything printed.
fn saker(arguments: &[&Path]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_saker"))
        .arg("workflow")
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn nvtabulars_graph_is_imported_shown_and_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours");
    let graph = root().join("tests/data/nvtabular-graph");
    let import = |to: &Path| saker(&[Path::new("import"), &graph, to]);
    let (status, said) = import(&ours);
    assert_eq!(status, Some(0), "{said}");
    assert!(ours.join("workflow.json").exists());

    let (status, shown) = saker(&[Path::new("show"), &ours]);
    assert_eq!(status, Some(0), "{shown}");
    for part in [
        "user_id: int32",
        "codes, tags id user",
        "age: mean 53",
        "score: median 0.2",
        "Bucketize boundaries=[18.0,25.0,35.0,50.0,65.0]",
        "TE_gender_click: float32",
        "and by fold",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    // NVTabular's own folder shows the same.
    assert_eq!(saker(&[Path::new("show"), &graph]).1, shown);

    let (status, said) = import(&ours);
    assert!(status == Some(1) && said.contains("is not empty"), "{said}");
    // A combination of columns has no form in graph.json.
    let (status, said) = saker(&[Path::new("export"), &ours, &folder.path().join("back")]);
    assert!(
        status == Some(1) && said.contains("gender, click") && said.contains("combinations"),
        "{said}"
    );
}

#[test]
fn what_is_exported_is_imported_again() {
    let folder = tempfile::tempdir().unwrap();
    let ours = root().join("tests/data/nvtabular-graph");
    let (_, shown) = saker(&[Path::new("show"), &ours]);
    assert!(!shown.is_empty());
    // The workflow of the cases' users: ids, numbers and bins.
    let made = folder.path().join("made");
    let table = saker_workflow::read_parquet(
        &root().join("tests/data/nvtabular/user_workflow/fit.parquet"),
    )
    .unwrap();
    let definition = serde_json::from_str(
        r#"{ "chains": [{ "columns": ["user_id", "gender"], "operators": [{ "op": "Categorify" }] },
            { "columns": ["age"], "operators": [{ "op": "Normalize" }, { "op": "Rename", "name": "age_norm" }] }] }"#,
    )
    .unwrap();
    let workflow = saker_workflow::Workflow::fit(definition, &[table]).unwrap();
    workflow.save(&made).unwrap();
    let (exported, again) = (folder.path().join("exported"), folder.path().join("again"));
    for arguments in [
        ["export".as_ref(), made.as_path(), &exported],
        ["import".as_ref(), &exported, &again],
    ] {
        let (status, said) = saker(&arguments);
        assert_eq!(status, Some(0), "{said}");
    }
    let outputs = |folder: &Path| {
        let workflow = saker_workflow::Workflow::load(folder).unwrap();
        let outputs = workflow.outputs().iter();
        let outputs: Vec<_> = outputs
            .map(|o| (o.name.clone(), o.dtype, o.cardinality))
            .collect();
        outputs
    };
    assert_eq!(outputs(&again), outputs(&made));
}
