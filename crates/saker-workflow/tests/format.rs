//! Workflows that were saved by earlier versions keep loading, and transform as they did.

use std::path::Path;

use arrow::util::display::array_value_to_string;
use saker_workflow::{WORKFLOW_FILE, Workflow, read_parquet};

/// `workflow-1` holds a workflow of format 1 with every operator of its time, a table and what came out of it. `workflow-2` and
/// `workflow-2-table` hold what format 2 added: tags and folds, and operators over the table. `workflow-3` holds what format 3 added:
/// datetimes, units, a table of codes that columns share, and a definition in `before`.
#[test]
fn earlier_formats_load_and_transform_as_before() {
    for (format, name) in [
        (1, "workflow-1"),
        (2, "workflow-2"),
        (2, "workflow-2-table"),
        (3, "workflow-3"),
    ] {
        loads_and_transforms_as_before(format, name);
    }
}

fn loads_and_transforms_as_before(format: u32, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let json = std::fs::read_to_string(folder.join(WORKFLOW_FILE)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["format"], format, "{name}");
    let workflow = Workflow::load(&folder).unwrap();
    let input = read_parquet(&folder.join("input.parquet")).unwrap();
    let expected = read_parquet(&folder.join("expected.parquet")).unwrap();
    let output = workflow.apply(&input).unwrap();
    assert_eq!(output.num_columns(), expected.num_columns());
    assert_eq!(output.num_rows(), expected.num_rows());
    for (field, theirs) in expected.schema().fields().iter().zip(expected.columns()) {
        let ours = output.column_by_name(field.name()).unwrap();
        // As text: NaN equals itself there, and floats are written so that their bits come back.
        for row in 0..expected.num_rows() {
            let value = |array| array_value_to_string(array, row).unwrap();
            assert_eq!(
                value(ours),
                value(theirs),
                "{name}, {}, row {row}",
                field.name()
            );
        }
        assert_eq!(ours.data_type(), theirs.data_type(), "{}", field.name());
    }
}
