//! What an operator says of itself.

use super::state::InFitted;
use super::{Categorify, Fitted, Operator};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::Accumulator;
#[cfg(feature = "tables")]
use crate::ingest::Ingested;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::parameters::Properties;
use crate::variable::{Variable, joined};

/// An operator: what its file says of it. `docs/adding-an-operator.md` goes through it.
pub(crate) trait Transform {
    /// Checks the parameters for columns of these names.
    ///
    /// # Errors
    /// Says what is accepted.
    fn validate(&self, _inputs: &[String]) -> Result<(), String> {
        Ok(())
    }

    /// The columns that it gives for the columns it gets.
    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        inputs.to_vec()
    }

    /// The same, of an operator that gives fewer by what it was fitted to.
    fn fitted_output_names(&self, _fitted: &Fitted, inputs: &[String]) -> Vec<String> {
        self.output_names(inputs)
    }

    /// Whether it gives a row the same whatever rows are around it, and wherever it stands. Fitting reads all rows into memory for an
    /// operator that says no.
    fn of_row_alone(&self) -> bool;

    /// Whether it gives codes or numbers.
    fn kind(&self) -> OutputKind;

    /// Columns of the input that it reads besides its own.
    fn reads(&self) -> &[String] {
        &[]
    }

    /// Columns of the input that it reads when it is fitted, besides its own.
    fn reads_to_fit(&self) -> &[String] {
        &[]
    }

    /// How it draws the folds of the rows that it is fitted on: number of folds, more than 1, and seed. Nothing, if it has none.
    fn folds(&self) -> Option<(u32, Option<u32>)> {
        None
    }

    /// Tags and properties that it gives its columns.
    fn metadata(&self) -> (Vec<String>, Properties) {
        (Vec::new(), Properties::new())
    }

    /// The columns that it gives, as programs over those that it gets.
    ///
    /// # Errors
    /// A column has a type that it does not take, or it is not fitted.
    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error>;

    /// The running state of a fit; nothing, if it learns nothing from rows.
    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        None
    }

    /// The state of an operator without an accumulator. `columns` gives the greatest codes of the columns that it gets.
    ///
    /// # Errors
    /// A file cannot be read.
    #[cfg(feature = "tables")]
    fn state_without_rows(
        &self,
        _columns: &dyn Fn() -> Vec<GreatestCode>,
    ) -> Result<Fitted, Error> {
        Ok(Fitted::Nothing)
    }

    /// The columns that it gives, with the greatest code of each: known of codes that it makes or keeps.
    #[cfg(feature = "tables")]
    fn greatest_codes(&self, _fitted: &Fitted, columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
        let names: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
        let outputs = self.output_names(&names).into_iter();
        outputs.map(|name| (name, None)).collect()
    }

    /// Columns of a table that it makes without a program, because it changes the length of lists.
    ///
    /// # Errors
    /// A column has a type that it does not take.
    #[cfg(feature = "tables")]
    fn apply_to_lists(&self, _columns: &[Ingested]) -> Result<Option<Vec<Ingested>>, Error> {
        Ok(None)
    }

    /// The names of its classes in NVTabular; none, if NVTabular has no such operator.
    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str]
    where
        Self: Sized,
    {
        &[]
    }

    /// Whether NVTabular's operator reads columns of the input besides its own, which are dependencies of its node.
    #[cfg(feature = "tables")]
    fn nvtabular_reads_input() -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Reads a node of NVTabular's `graph.json`.
    ///
    /// # Errors
    /// Says which parameter or state is not accepted.
    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error>
    where
        Self: Sized,
    {
        Err(node.fail("it is not read"))
    }

    /// Its form in NVTabular's `graph.json`.
    ///
    /// # Errors
    /// It has none, or a parameter has none.
    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        Err(export.no_form("this operator"))
    }
}

/// A column's name, and its greatest code where that is known.
#[cfg(feature = "tables")]
pub(crate) type GreatestCode = (String, Option<usize>);

/// What an operator's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Codes, from 0.
    Codes,
    /// Numbers.
    Numbers,
    /// What the operator's columns are.
    Unchanged,
}

/// What an operator is compiled with, beside its columns.
pub(crate) struct Context<'a> {
    pub(crate) operator: &'static str,
    pub(crate) fitted: &'a Fitted,
    /// The columns that it gets.
    pub(crate) columns: &'a [Variable],
    /// Finds a column of the input.
    pub(crate) input: &'a dyn Fn(&str) -> Result<Variable, Error>,
    /// The folds of the rows, when they are encoded as the rows that were fitted on.
    pub(crate) fold: Option<&'a Variable>,
}

impl<'a> Context<'a> {
    /// The operator's state.
    ///
    /// # Errors
    /// It has none, or another operator's.
    pub(crate) fn state<S: InFitted>(&self) -> Result<&'a S, Error> {
        S::of(self.fitted).ok_or_else(|| self.not_fitted(self.columns))
    }

    /// There is no state for these columns.
    pub(crate) fn not_fitted(&self, columns: &[Variable]) -> Error {
        Error::Fit {
            column: joined(columns, ", "),
            operator: self.operator,
            reason: "the workflow holds no fitted state for it; fit the workflow again".to_owned(),
        }
    }
}

/// Each column by itself.
pub(crate) fn each(
    columns: &[Variable],
    transform: impl Fn(&Variable) -> Result<Variable, Error>,
) -> Result<Vec<Variable>, Error> {
    columns.iter().map(transform).collect()
}

impl Operator {
    /// Categorify with every parameter at its default.
    pub fn categorify() -> Self {
        Categorify::default().into()
    }

    /// The columns this operator gives for the columns it gets; DropLowCardinality may give fewer, by what was fitted.
    pub fn output_names(&self, inputs: &[String]) -> Vec<String> {
        self.transform().output_names(inputs)
    }

    /// The columns this operator gives for the columns it gets, with what was fitted.
    pub fn fitted_output_names(&self, fitted: &Fitted, inputs: &[String]) -> Vec<String> {
        self.transform().fitted_output_names(fitted, inputs)
    }

    /// Whether it gives a row the same whatever rows are around it, and wherever it stands.
    pub fn of_row_alone(&self) -> bool {
        self.transform().of_row_alone()
    }

    /// Whether it gives codes or numbers.
    pub fn kind(&self) -> OutputKind {
        self.transform().kind()
    }

    /// How it draws the folds of the rows that it is fitted on: number of folds, more than 1, and seed. Nothing, if it has none.
    pub fn folds(&self) -> Option<(u32, Option<u32>)> {
        self.transform().folds()
    }

    pub(crate) fn validate(&self, inputs: &[String]) -> Result<(), Error> {
        (self.transform().validate(inputs)).map_err(|accepted| {
            Error::definition(&inputs.join(", "), &format!("{}: {accepted}", self.name()))
        })
    }
}
