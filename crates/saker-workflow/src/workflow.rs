//! A fitted workflow, loaded from a folder.

use std::path::Path;
use std::sync::Arc;

use crate::column::DType;
use crate::compile;
use crate::definition::{Definition, Properties};
use crate::error::Error;
use crate::operators::Fitted;
use crate::parts::{InputColumn, Parts};
use crate::saved;
use crate::variable::Variable;
use crate::vocabulary::Vocabulary;

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

/// A fitted workflow.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// The definition holds those in `before`, too.
    pub(crate) parts: Parts,
    /// The definitions in `before`, fitted.
    pub(crate) before: Vec<Self>,
    outputs: Vec<OutputColumn>,
}

impl Workflow {
    /// A workflow of one definition.
    pub(crate) fn from_parts(parts: Parts) -> Result<Self, Error> {
        Self::after(Vec::new(), parts)
    }

    /// A workflow for rows that pass through these workflows before.
    pub(crate) fn after(before: Vec<Self>, mut parts: Parts) -> Result<Self, Error> {
        let definitions = before.iter().map(Self::definition);
        parts.definition.before = definitions.cloned().collect();
        parts.definition.validate()?;
        let mut workflow = Self {
            parts,
            before,
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
            sources,
            ..
        } = &self.parts;
        let known = self.before.last().map_or(&[][..], Self::outputs);
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
        for stage in &self.before {
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
        Self::after(self.before.clone(), parts)
    }

    /// What the workflow does.
    pub fn definition(&self) -> &Definition {
        &self.parts.definition
    }

    /// The columns it reads.
    pub fn inputs(&self) -> &[InputColumn] {
        match self.before.first() {
            Some(first) => first.inputs(),
            None => &self.parts.inputs,
        }
    }

    /// The workflows of the definitions in [`Definition::before`].
    pub fn before(&self) -> &[Self] {
        &self.before
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

    /// Reads a saved workflow's folder, in this format or an earlier one.
    ///
    /// # Errors
    /// Names the file that is missing, not as it should be, or of a newer format.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let (before, parts) = saved::read(folder)?;
        let before = before.into_iter().map(Self::from_parts);
        Self::after(before.collect::<Result<_, Error>>()?, parts)
    }
}
