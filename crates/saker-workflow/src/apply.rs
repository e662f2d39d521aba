//! A workflow fitted on, and applied to, Arrow's tables; and saved.

use std::borrow::Cow;
use std::path::Path;

use arrow::record_batch::RecordBatch;

use crate::bulk;
use crate::definition::Definition;
use crate::error::Error;
use crate::fit::{Fitter, Pass};
use crate::folds::Folds;
use crate::ingest;
use crate::parts::{InputColumn, Parts};
use crate::saved;
use crate::table;
use crate::workflow::Workflow;

impl Workflow {
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
        let mut all = Parts::default();
        for Self { parts, before, .. } in workflows {
            if let Some(operator) = parts.definition.table.first() {
                return Err(Error::definition(
                    &operator.reads().join(", "),
                    &format!("{}: fit the whole definition at once", operator.name()),
                ));
            }
            if !before.is_empty() {
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
        for (place, stage) in self.before.iter().enumerate() {
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
        let batch = &ingest::typed_nulls(&batch, &self.parts.inputs)?;
        ingest::check_datetimes(batch, &self.parts.inputs)?;
        let table = table::apply(&definition.table, states, batch)?;
        let folds = folds.and_then(|folds| folds.last_mut());
        let folds = folds.map(|folds| folds.next(table.num_rows()));
        bulk::apply(&definition.chains, fitted, &table, folds.as_ref())
    }

    /// The columns that it gives, as another workflow reads them.
    pub(crate) fn outputs_as_inputs(&self) -> Vec<InputColumn> {
        let outputs = self.outputs().iter().map(|output| InputColumn {
            name: output.name.clone(),
            dtype: output.dtype,
            list: output.list,
            datetime: output.datetime,
        });
        outputs.collect()
    }

    /// Writes `workflow.json` and, beside it, the tables it needs: vocabularies and statistics in NVTabular's layout under
    /// `categories/`, other tables under `tables/`.
    ///
    /// # Errors
    /// Names the file that cannot be written, or the two chains whose vocabularies would share a file.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let before = self.before.iter().map(|workflow| &workflow.parts);
        saved::write(before, &self.parts, folder)
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
