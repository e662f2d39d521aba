//! What is read from files: definitions, workflows, tables, checkpoints, models.

use saker_pipeline::Pipeline;
use saker_train::checkpoint::Checkpoint;
use saker_train::onnx::{Items, hoist, tables_apart};
use saker_workflow::{WORKFLOW_FILE, Workflow};
use triton_embedding_lookup::table::Table;

use crate::{file, scratch, seeds};

/// A pipeline definition: what is accepted is written and accepted again.
pub(crate) fn pipeline(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(read) = Pipeline::parse(text) else {
        return;
    };
    let written = toml::to_string(&read).unwrap_or_else(|error| panic!("{error}"));
    let again = Pipeline::parse(&written).unwrap_or_else(|error| panic!("{error}:\n{written}"));
    assert_eq!(again, read);
}

/// `workflow.json` without tables beside it: what is loaded is saved and loaded again; an error names the file.
pub(crate) fn workflow(data: &[u8]) {
    let path = file(&format!("workflow/{WORKFLOW_FILE}"), data);
    let folder = scratch("workflow");
    match Workflow::load(&folder) {
        Ok(workflow) => {
            let saved = scratch("saved");
            let saving = workflow.save(&saved);
            saving.unwrap_or_else(|error| panic!("{error}"));
            let again = Workflow::load(&saved).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again.definition(), workflow.definition());
            assert_eq!(
                format!("{:?}", again.outputs()),
                format!("{:?}", workflow.outputs())
            );
        }
        Err(error) => assert!(!error.to_string().is_empty(), "{}", path.display()),
    }
}

/// A table of embeddings: what is read fits the file, and an error names it.
pub(crate) fn npy(data: &[u8]) {
    let path = file("table.npy", data);
    match Table::read(&path) {
        Ok(table) => {
            let values = table.count().checked_mul(table.dimension());
            assert!(values.is_some_and(|values| values <= data.len() / 4));
            let mut row = vec![0.0; table.dimension()];
            table.gather([i64::MAX].into_iter(), &mut row);
            table.gather([table.count() as i64 - 1].into_iter(), &mut row);
        }
        Err(error) => assert!(error.to_string().contains("table.npy"), "{error}"),
    }
}

/// A checkpoint: what is loaded is saved as what was loaded.
pub(crate) fn safetensors(data: &[u8]) {
    let path = file("ranker.safetensors", data);
    let mut ranker = seeds::ranker();
    match ranker.load(&path) {
        Ok(()) => {
            let saved = scratch("saved.safetensors");
            let mut again = seeds::ranker();
            let both = ranker.save(&saved).and_then(|()| again.load(&saved));
            both.unwrap_or_else(|error| panic!("{error}"));
        }
        Err(error) => assert!(error.to_string().contains("ranker.safetensors"), "{error}"),
    }
}

/// A model: taking its tables apart, and hoisting it, which accept what this workspace has exported and refuse the rest.
pub(crate) fn onnx(data: &[u8]) {
    let _ = tables_apart(data, "tables.bin");
    let items = Items {
        rows: 0,
        ..Items::default()
    };
    if let Err(error) = hoist(data, &items, "tables.bin") {
        assert!(!error.to_string().is_empty());
    }
}
