//! Workflows that were saved by earlier versions keep loading, and transform as they did.

use std::path::Path;

use arrow::util::display::array_value_to_string;
use saker_workflow::{Workflow, read_parquet};

/// `workflow-1` holds a workflow of format 1 with every operator of its time, a table and what came out of it.
#[test]
fn format_1_loads_and_transforms_as_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/workflow-1");
    let workflow = Workflow::load(&folder).unwrap();
    let input = read_parquet(&folder.join("input.parquet")).unwrap();
    let expected = read_parquet(&folder.join("expected.parquet")).unwrap();
    let output = workflow.apply(&input).unwrap();
    assert_eq!(output.num_columns(), expected.num_columns());
    for (field, theirs) in expected.schema().fields().iter().zip(expected.columns()) {
        let ours = output.column_by_name(field.name()).unwrap();
        // As text: NaN equals itself there, and floats are written so that their bits come back.
        for row in 0..input.num_rows() {
            let value = |array| array_value_to_string(array, row).unwrap();
            assert_eq!(value(ours), value(theirs), "{}, row {row}", field.name());
        }
        assert_eq!(ours.data_type(), theirs.data_type(), "{}", field.name());
    }
}
