//! A workflow's folder, written: `workflow.json` and the tables beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::{Saved, SavedChain, SavedFitted, SavedOperator, SavedStage, SavedTable};
use crate::definition::Operator;
use crate::error::Error;
use crate::files::write_batch;
use crate::fitted::Fitted;
use crate::parts::{FORMAT, Parts, WORKFLOW_FILE};
use crate::similarity::Features;
use crate::vocabulary::{GroupTable, Vocabulary};

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
