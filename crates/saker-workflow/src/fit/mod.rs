//! Fitting: statistics gathered batch by batch, in as many passes over the data as a chain has operators to fit.

mod counter;
mod groups;
mod keys;
mod median;
mod moments;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;

use self::counter::Counter;
use self::groups::{Groups, grouped};
use self::median::median;
use self::moments::Moments;
use crate::bulk::{self, Ingested};
use crate::column::DType;
use crate::definition::{Definition, Grouping, Operator, Statistic};
use crate::error::Error;
use crate::fitted::Fitted;
use crate::workflow::{InputColumn, Workflow};

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
    definition: Definition,
    inputs: Vec<InputColumn>,
    fitted: Vec<Vec<Fitted>>,
    /// Per chain, the operator that this pass fits.
    current: Vec<Option<(usize, Accumulator)>>,
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
    /// The definition is not accepted.
    pub fn new(definition: Definition) -> Result<Self, Error> {
        definition.validate()?;
        let fitted = definition.chains.iter().map(|_| Vec::new()).collect();
        let mut fitter = Self {
            definition,
            inputs: Vec::new(),
            fitted,
            current: Vec::new(),
        };
        fitter.advance();
        Ok(fitter)
    }

    /// Moves every chain to its next operator that needs fitting; whether there is one.
    fn advance(&mut self) -> bool {
        self.current.clear();
        for (chain, fitted) in self.definition.chains.iter().zip(&mut self.fitted) {
            let mut next = None;
            while next.is_none() && fitted.len() < chain.operators.len() {
                match Accumulator::new(&chain.operators[fitted.len()]) {
                    Some(accumulator) => next = Some((fitted.len(), accumulator)),
                    None => fitted.push(Fitted::Nothing),
                }
            }
            self.current.push(next);
        }
        self.current.iter().any(Option::is_some)
    }

    /// Takes in a batch. Batches may have any number of rows; each must have all columns of
    /// [`Definition::fit_input_names`].
    ///
    /// # Errors
    /// A column is missing, or its type or a value does not suit an operator.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        if self.inputs.is_empty() {
            for name in self.definition.input_names() {
                let column = bulk::ingest(batch, name)?;
                self.inputs.push(InputColumn {
                    name: name.to_owned(),
                    dtype: column.dtype,
                    list: column.lists.is_some(),
                });
            }
        }
        for ((chain, fitted), current) in self
            .definition
            .chains
            .iter()
            .zip(&self.fitted)
            .zip(&mut self.current)
        {
            if let Some((position, accumulator)) = current {
                let columns = bulk::apply_chain(chain, fitted, *position, batch)?;
                accumulator.update(&chain.operators[*position], &columns, batch)?;
            }
        }
        Ok(())
    }

    /// Ends a pass over the data.
    ///
    /// # Errors
    /// There was no batch, or an operator cannot be fitted on what there was.
    pub fn finish(mut self) -> Result<Pass, Error> {
        if self.inputs.is_empty() && !self.definition.chains.is_empty() {
            return Err(Error::Fit {
                column: self.definition.input_names().join(", "),
                operator: "workflow",
                reason: "no batch was given".to_owned(),
            });
        }
        let current = std::mem::take(&mut self.current);
        for ((chain, fitted), current) in self
            .definition
            .chains
            .iter()
            .zip(&mut self.fitted)
            .zip(current)
        {
            if let Some((position, accumulator)) = current {
                fitted.push(accumulator.finish(&chain.operators[position])?);
            }
        }
        if self.advance() {
            return Ok(Pass::Again(self));
        }
        Workflow::from_parts(self.definition, self.inputs, self.fitted).map(Pass::Done)
    }
}

/// A running state for each column that an operator gets, by the column's name.
type PerColumn<T> = Vec<(String, T)>;

#[derive(Debug)]
enum Accumulator {
    Moments(PerColumn<Moments>),
    Extremes(PerColumn<Moments>),
    Medians(PerColumn<Vec<f64>>),
    Lengths(PerColumn<Option<(usize, usize)>>),
    Counts(Vec<Counter>),
    Groups(Vec<Groups>),
    Target(Vec<Groups>, Moments),
}

impl Accumulator {
    fn new(operator: &Operator) -> Option<Self> {
        Some(match operator {
            Operator::Categorify { .. } => Self::Counts(Vec::new()),
            Operator::Normalize { .. } => Self::Moments(Vec::new()),
            Operator::NormalizeMinMax { .. } => Self::Extremes(Vec::new()),
            Operator::FillMedian { .. } => Self::Medians(Vec::new()),
            Operator::ValueCount => Self::Lengths(Vec::new()),
            Operator::JoinGroupby { .. } => Self::Groups(Vec::new()),
            Operator::TargetEncoding { .. } => Self::Target(Vec::new(), Moments::default()),
            _ => return None,
        })
    }

