//! Fitting: statistics gathered batch by batch, in as many passes over the data as a chain has operators to fit.

mod accumulator;
mod counter;
mod counts;
mod groups;
mod keys;
mod median;
mod moments;
mod statistics;

use std::borrow::Cow;
use std::collections::VecDeque;

use arrow::record_batch::RecordBatch;

pub(crate) use self::accumulator::{Accumulator, Finished, Rows, each_column, nothing_to_fit};
pub(crate) use self::counter::Counter;
pub(crate) use self::counts::Counts;
pub(crate) use self::groups::Groups;
pub(crate) use self::median::{Median, Search};
pub(crate) use self::moments::Moments;
pub(crate) use self::statistics::Statistics;
use crate::bulk;
use crate::definition::{Chain, Definition};
use crate::error::Error;
use crate::folds::Folds;
use crate::ingest;
use crate::operators::{Fitted, GreatestCode};
use crate::parts::{InputColumn, Parts};
use crate::table;
use crate::workflow::Workflow;

/// Fits a workflow on batches.
///
/// ```
/// # use saker_workflow::{Chain, Definition, Fitter, Operator, Pass};
/// # use arrow::{array::{ArrayRef, Int32Array}, record_batch::RecordBatch};
/// # let column: ArrayRef = std::sync::Arc::new(Int32Array::from(vec![7, 8, 7]));
/// # let batches = [RecordBatch::try_from_iter([("item_id", column)])?];
/// let chain = Chain::new(["item_id"], vec![Operator::categorify()]);
/// let mut fitter = Fitter::new(Definition::new(vec![chain]))?;
/// let workflow = loop {
///     for batch in &batches {
///         fitter.update(batch)?;
///     }
///     match fitter.finish()? {
///         Pass::Done(workflow) => break workflow,
///         Pass::Again(next) => fitter = next,
///     }
/// };
/// assert_eq!(workflow.cardinality("item_id"), Some(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Fitter {
    /// What is fitted already of the definitions before, with the folds of the next rows.
    done: Vec<(Workflow, Vec<Folds>)>,
    /// The definitions that come after the one that is fitted, first to last.
    next: VecDeque<Definition>,
    parts: Parts,
    /// Per chain, the operator that this pass fits.
    current: Vec<Option<(usize, Box<dyn Accumulator>)>>,
    folds: Folds,
}

/// What a pass over the data led to.
#[derive(Debug)]
pub enum Pass {
    /// Everything is fitted.
    Done(Workflow),
    /// A chain has a further operator to fit, on what the fitted ones give: pass the same data again.
    Again(Fitter),
}

impl Fitter {
    /// Begins.
    ///
    /// # Errors
    /// The definition is not accepted, or a file that it names cannot be read.
    pub fn new(definition: Definition) -> Result<Self, Error> {
        definition.validate()?;
        let mut last = definition;
        let mut next = VecDeque::from(std::mem::take(&mut last.before));
        next.push_back(last);
        let first = next.pop_front().unwrap_or_default();
        Self::stage(Vec::new(), first, next)
    }

    /// Begins with one of the definitions.
    fn stage(
        done: Vec<(Workflow, Vec<Folds>)>,
        stage: Definition,
        next: VecDeque<Definition>,
    ) -> Result<Self, Error> {
        let table = stage.table.iter().map(table::prepare);
        let mut fitter = Self {
            done,
            next,
            folds: Folds::new(&stage),
            parts: Parts {
                table: table.collect::<Result<_, _>>()?,
                fitted: stage.chains.iter().map(|_| Vec::new()).collect(),
                definition: stage,
                inputs: Vec::new(),
                sources: Vec::new(),
            },
            current: Vec::new(),
        };
        fitter.advance()?;
        Ok(fitter)
    }

    /// Moves every chain that fits nothing to its next operator that needs fitting; whether there is one to fit.
    fn advance(&mut self) -> Result<bool, Error> {
        let Parts {
            definition, fitted, ..
        } = &mut self.parts;
        self.current.resize_with(fitted.len(), || None);
        for ((chain, fitted), current) in
            (definition.chains.iter().zip(fitted)).zip(&mut self.current)
        {
            while current.is_none()
                && let Some(operator) = chain.operators.get(fitted.len())
            {
                let operator = operator.transform();
                match operator.accumulator() {
                    Some(accumulator) => *current = Some((fitted.len(), accumulator)),
                    None => {
                        let columns = || greatest_codes(chain, fitted);
                        let state = operator.state_without_rows(&columns)?;
                        fitted.push(state);
                    }
                }
            }
        }
        Ok(self.current.iter().any(Option::is_some))
    }

    /// Whether any operator is left to fit, so that batches must be given. Without one, a batch without rows is enough: it tells the
    /// columns' types.
    pub fn needs_rows(&self) -> bool {
        // What comes next is not known to need none before it has begun.
        !self.next.is_empty() || self.current.iter().any(Option::is_some)
    }

