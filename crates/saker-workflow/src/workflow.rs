//! A fitted workflow: applied in bulk, saved to and loaded from a folder.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::bulk;
use crate::column::DType;
use crate::compile::{self, Variable};
use crate::definition::{Definition, Properties};
use crate::error::Error;
use crate::fit::{Fitter, Pass};
use crate::fitted::Fitted;
use crate::folds::Folds;
use crate::saved;
use crate::table;
use crate::vocabulary::Vocabulary;

/// Name of the file in a workflow's folder.
pub const WORKFLOW_FILE: &str = "workflow.json";

/// The format this library writes, and the newest it reads. Format 2 added operators over the table, folds and tags to format 1; format 3
/// added datetimes, units of time, tables of codes that columns share, and definitions that come before. What an earlier format holds
/// means the same in it.
pub const FORMAT: u32 = 3;

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
    /// Whether the column holds datetimes, as int64: nanoseconds since 1970 in UTC, as pandas has them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub datetime: bool,
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
    /// Whether the column holds datetimes: in tables as Arrow's timestamps, served as the integers of their unit.
    pub datetime: bool,
    /// Number of codes, reserved ones included, when the column is categorical.
    pub cardinality: Option<usize>,
    /// The vocabulary of the codes, when Categorify made them.
    pub vocabulary: Option<Arc<Vocabulary>>,
    /// Tags that AddMetadata and its kind gave it.
    pub tags: Vec<String>,
    /// Properties that AddMetadata and its kind gave it.
    pub properties: Properties,
}

/// A definition and what fitting found.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) definition: Definition,
    /// The definitions in `before`, fitted.
    pub(crate) before: Vec<Workflow>,
    /// The columns read of the input, or of what the workflows before give.
    pub(crate) inputs: Vec<InputColumn>,
    /// The columns that the chains read: of the input, or of what the table's operators make of it.
    pub(crate) sources: Vec<InputColumn>,
    /// State of each of the table's operators.
    pub(crate) table: Vec<Fitted>,
    /// State of each chain's operators.
    pub(crate) fitted: Vec<Vec<Fitted>>,
}

impl Parts {
    /// The same, for rows that pass through these workflows before.
    pub(crate) fn after(mut self, before: Vec<Workflow>) -> Self {
        let definitions = before.iter().map(Workflow::definition);
        self.definition.before = definitions.cloned().collect();
        self.before = before;
        self
    }
}

/// A fitted workflow.
#[derive(Debug, Clone)]
pub struct Workflow {
    parts: Parts,
    outputs: Vec<OutputColumn>,
}

impl Workflow {
    pub(crate) fn from_parts(parts: Parts) -> Result<Self, Error> {
        parts.definition.validate()?;
        let mut workflow = Self {
            parts,
            outputs: Vec::new(),
        };
        workflow.outputs = workflow
            .compile_chains(&workflow.sources())?
            .into_iter()
            .map(|variable| OutputColumn {
                name: variable.name,
                dtype: variable.dtype,
                list: variable.list,
                datetime: variable.datetime.is_some(),
                cardinality: variable.cardinality,
                vocabulary: variable.vocabulary,
                tags: variable.tags,
                properties: variable.properties,
            })
            .collect();
        Ok(workflow)
    }

    /// The columns that the chains read, with what the workflows before tell of them.
    fn sources(&self) -> Vec<Variable> {
        let Parts {
            definition,
            before,
            sources,
            ..
        } = &self.parts;
        let known = before.last().map_or(&[][..], |before| before.outputs());
        let describe = |(index, source): (usize, &InputColumn)| {
            let mut variable = Variable::input(source, index);
            let mut operators = definition.table.iter().rev();
            let origin =
                operators.try_fold(source.name.as_str(), |name, operator| operator.origin(name));
            if let Some(column) = known
                .iter()
                .find(|column| Some(column.name.as_str()) == origin)
            {
                variable.cardinality = column.cardinality;
                variable.vocabulary.clone_from(&column.vocabulary);
                variable.tags.clone_from(&column.tags);
                variable.properties.clone_from(&column.properties);
            }
            variable
        };
        sources.iter().enumerate().map(describe).collect()
    }

