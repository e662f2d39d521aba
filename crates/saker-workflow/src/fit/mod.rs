//! Fitting: statistics gathered batch by batch, in as many passes over the data as a chain has operators to fit.

mod counter;
mod counts;
mod groups;
mod keys;
mod median;
mod moments;
mod statistics;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;

use self::counter::Counter;
use self::counts::Counts;
use self::groups::{Groups, grouped};
use self::median::{Median, Search};
use self::moments::Moments;
use self::statistics::Statistics;
use crate::bulk;
use crate::column::DType;
use crate::definition::{Chain, Definition, Grouping, Operator, Statistic};
use crate::error::Error;
use crate::fitted::Fitted;
use crate::folds::{BatchFolds, Folds};
use crate::ingest::{self, Ingested};
use crate::parts::{InputColumn, Parts};
use crate::similarity::Features;
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
    current: Vec<Option<(usize, Accumulator)>>,
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
                match Accumulator::new(operator) {
                    Some(accumulator) => *current = Some((fitted.len(), accumulator)),
                    None => fitted.push(without_data(operator, chain, fitted)?),
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
            if let Some((position, accumulator)) = current
                && let Some(operator) = chain.operators.get(*position)
            {
                let columns = bulk::apply_chain(chain, fitted, *position, &table, Some(&folds))?;
                accumulator.update(operator, &columns, &table, &folds, counts)?;
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
                match accumulator.finish(operator)? {
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

/// The state of a chain's next operator, when it follows from the operators before it and from files.
fn without_data(operator: &Operator, chain: &Chain, fitted: &[Fitted]) -> Result<Fitted, Error> {
    Ok(match operator {
        Operator::DropLowCardinality { min_cardinality } => Fitted::Columns {
            kept: greatest_codes(chain, fitted)
                .into_iter()
                .filter(|(_, greatest)| greatest.is_none_or(|code| code >= *min_cardinality))
                .map(|(name, _)| name)
                .collect(),
        },
        Operator::ColumnSimilarity {
            left,
            right,
            metric,
            ..
        } => {
            let left = Arc::new(Features::read(left, *metric)?);
            let right = match right {
                Some(right) => Arc::new(Features::read(right, *metric)?),
                None => Arc::clone(&left),
            };
            Fitted::Similarity(left, right)
        }
        _ => Fitted::Nothing,
    })
}

/// The columns after the operators that are fitted, and the greatest code of those that hold codes with a known end.
fn greatest_codes(chain: &Chain, fitted: &[Fitted]) -> Vec<(String, Option<usize>)> {
    let mut columns: Vec<(String, Option<usize>)> = chain
        .columns
        .iter()
        .map(|name| (name.clone(), None))
        .collect();
    for (operator, fitted) in chain.operators.iter().zip(fitted) {
        let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        let outputs = operator.output_names(&names);
        columns = match (operator, fitted) {
            (_, Fitted::Columns { kept }) => columns
                .into_iter()
                .filter(|(name, _)| kept.contains(name))
                .collect(),
            (Operator::Categorify { .. }, Fitted::Vocabularies(vocabularies)) => outputs
                .into_iter()
                .enumerate()
                .map(|(position, name)| {
                    // Columns that share a vocabulary share the only one.
                    let vocabulary = vocabularies.get(position).or(vocabularies.first());
                    (name, vocabulary.map(|v| v.cardinality() - 1))
                })
                .collect(),
            // NVTabular gives the number of buckets as the greatest code here.
            (Operator::HashBucket { num_buckets, .. }, _) => outputs
                .into_iter()
                .map(|name| (name, Some(*num_buckets as usize)))
                .collect(),
            (Operator::Rename { .. } | Operator::DataStats, _) => {
                (outputs.into_iter().zip(columns))
                    .map(|(name, (_, code))| (name, code))
                    .collect()
            }
            (Operator::Select { .. }, _) => outputs
                .into_iter()
                .map(|name| {
                    let code = (columns.iter())
                        .find(|(column, _)| *column == name)
                        .and_then(|(_, code)| *code);
                    (name, code)
                })
                .collect(),
            (operator, _) if operator.is_metadata() => columns,
            _ => outputs.into_iter().map(|name| (name, None)).collect(),
        };
    }
    columns
}

/// A running state for each column that an operator gets, by the column's name.
type PerColumn<T> = Vec<(String, T)>;

#[derive(Debug)]
enum Accumulator {
    Moments(PerColumn<Moments>),
    Extremes(PerColumn<Moments>),
    Medians(PerColumn<Median>),
    Ranges(PerColumn<Moments>),
    Statistics(PerColumn<Statistics>),
    Lengths(PerColumn<Option<(usize, usize)>>),
    Counts(Vec<Counter>),
    Groups(Vec<Groups>),
    Target {
        groups: Vec<Groups>,
        folds: Vec<Groups>,
        moments: Moments,
    },
}

/// What a pass led to for one operator.
enum Finished {
    Fitted(Fitted),
    /// It must see the same values again.
    Again(Accumulator),
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
            Operator::ReduceDtypeSize => Self::Ranges(Vec::new()),
            Operator::DataStats => Self::Statistics(Vec::new()),
            Operator::TargetEncoding { .. } => Self::Target {
                groups: Vec::new(),
                folds: Vec::new(),
                moments: Moments::default(),
            },
            _ => return None,
        })
    }

    fn update(
        &mut self,
        operator: &Operator,
        columns: &[Ingested],
        batch: &RecordBatch,
        folds: &BatchFolds,
        counts: Counts<'_>,
    ) -> Result<(), Error> {
        match self {
            Self::Moments(all) | Self::Extremes(all) => each(all, columns, |moments, column| {
                for_each_number(column, counts, |x, n| moments.add(x, n))
            })?,
            Self::Medians(all) => each(all, columns, |median, column| {
                for_each_number(column, counts, |x, n| median.add(x, n))
            })?,
            Self::Ranges(all) => each(all, columns, |moments, column| {
                if column.dtype.is_integer() {
                    for_each_number(column, counts, |x, n| moments.add(x, n))?;
                }
                Ok(())
            })?,
            Self::Statistics(all) => each(all, columns, |statistics, column| {
                statistics.update(column, counts)
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
                    counter.update(members, counts)?;
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
                    .map(|name| ingest::ingest(batch, name))
                    .collect::<Result<Vec<_>, _>>()?;
                Groups::update_all(groups, *group, columns, &values, counts)?;
            }
            Self::Target {
                groups,
                folds: by_fold,
                moments,
            } => {
                let Operator::TargetEncoding {
                    target,
                    group,
                    kfold,
                    fold_seed,
                    ..
                } = operator
                else {
                    return Ok(());
                };
                let values = [ingest::ingest(batch, target)?];
                for_each_number(&values[0], counts, |x, n| moments.add(x, n))?;
                Groups::update_all(groups, *group, columns, &values, counts)?;
                if let Some(folds) = folds.of((*kfold, *fold_seed)) {
                    let fold = ingest::fold_column(folds)?;
                    for (position, (name, members)) in
                        grouped(*group, columns).into_iter().enumerate()
                    {
                        let mut members = members.to_vec();
                        members.insert(0, fold.clone());
                        if by_fold.len() == position {
                            let name = format!("{}_{name}", fold.name);
                            by_fold.push(Groups::new(&name, &members, &values));
                        }
                        if let Some(groups) = by_fold.get_mut(position) {
                            groups.update(&members, &values, counts)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(self, operator: &Operator) -> Result<Finished, Error> {
        let nothing = |column: &str| Error::Fit {
            column: column.to_owned(),
            operator: operator.name(),
            reason: "every value is missing".to_owned(),
        };
        Ok(Finished::Fitted(match self {
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
                let (mut medians, mut next, mut done) = (BTreeMap::new(), Vec::new(), true);
                for (name, median) in all {
                    match median.finish() {
                        Search::Found(None) => return Err(nothing(&name)),
                        Search::Found(Some(median)) => {
                            medians.insert(name.clone(), median);
                            next.push((name, Median::known(median)));
                        }
                        Search::Again(median) => {
                            done = false;
                            next.push((name, median));
                        }
                    }
                }
                if !done {
                    return Ok(Finished::Again(Self::Medians(next)));
                }
                Fitted::Medians { medians }
            }
            Self::Ranges(all) => Fitted::Ranges {
                ranges: all
                    .into_iter()
                    .filter(|(_, moments)| moments.count > 0)
                    .map(|(name, moments)| (name, (moments.min, moments.max)))
                    .collect(),
            },
            Self::Statistics(all) => Fitted::Statistics {
                columns: all
                    .into_iter()
                    .map(|(name, statistics)| (name, statistics.finish()))
                    .collect(),
            },
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
                    return Ok(Finished::Fitted(Fitted::Nothing));
                };
                Fitted::Groups(
                    groups
                        .into_iter()
                        .map(|group| Arc::new(group.finish(columns, stats)))
                        .collect(),
                )
            }
            Self::Target {
                groups,
                folds,
                moments,
            } => {
                let Operator::TargetEncoding { target, .. } = operator else {
                    return Ok(Finished::Fitted(Fitted::Nothing));
                };
                let tables = |groups: Vec<Groups>| {
                    let stats = [Statistic::Count, Statistic::Sum];
                    let names = std::slice::from_ref(target);
                    let tables = groups
                        .into_iter()
                        .map(|group| Arc::new(group.finish(names, &stats)));
                    tables.collect()
                };
                Fitted::Target {
                    mean: moments.mean().ok_or_else(|| nothing(target))?,
                    tables: tables(groups),
                    folds: tables(folds),
                }
            }
        }))
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

/// Calls `f` with every element as a number, NaN where it is missing, and for how many rows it stands.
fn for_each_number(
    column: &Ingested,
    counts: Counts<'_>,
    mut f: impl FnMut(f64, u64),
) -> Result<(), Error> {
    let counts = counts.of_elements(column);
    for (place, x) in numbers(column)?.into_iter().enumerate() {
        f(x, counts.at(place));
    }
    Ok(())
}

/// A column's elements as numbers, NaN where one is missing.
fn numbers(column: &Ingested) -> Result<Vec<f64>, Error> {
    let accepted = "a numeric type";
    if column.dtype == DType::String || column.datetime {
        return Err(Error::types(&column.name, column.type_name(), accepted));
    }
    let numbers = cast(&column.elements, &DataType::Float64)
        .map_err(|error| Error::types(&column.name, error, accepted))?;
    let numbers = numbers.as_primitive::<Float64Type>();
    Ok(numbers.iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}
