//! The running state of an operator's fit.

use std::fmt::Debug;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;

use super::counts::Counts;
use crate::column::DType;
use crate::error::Error;
use crate::folds::BatchFolds;
use crate::ingest::Ingested;
use crate::operators::Fitted;

/// The rows of a batch, as an operator is fitted on them.
pub(crate) struct Rows<'a> {
    /// The operator's columns.
    pub(crate) columns: &'a [Ingested],
    /// The columns of the input.
    pub(crate) batch: &'a RecordBatch,
    pub(crate) folds: &'a BatchFolds,
    /// For how many rows each row stands.
    pub(crate) counts: Counts<'a>,
}

/// What an operator has learned of the rows so far.
pub(crate) trait Accumulator: Debug + Send + Sync {
    /// Takes in the rows of a batch.
    ///
    /// # Errors
    /// A column has a type, or a value, that cannot be fitted on.
    fn update(&mut self, rows: &Rows<'_>) -> Result<(), Error>;

    /// Ends a pass over the rows.
    ///
    /// # Errors
    /// There was nothing to fit on.
    fn finish(self: Box<Self>, operator: &'static str) -> Result<Finished, Error>;
}

/// What a pass led to for one operator.
pub(crate) enum Finished {
    Fitted(Fitted),
    /// It must see the same values again.
    Again(Box<dyn Accumulator>),
}

impl Finished {
    pub(crate) fn fitted(state: impl Into<Fitted>) -> Self {
        Self::Fitted(state.into())
    }
}

/// A column that the operator cannot be fitted on.
pub(crate) fn nothing_to_fit(operator: &'static str, column: &str) -> Error {
    Error::Fit {
        column: column.to_owned(),
        operator,
        reason: "every value is missing".to_owned(),
    }
}

/// How a column's values in a batch change its state.
type Update<S> = fn(&mut S, &Ingested, Counts<'_>) -> Result<(), Error>;
/// What the states lead to, by the names of the columns.
type Finish<S> = fn(Vec<(String, S)>, &'static str) -> Result<Finished, Error>;

/// A state for each column that an operator gets.
#[derive(Debug)]
struct EachColumn<S> {
    states: Vec<(String, S)>,
    update: Update<S>,
    finish: Finish<S>,
}

impl<S: Default + Debug + Send + Sync> Accumulator for EachColumn<S> {
    fn update(&mut self, rows: &Rows<'_>) -> Result<(), Error> {
        if self.states.is_empty() {
            let columns = rows.columns.iter();
            self.states
                .extend(columns.map(|c| (c.name.clone(), S::default())));
        }
        for ((_, state), column) in self.states.iter_mut().zip(rows.columns) {
            (self.update)(state, column, rows.counts)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, operator: &'static str) -> Result<Finished, Error> {
        (self.finish)(self.states, operator)
    }
}

/// Fits each column by itself. The states of an earlier pass go on; without any, each column begins with the default one.
pub(crate) fn each_column<S: Default + Debug + Send + Sync + 'static>(
    states: Vec<(String, S)>,
    update: Update<S>,
    finish: Finish<S>,
) -> Box<dyn Accumulator> {
    Box::new(EachColumn {
        states,
        update,
        finish,
    })
}

/// Calls `f` with every element as a number, NaN where it is missing, and for how many rows it stands.
pub(crate) fn for_each_number(
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
pub(crate) fn numbers(column: &Ingested) -> Result<Vec<f64>, Error> {
    let accepted = "a numeric type";
    if column.dtype == DType::String || column.datetime {
        return Err(Error::types(&column.name, column.type_name(), accepted));
    }
    let numbers = cast(&column.elements, &DataType::Float64)
        .map_err(|error| Error::types(&column.name, error, accepted))?;
    let numbers = numbers.as_primitive::<Float64Type>();
    Ok(numbers.iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}