    fn update(
        &mut self,
        operator: &Operator,
        columns: &[Ingested],
        batch: &RecordBatch,
    ) -> Result<(), Error> {
        match self {
            Self::Moments(all) | Self::Extremes(all) => each(all, columns, |moments, column| {
                numbers(column)?.into_iter().for_each(|x| moments.add(x));
                Ok(())
            })?,
            Self::Medians(all) => each(all, columns, |values, column| {
                values.extend(numbers(column)?.into_iter().filter(|x| !x.is_nan()));
                Ok(())
            })?,
            Self::Lengths(all) => each(all, columns, |bounds, column| {
                let Some((offsets, _)) = &column.lists else {
                    return Err(Error::types(&column.name, column.dtype, "lists"));
                };
                for length in offsets.lengths() {
                    let (least, most) = bounds.unwrap_or((length, length));
                    *bounds = Some((least.min(length), most.max(length)));
                }
                Ok(())
            })?,
            Self::Counts(counters) => {
                let encode_type = match operator {
                    Operator::Categorify { encode_type, .. } => *encode_type,
                    _ => Grouping::Separate,
                };
                let groups = grouped(encode_type, columns);
                if counters.is_empty() {
                    counters.extend(groups.iter().map(|(name, members)| {
                        Counter::new(name, members, encode_type == Grouping::Joint)
                    }));
                }
                for (counter, (_, members)) in counters.iter_mut().zip(groups) {
                    counter.update(members)?;
                }
            }
            Self::Groups(groups) => {
                let Operator::JoinGroupby {
                    columns: names,
                    group,
                    ..
                } = operator
                else {
                    return Ok(());
                };
                let values = names
                    .iter()
                    .map(|name| bulk::ingest(batch, name))
                    .collect::<Result<Vec<_>, _>>()?;
                Groups::update_all(groups, *group, columns, &values)?;
            }
            Self::Target(groups, moments) => {
                let Operator::TargetEncoding { target, group, .. } = operator else {
                    return Ok(());
                };
                let values = [bulk::ingest(batch, target)?];
                numbers(&values[0])?
                    .into_iter()
                    .for_each(|x| moments.add(x));
                Groups::update_all(groups, *group, columns, &values)?;
            }
        }
        Ok(())
    }

    fn finish(self, operator: &Operator) -> Result<Fitted, Error> {
        let nothing = |column: &str| Error::Fit {
            column: column.to_owned(),
            operator: operator.name(),
            reason: "every value is missing".to_owned(),
        };
        Ok(match self {
            Self::Moments(all) => {
                let (mut means, mut stds) = (BTreeMap::new(), BTreeMap::new());
                for (name, moments) in all {
                    let mean = moments.mean().ok_or_else(|| nothing(&name))?;
                    means.insert(name.clone(), mean);
                    let std = moments.variance().sqrt();
                    stds.insert(name, if std.is_finite() { std } else { 0.0 });
                }
                Fitted::Moments { means, stds }
            }
            Self::Extremes(all) => {
                let (mut mins, mut maxs) = (BTreeMap::new(), BTreeMap::new());
                for (name, moments) in all {
                    moments.mean().ok_or_else(|| nothing(&name))?;
                    mins.insert(name.clone(), moments.min);
                    maxs.insert(name, moments.max);
                }
                Fitted::Extremes { mins, maxs }
            }
            Self::Medians(all) => {
                let mut medians = BTreeMap::new();
                for (name, values) in all {
                    let median = median(values).ok_or_else(|| nothing(&name))?;
                    medians.insert(name, median);
                }
                Fitted::Medians { medians }
            }
            Self::Lengths(all) => Fitted::Lengths {
                lengths: all
                    .into_iter()
                    .map(|(name, bounds)| (name, bounds.unwrap_or((0, 0))))
                    .collect(),
            },
            Self::Counts(counters) => Fitted::Vocabularies(
                counters
                    .into_iter()
                    .map(|counter| Arc::new(counter.finish(operator)))
                    .collect(),
            ),
            Self::Groups(groups) => {
                let Operator::JoinGroupby { columns, stats, .. } = operator else {
                    return Ok(Fitted::Nothing);
                };
                Fitted::Groups(
                    groups
                        .into_iter()
                        .map(|group| Arc::new(group.finish(columns, stats)))
                        .collect(),
                )
            }
            Self::Target(groups, moments) => {
                let Operator::TargetEncoding { target, .. } = operator else {
                    return Ok(Fitted::Nothing);
                };
                let names = [target.clone()];
                let stats = [Statistic::Count, Statistic::Sum];
                Fitted::Target {
                    mean: moments.mean().ok_or_else(|| nothing(target))?,
                    tables: groups
                        .into_iter()
                        .map(|group| Arc::new(group.finish(&names, &stats)))
                        .collect(),
                }
            }
        })
    }
}

/// Updates the state of each column with its values in this batch.
fn each<T: Default>(
    all: &mut PerColumn<T>,
    columns: &[Ingested],
    mut update: impl FnMut(&mut T, &Ingested) -> Result<(), Error>,
) -> Result<(), Error> {
    if all.is_empty() {
        all.extend(columns.iter().map(|c| (c.name.clone(), T::default())));
    }
    for ((_, state), column) in all.iter_mut().zip(columns) {
        update(state, column)?;
    }
    Ok(())
}

/// A column's elements as numbers, NaN where one is missing.
fn numbers(column: &Ingested) -> Result<Vec<f64>, Error> {
    let accepted = "a numeric type";
    if column.dtype == DType::String {
        return Err(Error::types(&column.name, column.dtype, accepted));
    }
    let numbers = cast(&column.elements, &DataType::Float64)
        .map_err(|error| Error::types(&column.name, error, accepted))?;
    let numbers = numbers.as_primitive::<Float64Type>();
    Ok(numbers.iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}
