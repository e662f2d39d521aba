//! A workflow's folder, written: `workflow.json` and the tables beside it.

use std::path::Path;

use super::{Files, Saved, SavedChain, SavedOperator, SavedStage};
use crate::error::Error;
use crate::parts::{FORMAT, Parts, WORKFLOW_FILE};

pub(crate) fn write<'a>(
    before: impl Iterator<Item = &'a Parts>,
    parts: &Parts,
    folder: &Path,
) -> Result<(), Error> {
    let mut files = Files::default();
    let before = before
        .map(|parts| stage(parts, &mut files))
        .collect::<Result<Vec<_>, Error>>()?;
    let SavedStage {
        inputs,
        sources,
        table,
        chains,
    } = stage(parts, &mut files)?;
    files.write(folder)?;
    let saved = Saved {
        format: FORMAT,
        before,
        inputs,
        sources,
        table,
        chains,
    };
    let path = folder.join(WORKFLOW_FILE);
    let json = serde_json::to_string_pretty(&saved).map_err(|error| Error::file(&path, error))?;
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    std::fs::write(&path, json + "\n").map_err(|error| Error::file(&path, error))
}

/// A definition and what was fitted, without those before it.
fn stage(parts: &Parts, files: &mut Files) -> Result<SavedStage, Error> {
    let Parts {
        definition,
        inputs,
        sources,
        table,
        fitted,
    } = parts;
    let table = (definition.table.iter().zip(table)).map(|(operator, state)| {
        Ok(SavedOperator {
            operator: operator.clone(),
            fitted: state.save(None, files)?,
        })
    });
    let table = table.collect::<Result<Vec<_>, Error>>()?;
    let mut chains = Vec::new();
    for (chain, states) in definition.chains.iter().zip(fitted) {
        let operators = (chain.operators.iter().zip(states)).map(|(operator, state)| {
            Ok(SavedOperator {
                operator: operator.clone(),
                fitted: state.save(Some(operator), files)?,
            })
        });
        chains.push(SavedChain {
            columns: chain.columns.clone(),
            operators: operators.collect::<Result<_, Error>>()?,
        });
    }
    Ok(SavedStage {
        inputs: inputs.clone(),
        sources: (!definition.table.is_empty()).then(|| sources.clone()),
        table,
        chains,
    })
}
