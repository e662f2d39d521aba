//! A fitted workflow: applied in bulk, saved to and loaded from a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::bulk;
use crate::column::DType;
use crate::compile::{self, Variable};
use crate::definition::{Chain, Definition, Grouping, Operator};
use crate::error::Error;
use crate::fit::{Fitter, Pass};
use crate::fitted::Fitted;
use crate::vocabulary::{GroupTable, OOV_CODE, Vocabulary};

/// Name of the file in a workflow's folder.
pub const WORKFLOW_FILE: &str = "workflow.json";

/// The newest format this library writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// A column that a workflow reads, as it was when fitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputColumn {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Whether a row holds a list of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub list: bool,
}

/// A column that a workflow gives.
#[derive(Debug, Clone)]
pub struct OutputColumn {
    /// Name.
    pub name: String,
    /// Element type, for inputs of the types that were fitted.
    pub dtype: DType,
    /// Whether a row holds a list of them.
    pub list: bool,
    /// Number of codes, reserved ones included, when the column is categorical.
    pub cardinality: Option<usize>,
    /// The vocabulary of the codes, when Categorify made them.
    pub vocabulary: Option<Arc<Vocabulary>>,
}

/// A fitted workflow.
#[derive(Debug, Clone)]
pub struct Workflow {
    definition: Definition,
    inputs: Vec<InputColumn>,
    fitted: Vec<Vec<Fitted>>,
    outputs: Vec<OutputColumn>,
}

impl Workflow {
    pub(crate) fn from_parts(
        definition: Definition,
        inputs: Vec<InputColumn>,
        fitted: Vec<Vec<Fitted>>,
    ) -> Result<Self, Error> {
        definition.validate()?;
        let mut workflow = Self {
            definition,
            inputs,
            fitted,
            outputs: Vec::new(),
        };
        workflow.outputs = workflow
            .compile(&workflow.inputs)?
            .into_iter()
            .map(|variable| OutputColumn {
                name: variable.name,
                dtype: variable.dtype,
                list: variable.list,
                cardinality: variable.cardinality,
                vocabulary: variable.vocabulary,
            })
            .collect();
        Ok(workflow)
    }

    /// The output columns as programs over `inputs`.
    pub(crate) fn compile(&self, inputs: &[InputColumn]) -> Result<Vec<Variable>, Error> {
        let input = |name: &str| {
            inputs
                .iter()
                .position(|column| column.name == name)
                .map(|index| {
                    let column = &inputs[index];
                    Variable::input(&column.name, column.dtype, column.list, index)
                })
                .ok_or_else(|| Error::MissingColumn {
                    column: name.to_owned(),
                    given: inputs
                        .iter()
                        .map(|column| column.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                })
        };
        let mut outputs = Vec::new();
        for (chain, fitted) in self.definition.chains.iter().zip(&self.fitted) {
            outputs.extend(compile::chain(chain, fitted, usize::MAX, &input)?);
        }
        Ok(outputs)
    }

    /// Fits a definition on data that lies in memory.
    ///
    /// # Errors
    /// As [`Fitter`].
    pub fn fit(definition: Definition, batches: &[RecordBatch]) -> Result<Self, Error> {
        let mut fitter = Fitter::new(definition)?;
        loop {
            for batch in batches {
                fitter.update(batch)?;
            }
            match fitter.finish()? {
                Pass::Done(workflow) => return Ok(workflow),
                Pass::Again(next) => fitter = next,
            }
        }
    }

    /// Transforms a batch: the columns of [`Workflow::outputs`], in order, with the batch's number of rows.
    ///
    /// # Errors
    /// A column is missing, or its type does not suit its operators.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        bulk::apply(&self.definition.chains, &self.fitted, batch)
    }

    /// What the workflow does.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The columns it reads.
    pub fn inputs(&self) -> &[InputColumn] {
        &self.inputs
    }

    /// The columns it gives.
    pub fn outputs(&self) -> &[OutputColumn] {
        &self.outputs
    }

    /// One of the columns it gives.
    pub fn output(&self, column: &str) -> Option<&OutputColumn> {
        self.outputs.iter().find(|output| output.name == column)
    }

    /// Number of codes of an output column, reserved ones included: rows of its embedding table. None for other columns.
    pub fn cardinality(&self, column: &str) -> Option<usize> {
        self.output(column)?.cardinality
    }

    /// The vocabulary of an output column: from codes to raw values and back.
    pub fn vocabulary(&self, column: &str) -> Option<&Arc<Vocabulary>> {
        self.output(column)?.vocabulary.as_ref()
    }