    /// Takes in a batch. Batches may have any number of rows; each must have all columns of
    /// [`Definition::fit_input_names`]. With a Groupby the rows of a group must lie in one batch; with a TargetEncoding in folds
    /// every pass must bring the rows in the same order.
    ///
    /// # Errors
    /// A column is missing, or its type or a value does not suit an operator.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.update_rows(batch, Counts::Ones)
    }

    /// Takes in a batch of which row i stands for `counts[i]` rows: what grouping equal rows leaves of a large table. The fit is that
    /// of the rows written out, where no operator looks at a row's neighbours (DifferenceLag), at its number (hashes of
    /// [`HashKey::ValueAndRow`](crate::HashKey::ValueAndRow), folds of TargetEncoding), or at the table as a whole
    /// ([`Definition::table`]), also of the definitions before.
    ///
    /// # Errors
    /// As [`Fitter::update`].
    ///
    /// # Panics
    /// `counts` has not one entry per row.
    pub fn update_counted(&mut self, batch: &RecordBatch, counts: &[u64]) -> Result<(), Error> {
        assert_eq!(counts.len(), batch.num_rows(), "one count per row");
        self.update_rows(batch, Counts::Each(counts))
    }

    fn update_rows(&mut self, batch: &RecordBatch, counts: Counts<'_>) -> Result<(), Error> {
        let mut batch = Cow::Borrowed(batch);
        for (workflow, folds) in &mut self.done {
            batch = Cow::Owned(workflow.transform(&batch, Some(folds))?);
        }
        let batch = batch.as_ref();
        let Parts {
            definition,
            inputs,
            sources,
            table: states,
            fitted,
            ..
        } = &mut self.parts;
        let table = table::apply(&definition.table, states, batch)?;
        if inputs.is_empty() {
            *inputs = described(batch, &definition.own_input_names())?;
            *sources = described(&table, &definition.chain_inputs(false))?;
        } else {
            ingest::check_datetimes(batch, inputs)?;
        }
        let folds = self.folds.next(table.num_rows());
        for ((chain, fitted), current) in
            (definition.chains.iter().zip(fitted)).zip(&mut self.current)
        {
            if let Some((position, accumulator)) = current {
                let columns = bulk::apply_chain(chain, fitted, *position, &table, Some(&folds))?;
                accumulator.update(&Rows {
                    columns: &columns,
                    batch: &table,
                    folds: &folds,
                    counts,
                })?;
            }
        }
        Ok(())
    }

    /// Ends a pass over the data.
    ///
    /// # Errors
    /// There was no batch, or an operator cannot be fitted on what there was.
    pub fn finish(mut self) -> Result<Pass, Error> {
        let Parts {
            definition,
            inputs,
            fitted,
            ..
        } = &mut self.parts;
        if inputs.is_empty() && !definition.chains.is_empty() {
            return Err(Error::Fit {
                column: definition.input_names().join(", "),
                operator: "workflow",
                reason: "no batch was given".to_owned(),
            });
        }
        for ((chain, fitted), current) in
            (definition.chains.iter().zip(fitted)).zip(&mut self.current)
        {
            if let Some((position, accumulator)) = current.take()
                && let Some(operator) = chain.operators.get(position)
            {
                match accumulator.finish(operator.name())? {
                    Finished::Fitted(state) => fitted.push(state),
                    Finished::Again(accumulator) => *current = Some((position, accumulator)),
                }
            }
        }
        for (workflow, folds) in &mut self.done {
            *folds = workflow.folds();
        }
        if self.advance()? {
            self.folds = Folds::new(&self.parts.definition);
            return Ok(Pass::Again(self));
        }
        let Self {
            mut done,
            mut next,
            parts,
            ..
        } = self;
        if let Some(stage) = next.pop_front() {
            let workflow = Workflow::from_parts(parts)?;
            let folds = workflow.folds();
            done.push((workflow, folds));
            return Self::stage(done, stage, next).map(Pass::Again);
        }
        let before = done.into_iter().map(|(workflow, _)| workflow).collect();
        Workflow::after(before, parts).map(Pass::Done)
    }
}

/// Name and type of each column.
fn described(batch: &RecordBatch, names: &[&str]) -> Result<Vec<InputColumn>, Error> {
    let describe = |name: &&str| Ok(ingest::ingest(batch, name)?.described());
    names.iter().map(describe).collect()
}

/// The columns after the operators that are fitted, and the greatest code of those that hold codes with a known end.
fn greatest_codes(chain: &Chain, fitted: &[Fitted]) -> Vec<GreatestCode> {
    let columns = chain.columns.iter();
    let columns = columns.map(|name| (name.clone(), None)).collect();
    let operators = chain.operators.iter().zip(fitted);
    operators.fold(columns, |columns, (operator, fitted)| {
        operator.transform().greatest_codes(fitted, columns)
    })
}