    /// The output columns as programs over `inputs`, of a workflow without operators over the table.
    pub(crate) fn compile(&self, inputs: &[InputColumn]) -> Result<Vec<Variable>, Error> {
        let inputs = inputs.iter().enumerate();
        let mut columns = inputs
            .map(|(index, input)| Variable::input(input, index))
            .collect::<Vec<_>>();
        for stage in &self.parts.before {
            columns = stage.compile_chains(&columns)?;
        }
        self.compile_chains(&columns)
    }

    /// The output columns as programs over what the columns that the chains read are computed from.
    fn compile_chains(&self, inputs: &[Variable]) -> Result<Vec<Variable>, Error> {
        let input = |name: &str| {
            inputs
                .iter()
                .find(|column| column.name == name)
                .cloned()
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
        for (chain, fitted) in self.parts.definition.chains.iter().zip(&self.parts.fitted) {
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

    /// One workflow of the chains of several, in order: what was fitted apart, together.
    ///
    /// # Errors
    /// Two give the same output column, two read a column of the same name with different types, or one has operators over the table, which
    /// the others' chains would pass through too.
    pub fn concat(workflows: impl IntoIterator<Item = Self>) -> Result<Self, Error> {
        let mut all = Parts {
            definition: Definition::default(),
            before: Vec::new(),
            inputs: Vec::new(),
            sources: Vec::new(),
            table: Vec::new(),
            fitted: Vec::new(),
        };
        for Self { parts, .. } in workflows {
            if let Some(operator) = parts.definition.table.first() {
                return Err(Error::definition(
                    &operator.reads().join(", "),
                    &format!("{}: fit the whole definition at once", operator.name()),
                ));
            }
            if !parts.before.is_empty() {
                return Err(Error::definition(
                    &parts.definition.input_names().join(", "),
                    "it has definitions in `before`: fit the whole definition at once",
                ));
            }
            for input in parts.inputs {
                match all.inputs.iter().find(|known| known.name == input.name) {
                    None => all.inputs.push(input),
                    Some(known) if *known == input => {}
                    Some(known) => {
                        let accepted = format!("{}, as another chain reads it", known.dtype);
                        return Err(Error::types(&input.name, input.dtype, &accepted));
                    }
                }
            }
            all.definition.chains.extend(parts.definition.chains);
            all.fitted.extend(parts.fitted);
        }
        // Without operators over the table the chains read the input itself.
        all.sources.clone_from(&all.inputs);
        Self::from_parts(all)
    }

    /// The chains that give any of these output columns, as a workflow of their own.
    ///
    /// # Errors
    /// Never for a workflow that this library made.
    pub fn only(&self, outputs: &[&str]) -> Result<Self, Error> {
        let mut parts = self.parts.clone();
        (parts.definition.chains, parts.fitted) = (Vec::new(), Vec::new());
        for (chain, state) in self.parts.definition.chains.iter().zip(&self.parts.fitted) {
            let names = chain.output_names()?;
            if names.iter().any(|name| outputs.contains(&name.as_str())) {
                parts.definition.chains.push(chain.clone());
                parts.fitted.push(state.clone());
            }
        }
        let read = parts.definition.own_input_names();
        parts
            .inputs
            .retain(|input| read.contains(&input.name.as_str()));
        if parts.table.is_empty() {
            parts.sources.clone_from(&parts.inputs);
        }
        Self::from_parts(parts)
    }

    /// Transforms a batch: the columns of [`Workflow::outputs`], in order, with the batch's number of rows, unless the definition's
    /// operators over the table change it. A Groupby aggregates each batch by itself.
    ///
    /// # Errors
    /// A column is missing, or its type does not suit its operators.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        self.transform(batch, None)
    }

    /// Begins to encode the rows that the workflow was fitted on, out of fold.
    pub fn out_of_fold(&self) -> OutOfFold<'_> {
        OutOfFold {
            workflow: self,
            folds: self.folds(),
        }
    }

    /// The folds of the first rows: of the workflows before, and of this one.
    pub(crate) fn folds(&self) -> Vec<Folds> {
        let stages = self.parts.definition.stages();
        stages.map(Folds::new).collect()
    }

    pub(crate) fn transform(
        &self,
        batch: &RecordBatch,
        mut folds: Option<&mut [Folds]>,
    ) -> Result<RecordBatch, Error> {
        let mut batch = Cow::Borrowed(batch);
        for (place, stage) in self.parts.before.iter().enumerate() {
            let of_stage = folds.as_deref_mut();
            let of_stage = of_stage.and_then(|folds| folds.get_mut(place..=place));
            batch = Cow::Owned(stage.transform(&batch, of_stage)?);
        }
        let Parts {
            definition,
            table: states,
            fitted,
            ..
        } = &self.parts;
        let batch = &bulk::typed_nulls(&batch, &self.parts.inputs)?;
        bulk::check_datetimes(batch, &self.parts.inputs)?;
        let table = table::apply(&definition.table, states, batch)?;
        let folds = folds.and_then(|folds| folds.last_mut());
        let folds = folds.map(|folds| folds.next(table.num_rows()));
        bulk::apply(&definition.chains, fitted, &table, folds.as_ref())
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What the workflow does.
    pub fn definition(&self) -> &Definition {
        &self.parts.definition
    }

    /// The columns it reads.
    pub fn inputs(&self) -> &[InputColumn] {
        match self.parts.before.first() {
            Some(first) => first.inputs(),
            None => &self.parts.inputs,
        }
    }

    /// The workflows of the definitions in [`Definition::before`].
    pub fn before(&self) -> &[Self] {
        &self.parts.before
    }

    /// The columns that it gives, as another workflow reads them.
    pub(crate) fn outputs_as_inputs(&self) -> Vec<InputColumn> {
        let outputs = self.outputs.iter().map(|output| InputColumn {
            name: output.name.clone(),
            dtype: output.dtype,
            list: output.list,
            datetime: output.datetime,
        });
        outputs.collect()
    }

    /// Whether an input column held datetimes in the fit.
    pub(crate) fn is_datetime(&self, name: &str) -> bool {
        let mut inputs = self.inputs().iter();
        inputs.any(|input| input.name == name && input.datetime)
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
        &self.parts.fitted
    }

    /// Writes `workflow.json` and, beside it, the tables it needs: vocabularies and statistics in NVTabular's layout under
    /// `categories/`, other tables under `tables/`.
    ///
    /// # Errors
    /// Names the file that cannot be written, or the two chains whose vocabularies would share a file.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        saved::write(&self.parts, folder)
    }

    /// Reads what [`Workflow::save`] wrote, in this format or an earlier one.
    ///
    /// # Errors
    /// Names the file that is missing, not as it should be, or of a newer format.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        Self::from_parts(saved::read(folder)?)
    }
}

/// Encodes the rows that a workflow was fitted on: a TargetEncoding with `kfold` gives each row the encoding of the targets outside the
/// row's fold, so that no row is encoded by its own target. Everything else is as in [`Workflow::apply`].
#[derive(Debug)]
pub struct OutOfFold<'a> {
    workflow: &'a Workflow,
    folds: Vec<Folds>,
}

impl OutOfFold<'_> {
    /// Transforms the next rows of the data that was fitted on, in the order of the fit.
    ///
    /// # Errors
    /// As [`Workflow::apply`].
    pub fn apply(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        self.workflow.transform(batch, Some(&mut self.folds))
    }
}