    /// The fitted state of each chain's operators.
    pub fn fitted(&self) -> &[Vec<Fitted>] {
        &self.fitted
    }

    /// Writes `workflow.json` and the vocabularies, in NVTabular's layout, under `categories/`.
    ///
    /// # Errors
    /// Names the file that cannot be written, or the two chains whose vocabularies would share a file.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let mut files = Files::default();
        let chains = self
            .definition
            .chains
            .iter()
            .zip(&self.fitted)
            .map(|(chain, fitted)| {
                let operators = chain
                    .operators
                    .iter()
                    .zip(fitted)
                    .map(|(operator, fitted)| {
                        Ok(SavedOperator {
                            operator: operator.clone(),
                            fitted: files.add(operator, fitted)?,
                        })
                    })
                    .collect::<Result<Vec<_>, Error>>()?;
                Ok(SavedChain {
                    columns: chain.columns.clone(),
                    operators,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        for (file, content) in &files.content {
            match content {
                Content::Vocabulary(vocabulary) => vocabulary.write(&folder.join(file))?,
                Content::Table(table) => table.write(&folder.join(file))?,
            }
        }
        let saved = Saved {
            format: FORMAT,
            inputs: self.inputs.clone(),
            chains,
        };
        let path = folder.join(WORKFLOW_FILE);
        let json =
            serde_json::to_string_pretty(&saved).map_err(|error| Error::file(&path, error))?;
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        std::fs::write(&path, json + "\n").map_err(|error| Error::file(&path, error))
    }

    /// Reads what [`Workflow::save`] wrote.
    ///
    /// # Errors
    /// Names the file that is missing, not as it should be, or of a newer format.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let path = folder.join(WORKFLOW_FILE);
        let json = std::fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
        let version: Version =
            serde_json::from_str(&json).map_err(|error| Error::file(&path, error))?;
        if version.format != FORMAT {
            return Err(Error::file(
                &path,
                format!(
                    "format {} is not known; this version reads format {FORMAT}",
                    version.format
                ),
            ));
        }
        let saved: Saved =
            serde_json::from_str(&json).map_err(|error| Error::file(&path, error))?;
        let mut chains = Vec::new();
        let mut fitted = Vec::new();
        for chain in saved.chains {
            let mut operators = Vec::new();
            let mut states = Vec::new();
            for saved in chain.operators {
                states.push(load_fitted(folder, &saved.operator, saved.fitted)?);
                operators.push(saved.operator);
            }
            chains.push(Chain {
                columns: chain.columns,
                operators,
            });
            fitted.push(states);
        }
        Self::from_parts(Definition::new(chains), saved.inputs, fitted)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: u32,
    inputs: Vec<InputColumn>,
    chains: Vec<SavedChain>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedChain {
    columns: Vec<String>,
    operators: Vec<SavedOperator>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedOperator {
    operator: Operator,
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
    file: PathBuf,
}

enum Content {
    Vocabulary(Arc<Vocabulary>),
    Table(Arc<GroupTable>),
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
                a.columns() == b.columns() && a.start() == b.start()
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
                    file: file.into(),
                })
            })
            .collect()
    }

    fn add(&mut self, operator: &Operator, fitted: &Fitted) -> Result<Option<SavedFitted>, Error> {
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
                            file: file.into(),
                        })
                    })
                    .collect::<Result<_, Error>>()?,
            },
            Fitted::Groups(tables) => SavedFitted::Groups {
                tables: self.tables("cat_stats", tables)?,
            },
            Fitted::Target { tables, mean } => {
                let target = match operator {
                    Operator::TargetEncoding { target, .. } => target.as_str(),
                    _ => "",
                };
                SavedFitted::Target {
                    mean: *mean,
                    tables: self.tables(&format!("target_stats.{target}"), tables)?,
                }
            }
        }))
    }
}

fn load_fitted(
    folder: &Path,
    operator: &Operator,
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
                Operator::Categorify {
                    num_buckets,
                    encode_type,
                    ..
                } => (*num_buckets, *encode_type == Grouping::Combo),
                _ => (1, false),
            };
            let vocabularies = vocabularies
                .into_iter()
                .map(|saved| {
                    let path = inside(folder, &saved.file)?;
                    let vocabulary = Vocabulary::read(&path, &saved.name, OOV_CODE + buckets)?;
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
        }) => Fitted::Target {
            mean,
            tables: tables(saved)?,
        },
    })
}

/// A file named by `workflow.json`, which must lie in its folder.
fn inside(folder: &Path, file: &Path) -> Result<PathBuf, Error> {
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
