//! Fitting: statistics gathered batch by batch, in as many passes over the data as a chain has operators to fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use rustc_hash::FxHashMap;

use crate::bulk::{self, Ingested};
use crate::column::DType;
use crate::definition::{Definition, Grouping, Operator, Statistic, joined_statistics};
use crate::error::Error;
use crate::fitted::Fitted;
use crate::lookup::Keys;
use crate::vocabulary::{GroupTable, OOV_CODE, Vocabulary};
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

#[derive(Debug)]
enum Accumulator {
    Moments(Vec<(String, Moments)>),
    Extremes(Vec<(String, Moments)>),
    Medians(Vec<(String, Vec<f64>)>),
    Lengths(Vec<(String, Option<(usize, usize)>)>),
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
            Self::Moments(all) | Self::Extremes(all) => {
                resize(all, columns);
                for ((_, moments), column) in all.iter_mut().zip(columns) {
                    for_each_number(column, |x| moments.add(x))?;
                }
            }
            Self::Medians(all) => {
                resize(all, columns);
                for ((_, values), column) in all.iter_mut().zip(columns) {
                    for_each_number(column, |x| values.push(x))?;
                }
            }
            Self::Lengths(all) => {
                resize(all, columns);
                for ((_, bounds), column) in all.iter_mut().zip(columns) {
                    let Some((offsets, _)) = &column.lists else {
                        return Err(Error::types(&column.name, column.dtype, "lists"));
                    };
                    for length in offsets.lengths() {
                        let (least, most) = bounds.unwrap_or((length, length));
                        *bounds = Some((least.min(length), most.max(length)));
                    }
                }
            }
            Self::Counts(counters) => {
                let encode_type = match operator {
                    Operator::Categorify { encode_type, .. } => *encode_type,
                    _ => Grouping::Separate,
                };
                let groups: Vec<(String, &[Ingested])> = match encode_type {
                    Grouping::Separate => columns
                        .iter()
                        .map(|c| (c.name.clone(), std::slice::from_ref(c)))
                        .collect(),
                    Grouping::Joint | Grouping::Combo => vec![(joined(columns), columns)],
                };
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
                update_groups(groups, *group, columns, &values)?;
            }
            Self::Target(groups, moments) => {
                let Operator::TargetEncoding { target, group, .. } = operator else {
                    return Ok(());
                };
                let values = [bulk::ingest(batch, target)?];
                for_each_number(&values[0], |x| moments.add(x))?;
                update_groups(groups, *group, columns, &values)?;
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

fn resize<T: Default>(all: &mut Vec<(String, T)>, columns: &[Ingested]) {
    if all.is_empty() {
        all.extend(columns.iter().map(|c| (c.name.clone(), T::default())));
    }
}

fn joined(columns: &[Ingested]) -> String {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    names.join("_")
}

/// Calls `f` with every number that is not missing.
fn for_each_number(column: &Ingested, mut f: impl FnMut(f64)) -> Result<(), Error> {
    for row in 0..column.elements.len() {
        if let Some(x) = number(column, row)? {
            f(x);
        }
    }
    Ok(())
}

fn number(column: &Ingested, row: usize) -> Result<Option<f64>, Error> {
    if column.valid.as_ref().is_some_and(|valid| !valid[row]) {
        return Ok(None);
    }
    let elements = &column.elements;
    let x = match column.dtype {
        DType::Int32 => f64::from(elements.as_primitive::<Int32Type>().value(row)),
        DType::Int64 => elements.as_primitive::<Int64Type>().value(row) as f64,
        DType::Float32 => f64::from(elements.as_primitive::<Float32Type>().value(row)),
        DType::Float64 => elements.as_primitive::<Float64Type>().value(row),
        DType::Bool => f64::from(u8::from(elements.as_boolean().value(row))),
        DType::String => return Err(Error::types(&column.name, "string", "a numeric type")),
    };
    Ok((!x.is_nan()).then_some(x))
}

/// Running count, sum, sum of squares and extremes.
#[derive(Debug, Clone, Copy)]
struct Moments {
    count: u64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.count += 1;
        self.sum += x;
        self.squares += x * x;
        self.min = self.min.min(x);
        self.max = self.max.max(x);
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// One delta degree of freedom; NaN for a single value.
    fn variance(&self) -> f64 {
        let n = self.count as f64;
        if self.count < 2 {
            return f64::NAN;
        }
        ((self.squares - self.sum * self.sum / n) / (n - 1.0)).max(0.0)
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(if even { (lower + upper) / 2.0 } else { upper })
}

/// A value of a key column, in the order in which ties are broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Null,
    Int(i64),
    String(Box<str>),
}

fn key(column: &Ingested, row: usize) -> Result<Key, Error> {
    if column.valid.as_ref().is_some_and(|valid| !valid[row]) {
        return Ok(Key::Null);
    }
    let elements = &column.elements;
    Ok(match column.dtype {
        DType::Int32 => Key::Int(i64::from(elements.as_primitive::<Int32Type>().value(row))),
        DType::Int64 => Key::Int(elements.as_primitive::<Int64Type>().value(row)),
        DType::String => Key::String(elements.as_string::<i32>().value(row).into()),
        _ => match number(column, row)? {
            None => Key::Null,
            Some(x) if x.fract() == 0.0 && x.abs() < 9.2e18 => Key::Int(x as i64),
            Some(x) => {
                return Err(Error::Value {
                    column: column.name.clone(),
                    value: x.to_string(),
                    accepted: "whole numbers or strings as keys (Bucketize or HashBucket it first)"
                        .to_owned(),
                });
            }
        },
    })
}

/// The keys' columns of a table; strings when the first batch said so.
fn key_columns(names: &[(String, bool)], rows: &[Vec<Key>]) -> Vec<(String, Keys)> {
    names
        .iter()
        .enumerate()
        .map(|(position, (name, string))| {
            let keys = rows.iter().map(|row| &row[position]);
            let keys = if *string {
                Keys::String(
                    keys.map(|key| match key {
                        Key::String(s) => Some(s.to_string()),
                        _ => None,
                    })
                    .collect(),
                )
            } else {
                Keys::Int(
                    keys.map(|key| match key {
                        Key::Int(i) => Some(*i),
                        _ => None,
                    })
                    .collect(),
                )
            };
            (name.clone(), keys)
        })
        .collect()
}

/// How often each value, or combination of values, was seen.
#[derive(Debug)]
struct Counter {
    name: String,
    columns: Vec<(String, bool)>,
    joint: bool,
    single: FxHashMap<Key, u64>,
    combined: FxHashMap<Vec<Key>, u64>,
}

impl Counter {
    fn new(name: &str, members: &[Ingested], joint: bool) -> Self {
        let string = |c: &Ingested| c.dtype == DType::String;
        let columns = if joint {
            vec![(name.to_owned(), members.iter().any(string))]
        } else {
            members
                .iter()
                .map(|c| (c.name.clone(), string(c)))
                .collect()
        };
        Self {
            name: name.to_owned(),
            columns,
            joint,
            single: FxHashMap::default(),
            combined: FxHashMap::default(),
        }
    }

    fn update(&mut self, members: &[Ingested]) -> Result<(), Error> {
        if self.joint || members.len() == 1 {
            for column in members {
                if (column.dtype == DType::String) != self.columns[0].1 {
                    return Err(Error::types(
                        &column.name,
                        column.dtype,
                        "the type of the columns it shares a vocabulary with",
                    ));
                }
                for row in 0..column.elements.len() {
                    *self.single.entry(key(column, row)?).or_default() += 1;
                }
            }
        } else {
            let rows = members.first().map_or(0, |c| c.elements.len());
            for row in 0..rows {
                let keys = members
                    .iter()
                    .map(|column| key(column, row))
                    .collect::<Result<Vec<_>, _>>()?;
                *self.combined.entry(keys).or_default() += 1;
            }
        }
        Ok(())
    }

    fn finish(self, operator: &Operator) -> Vocabulary {
        let (threshold, max_size, buckets) = match operator {
            Operator::Categorify {
                freq_threshold,
                max_size,
                num_buckets,
                ..
            } => (*freq_threshold, *max_size, *num_buckets),
            _ => (0, 0, 1),
        };
        let start = OOV_CODE + buckets;
        let single = self.single.into_iter().map(|(key, n)| (vec![key], n));
        let mut counted: Vec<(Vec<Key>, u64)> = single
            .chain(self.combined)
            .filter(|(keys, count)| *count >= threshold && keys.iter().any(|key| *key != Key::Null))
            .collect();
        counted.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        if max_size > 0 {
            counted.truncate(max_size - start.min(max_size));
        }
        let sizes = counted.iter().map(|(_, count)| *count as i64).collect();
        let keys: Vec<Vec<Key>> = counted.into_iter().map(|(keys, _)| keys).collect();
        Vocabulary::new(&self.name, key_columns(&self.columns, &keys), sizes, start)
    }
}

/// Statistics by key.
#[derive(Debug)]
struct Groups {
    name: String,
    columns: Vec<(String, bool)>,
    rows: FxHashMap<Vec<Key>, usize>,
    counts: Vec<u64>,
    /// Per aggregated column: whether it is float32, and the moments by row.
    moments: Vec<(bool, Vec<Moments>)>,
}

fn update_groups(
    groups: &mut Vec<Groups>,
    group: Grouping,
    columns: &[Ingested],
    values: &[Ingested],
) -> Result<(), Error> {
    let keys: Vec<(String, &[Ingested])> = match group {
        Grouping::Separate => columns
            .iter()
            .map(|c| (c.name.clone(), std::slice::from_ref(c)))
            .collect(),
        Grouping::Joint | Grouping::Combo => vec![(joined(columns), columns)],
    };
    if groups.is_empty() {
        groups.extend(keys.iter().map(|(name, members)| {
            Groups {
                name: name.clone(),
                columns: members
                    .iter()
                    .map(|c| (c.name.clone(), c.dtype == DType::String))
                    .collect(),
                rows: FxHashMap::default(),
                counts: Vec::new(),
                moments: values
                    .iter()
                    .map(|c| (c.dtype == DType::Float32, Vec::new()))
                    .collect(),
            }
        }));
    }
    for (group, (_, members)) in groups.iter_mut().zip(keys) {
        if let Some(list) = members.iter().chain(values).find(|c| c.lists.is_some()) {
            return Err(Error::types(&list.name, "list", "one value a row"));
        }
        let rows = members.first().map_or(0, |c| c.elements.len());
        for row in 0..rows {
            let keys = members
                .iter()
                .map(|column| key(column, row))
                .collect::<Result<Vec<_>, _>>()?;
            let place = *group.rows.entry(keys).or_insert_with(|| {
                group.counts.push(0);
                for (_, moments) in &mut group.moments {
                    moments.push(Moments::default());
                }
                group.counts.len() - 1
            });
            group.counts[place] += 1;
            for ((_, moments), value) in group.moments.iter_mut().zip(values) {
                if let Some(x) = number(value, row)? {
                    moments[place].add(x);
                }
            }
        }
    }
    Ok(())
}

impl Groups {
    fn finish(self, aggregated: &[String], stats: &[Statistic]) -> GroupTable {
        // In the order of the keys, so that a fit is reproducible.
        let mut rows: Vec<(Vec<Key>, usize)> = self.rows.into_iter().collect();
        rows.sort_unstable();
        let values = joined_statistics(&self.name, aggregated, stats)
            .into_iter()
            .map(|(name, (column, statistic))| {
                let single = column.is_some_and(|column| self.moments[column].0);
                let value = |place: usize| match column {
                    None => self.counts[place] as f64,
                    Some(column) => {
                        let moments = &self.moments[column].1[place];
                        match statistic {
                            Statistic::Count => self.counts[place] as f64,
                            Statistic::Sum => moments.sum,
                            Statistic::Mean => moments.mean().unwrap_or(f64::NAN),
                            Statistic::Var => moments.variance(),
                            Statistic::Std => moments.variance().sqrt(),
                            Statistic::Min if moments.count > 0 => moments.min,
                            Statistic::Max if moments.count > 0 => moments.max,
                            Statistic::Min | Statistic::Max => f64::NAN,
                        }
                    }
                };
                let single =
                    single && matches!(statistic, Statistic::Sum | Statistic::Min | Statistic::Max);
                (name, single, rows.iter().map(|(_, p)| value(*p)).collect())
            })
            .collect();
        let keys: Vec<Vec<Key>> = rows.iter().map(|(keys, _)| keys.clone()).collect();
        GroupTable::new(key_columns(&self.columns, &keys), values)
    }
}
