//! A workflow's folder: `workflow.json` and the tables beside it.

#[cfg(feature = "tables")]
mod files;
#[cfg(feature = "tables")]
mod write;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(feature = "tables")]
pub(crate) use self::files::Files;
#[cfg(feature = "tables")]
pub(crate) use self::write::write;
use crate::definition::{Chain, Definition, Operator, TableOperator};
use crate::error::Error;
use crate::operators::{Fitted, SavedFitted};
use crate::parts::{FORMAT, InputColumn, Parts, WORKFLOW_FILE};

/// The definitions that come before, and the last one.
pub(crate) fn read(folder: &Path) -> Result<(Vec<Parts>, Parts), Error> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = folder.join(WORKFLOW_FILE);
    let json = std::fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
    let version: Version =
        serde_json::from_str(&json).map_err(|error| Error::file(&path, error))?;
    if !(1..=FORMAT).contains(&version.format) {
        return Err(Error::file(
            &path,
            format!(
                "format {} is not known; this version reads formats 1 to {FORMAT}",
                version.format
            ),
        ));
    }
    let Saved {
        format: _,
        before,
        inputs,
        sources,
        table,
        chains,
    } = serde_json::from_str(&json).map_err(|error| Error::file(&path, error))?;
    let before = before
        .into_iter()
        .map(|stage| load(folder, stage))
        .collect::<Result<Vec<_>, Error>>()?;
    let last = SavedStage {
        inputs,
        sources,
        table,
        chains,
    };
    Ok((before, load(folder, last)?))
}

/// A definition and what was fitted, without those before it.
fn load(folder: &Path, saved: SavedStage) -> Result<Parts, Error> {
    let mut definition = Definition::default();
    let mut table = Vec::new();
    for saved in saved.table {
        table.push(load_fitted(folder, None, saved.fitted)?);
        definition.table.push(saved.operator);
    }
    let mut fitted = Vec::new();
    for chain in saved.chains {
        let mut operators = Vec::new();
        let mut states = Vec::new();
        for saved in chain.operators {
            states.push(load_fitted(folder, Some(&saved.operator), saved.fitted)?);
            operators.push(saved.operator);
        }
        definition.chains.push(Chain {
            columns: chain.columns,
            operators,
        });
        fitted.push(states);
    }
    Ok(Parts {
        definition,
        sources: saved.sources.unwrap_or_else(|| saved.inputs.clone()),
        inputs: saved.inputs,
        table,
        fitted,
    })
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    pub(crate) format: u32,
    /// The definitions that come before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) before: Vec<SavedStage>,
    pub(crate) inputs: Vec<InputColumn>,
    /// The columns that the chains read, where `table` makes others of the inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sources: Option<Vec<InputColumn>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) table: Vec<SavedOperator<TableOperator>>,
    pub(crate) chains: Vec<SavedChain>,
}

/// A definition with what was fitted, without those before it: what `Saved` holds of the last one. Serde cannot flatten a struct that
/// denies unknown fields into another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedStage {
    pub(crate) inputs: Vec<InputColumn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sources: Option<Vec<InputColumn>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) table: Vec<SavedOperator<TableOperator>>,
    pub(crate) chains: Vec<SavedChain>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedChain {
    pub(crate) columns: Vec<String>,
    pub(crate) operators: Vec<SavedOperator<Operator>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedOperator<T> {
    pub(crate) operator: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fitted: Option<SavedFitted>,
}

/// A parquet file, or a folder of them, beside `workflow.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedTable {
    pub(crate) name: String,
    /// Key columns; those of a vocabulary stand in the file itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<String>,
    /// The code of a vocabulary's first value, in a table of codes that columns share (NVTabular's `single_table`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<usize>,
    pub(crate) file: PathBuf,
}

fn load_fitted(
    folder: &Path,
    operator: Option<&Operator>,
    saved: Option<SavedFitted>,
) -> Result<Fitted, Error> {
    saved.map_or(Ok(Fitted::Nothing), |saved| saved.load(folder, operator))
}

/// A file named by `workflow.json`, which must lie in its folder.
pub(crate) fn inside(folder: &Path, file: &Path) -> Result<PathBuf, Error> {
    let safe = file
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if safe {
        Ok(folder.join(file))
    } else {
        Err(Error::file(
            file,
            "must be a relative path inside the workflow's folder",
        ))
    }
}
