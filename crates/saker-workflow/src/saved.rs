//! A workflow's folder: `workflow.json` and the tables beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::definition::{Chain, Definition, Grouping, Operator, Similarity, TableOperator};
use crate::error::Error;
use crate::fitted::{ColumnStatistics, Fitted};
use crate::similarity::Features;
use crate::vocabulary::{Codes, GroupTable, Vocabulary, read_parquet, write_batch};
use crate::workflow::{FORMAT, InputColumn, Parts, WORKFLOW_FILE, Workflow};

pub(crate) fn write(parts: &Parts, folder: &Path) -> Result<(), Error> {
    let mut files = Files::default();
    let before = parts.before.iter();
    let before = before
        .map(|workflow| stage(workflow.parts(), &mut files))
        .collect::<Result<Vec<_>, Error>>()?;
    let SavedStage {
        inputs,
        sources,
        table,
        chains,
    } = stage(parts, &mut files)?;
    for (file, content) in &files.content {
        let path = folder.join(file);
        match content {
            Content::Vocabulary(vocabulary) => vocabulary.write(&path)?,
            Content::Table(table) => table.write(&path)?,
            Content::Features(features) => features.write(&path)?,
            Content::External(table) => write_batch(&path, table)?,
        }
    }
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
        before: _,
        inputs,
        sources,
        table,
        fitted,
    } = parts;
    let table = (definition.table.iter().zip(table)).map(|(operator, state)| {
        Ok(SavedOperator {
            operator: operator.clone(),
            fitted: files.add("", state)?,
        })
    });
    let table = table.collect::<Result<Vec<_>, Error>>()?;
    let mut chains = Vec::new();
    for (chain, states) in definition.chains.iter().zip(fitted) {
        let operators = (chain.operators.iter().zip(states)).map(|(operator, state)| {
            let target = match operator {
                Operator::TargetEncoding { target, .. } => target.as_str(),
                _ => "",
            };
            Ok(SavedOperator {
                operator: operator.clone(),
                fitted: files.add(target, state)?,
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

pub(crate) fn read(folder: &Path) -> Result<Parts, Error> {
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
        .map(|stage| Workflow::from_parts(load(folder, stage)?))
        .collect::<Result<Vec<_>, Error>>()?;
    let last = SavedStage {
        inputs,
        sources,
        table,
        chains,
    };
    Ok(load(folder, last)?.after(before))
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
        before: Vec::new(),
        sources: saved.sources.unwrap_or_else(|| saved.inputs.clone()),
        inputs: saved.inputs,
        table,
        fitted,
    })
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: u32,
    /// The definitions that come before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<SavedStage>,
    inputs: Vec<InputColumn>,
    /// The columns that the chains read, where `table` makes others of the inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<InputColumn>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    table: Vec<SavedOperator<TableOperator>>,
    chains: Vec<SavedChain>,
}

/// A definition with what was fitted, without those before it: what `Saved` holds of the last one. Serde cannot flatten a struct that
/// denies unknown fields into another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedStage {
    inputs: Vec<InputColumn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<InputColumn>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    table: Vec<SavedOperator<TableOperator>>,
    chains: Vec<SavedChain>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedChain {
    columns: Vec<String>,
    operators: Vec<SavedOperator<Operator>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedOperator<T> {
    operator: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fitted: Option<SavedFitted>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum SavedFitted {
    Moments {
        means: BTreeMap<String, f64>,
        stds: BTreeMap<String, f64>,
    },
    Extremes {
        mins: BTreeMap<String, f64>,
        maxs: BTreeMap<String, f64>,
    },
    Medians {
        medians: BTreeMap<String, f64>,
    },
    Lengths {
        lengths: BTreeMap<String, (usize, usize)>,
    },
    Vocabularies {
        vocabularies: Vec<SavedTable>,
    },
    Groups {
        tables: Vec<SavedTable>,
    },
    Target {
        mean: f64,
        tables: Vec<SavedTable>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        folds: Vec<SavedTable>,
    },
    Ranges {
        ranges: BTreeMap<String, (f64, f64)>,
    },
    Statistics {
        columns: BTreeMap<String, ColumnStatistics>,
    },
    Columns {
        kept: Vec<String>,
    },
    Similarity {
        left: PathBuf,
        right: PathBuf,
    },
    External {
        file: PathBuf,
    },
}

/// A parquet file, or a folder of them, beside `workflow.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTable {
    name: String,
    /// Key columns; those of a vocabulary stand in the file itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
    /// The code of a vocabulary's first value, in a table of codes that columns share (NVTabular's `single_table`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<usize>,
    file: PathBuf,
}

enum Content {
    Vocabulary(Arc<Vocabulary>),
    Table(Arc<GroupTable>),
    Features(Arc<Features>),
    External(Arc<RecordBatch>),
}

#[derive(Default)]
struct Files {
    content: BTreeMap<String, Content>,
}

impl Files {
    fn insert(&mut self, column: &str, file: &str, content: Content) -> Result<(), Error> {
        let same = match (self.content.get(file), &content) {
            (None, _) => true,
            (Some(Content::Vocabulary(a)), Content::Vocabulary(b)) => {
                a.columns() == b.columns() && a.codes() == b.codes()
            }
            (Some(Content::Table(a)), Content::Table(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if !same {
            return Err(Error::definition(
                column,
                &format!(
                    "two chains would save different tables as {file}; rename the column in one of them first"
                ),
            ));
        }
        self.content.insert(file.to_owned(), content);
        Ok(())
    }

    fn tables(
        &mut self,
        prefix: &str,
        tables: &[Arc<GroupTable>],
    ) -> Result<Vec<SavedTable>, Error> {
        tables
            .iter()
            .map(|table| {
                let keys: Vec<String> = table.keys().iter().map(|(n, _)| n.clone()).collect();
                let name = keys.join("_");
                let file = format!("categories/{prefix}.{name}.parquet");
                self.insert(&name, &file, Content::Table(Arc::clone(table)))?;
                Ok(SavedTable {
                    name,
                    keys,
                    start: None,
                    file: file.into(),
                })
            })
            .collect()
    }

    /// A file of a name that is given to no other.
    fn number(&mut self, prefix: &str, content: Content) -> PathBuf {
        let names = (0..).map(|number| format!("tables/{prefix}.{number}.parquet"));
        let file = names
            .into_iter()
            .find(|name| !self.content.contains_key(name));
        let file = file.unwrap_or_default();
        self.content.insert(file.clone(), content);
        file.into()
    }

    fn add(&mut self, target: &str, fitted: &Fitted) -> Result<Option<SavedFitted>, Error> {
        Ok(Some(match fitted {
            Fitted::Nothing => return Ok(None),
            Fitted::Moments { means, stds } => SavedFitted::Moments {
                means: means.clone(),
                stds: stds.clone(),
            },
            Fitted::Extremes { mins, maxs } => SavedFitted::Extremes {
                mins: mins.clone(),
                maxs: maxs.clone(),
            },
            Fitted::Medians { medians } => SavedFitted::Medians {
                medians: medians.clone(),
            },
            Fitted::Lengths { lengths } => SavedFitted::Lengths {
                lengths: lengths.clone(),
            },
            Fitted::Vocabularies(vocabularies) => SavedFitted::Vocabularies {
                vocabularies: vocabularies
                    .iter()
                    .map(|vocabulary| {
                        let name = vocabulary.name().to_owned();
                        let file = format!("categories/unique.{name}.parquet");
                        let content = Content::Vocabulary(Arc::clone(vocabulary));
                        self.insert(&name, &file, content)?;
                        Ok(SavedTable {
                            name,
                            keys: Vec::new(),
                            start: (vocabulary.in_single_table()).then(|| vocabulary.start()),
                            file: file.into(),
                        })
                    })
                    .collect::<Result<_, Error>>()?,
            },
            Fitted::Groups(tables) => SavedFitted::Groups {
                tables: self.tables("cat_stats", tables)?,
            },
            Fitted::Target {
                tables,
                mean,
                folds,
            } => {
                let prefix = format!("target_stats.{target}");
                SavedFitted::Target {
                    mean: *mean,
                    tables: self.tables(&prefix, tables)?,
                    folds: self.tables(&prefix, folds)?,
                }
            }
            Fitted::Ranges { ranges } => SavedFitted::Ranges {
                ranges: ranges.clone(),
            },
            Fitted::Statistics { columns } => SavedFitted::Statistics {
                columns: columns.clone(),
            },
            Fitted::Columns { kept } => SavedFitted::Columns { kept: kept.clone() },
            Fitted::Similarity(left, right) => {
                let file = self.number("similarity", Content::Features(Arc::clone(left)));
                SavedFitted::Similarity {
                    right: if Arc::ptr_eq(left, right) {
                        file.clone()
                    } else {
                        self.number("similarity", Content::Features(Arc::clone(right)))
                    },
                    left: file,
                }
            }
            Fitted::External(table) => SavedFitted::External {
                file: self.number("external", Content::External(Arc::clone(table))),
            },
        }))
    }
}

fn load_fitted(
    folder: &Path,
    operator: Option<&Operator>,
    saved: Option<SavedFitted>,
) -> Result<Fitted, Error> {
    let tables = |saved: Vec<SavedTable>| {
        saved
            .into_iter()
            .map(|table| GroupTable::read(&inside(folder, &table.file)?, &table.keys).map(Arc::new))
            .collect::<Result<Vec<_>, Error>>()
    };
    Ok(match saved {
        None => Fitted::Nothing,
        Some(SavedFitted::Moments { means, stds }) => Fitted::Moments { means, stds },
        Some(SavedFitted::Extremes { mins, maxs }) => Fitted::Extremes { mins, maxs },
        Some(SavedFitted::Medians { medians }) => Fitted::Medians { medians },
        Some(SavedFitted::Lengths { lengths }) => Fitted::Lengths { lengths },
        Some(SavedFitted::Vocabularies { vocabularies }) => {
            let (buckets, combo) = match operator {
                Some(Operator::Categorify {
                    num_buckets,
                    encode_type,
                    ..
                }) => (*num_buckets, *encode_type == Grouping::Combo),
                _ => (1, false),
            };
            let vocabularies = vocabularies
                .into_iter()
                .map(|saved| {
                    let path = inside(folder, &saved.file)?;
                    let codes = match saved.start {
                        None => Codes::new(buckets),
                        Some(start) => Codes::in_single_table(&path, start)?,
                    };
                    let vocabulary = Vocabulary::read_with(&path, &saved.name, codes)?;
                    if vocabulary.columns().len() > 1 && !combo {
                        return Err(Error::file(
                            &path,
                            format!("expected one key column '{}'", saved.name),
                        ));
                    }
                    Ok(Arc::new(vocabulary))
                })
                .collect::<Result<_, Error>>()?;
            Fitted::Vocabularies(vocabularies)
        }
        Some(SavedFitted::Groups { tables: saved }) => Fitted::Groups(tables(saved)?),
        Some(SavedFitted::Target {
            mean,
            tables: saved,
            folds,
        }) => Fitted::Target {
            mean,
            tables: tables(saved)?,
            folds: tables(folds)?,
        },
        Some(SavedFitted::Ranges { ranges }) => Fitted::Ranges { ranges },
        Some(SavedFitted::Statistics { columns }) => Fitted::Statistics { columns },
        Some(SavedFitted::Columns { kept }) => Fitted::Columns { kept },
        Some(SavedFitted::Similarity { left, right }) => {
            // What was saved is weighted already.
            let read = |file: &Path| {
                Features::read(&inside(folder, file)?, Similarity::Inner).map(Arc::new)
            };
            let features = read(&left)?;
            let other = if left == right {
                Arc::clone(&features)
            } else {
                read(&right)?
            };
            Fitted::Similarity(features, other)
        }
        Some(SavedFitted::External { file }) => {
            Fitted::External(Arc::new(read_parquet(&inside(folder, &file)?)?))
        }
    })
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
