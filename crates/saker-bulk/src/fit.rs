//! Fits workflows on the rows of a plan.

use std::collections::BTreeSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::dataframe::DataFrame;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{Expr, ident, lit};
use saker_workflow::{Definition, Fitter, Operator, Pass, TableOperator, Workflow};

use crate::engine::{Engine, Progress};
use crate::error::Error;
use crate::read::names;

/// The column of a grouped plan with the number of equal rows. No feature's column has this name.
const ROWS: &str = "rows of this kind";

/// How the fit of a chain of operators reads the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reading {
    /// Equal rows once, with their number. DataFusion groups and counts them in parallel, and spills. The plan consists of DataFusion's own
    /// operators.
    Grouped,
    /// All rows in order, batch by batch. For lists, which cannot be grouped, for folds, which depend on the rows' order, and for operators
    /// over the table.
    Streamed,
    /// All rows of the columns at once, within the memory limit. For operators that depend on other rows.
    Whole,
}

/// Chains that read the same columns in the same way share a scan.
struct Scan {
    columns: BTreeSet<String>,
    reading: Reading,
    /// The chains' places in the definition.
    fitters: Vec<(usize, Fitter)>,
}

impl Engine {
    /// Fits a definition on the rows of a plan, on all threads. Each different set of columns needs one scan per operator of the chain that is
    /// fitted.
    ///
    /// The result equals that of [`Workflow::fit`] on the same rows in memory, for any number of parts: counts are exact, and sums are
    /// computed in the order of the grouped values, with twice the precision of f64.
    ///
    /// If the rows belong to another session, such as one of Ballista, that session groups them.
    ///
    /// # Errors
    /// Returns an error if a column is missing, if an operator does not accept a type or value, or if the rows cannot be read.
    pub fn fit(
        &self,
        definition: &Definition,
        rows: &DataFrame,
        mut progress: impl FnMut(Progress),
    ) -> Result<Workflow, Error> {
        definition.validate()?;
        let pieces = pieces(definition);
        let mut fitted: Vec<Option<Workflow>> = vec![None; pieces.len()];
        let mut scans = self.scans(pieces, rows, &mut fitted)?;
        let mut told = Progress {
            rows: 0,
            scan: 0,
            scans: scans.len(),
        };
        while let Some(mut scan) = (!scans.is_empty()).then(|| scans.remove(0)) {
            told.scan += 1;
            let before = told.rows;
            self.scan(rows, &mut scan, |rows| {
                told.rows = before + rows;
                progress(told);
            })?;
            let mut again = Vec::new();
            for (place, fitter) in scan.fitters {
                match fitter.finish()? {
                    Pass::Done(workflow) => fitted[place] = Some(workflow),
                    Pass::Again(next) => again.push((place, next)),
                }
            }
            if !again.is_empty() {
                told.scans += 1;
                scans.push(Scan {
                    fitters: again,
                    ..scan
                });
            }
        }
        let mut fitted: Vec<Workflow> = fitted.into_iter().flatten().collect();
        match (fitted.pop(), fitted.is_empty()) {
            (Some(only), true) => Ok(only),
            (last, _) => Ok(Workflow::concat(fitted.into_iter().chain(last))?),
        }
    }

    /// The first scans of the pieces. A piece that needs no rows is fitted at once, into its place of `fitted`.
    fn scans(
        &self,
        pieces: Vec<Definition>,
        rows: &DataFrame,
        fitted: &mut [Option<Workflow>],
    ) -> Result<Vec<Scan>, Error> {
        let mut scans: Vec<Scan> = Vec::new();
        for (place, piece) in pieces.into_iter().enumerate() {
            let read = columns_read(&piece, rows);
            let columns: BTreeSet<String> = read.iter().map(|&name| name.to_owned()).collect();
            let selected = self.select(rows, &read)?;
            let mut fields = selected.schema().fields().iter();
            let reading = reading(&piece, fields.any(|field| is_list(field.data_type())));
            let mut fitter = Fitter::new(piece)?;
            if !fitter.needs_rows() {
                // The fit depends only on the types of the columns.
                fitter.update(&RecordBatch::new_empty(selected.schema().inner().clone()))?;
                fitted[place] = match fitter.finish()? {
                    Pass::Done(workflow) => Some(workflow),
                    Pass::Again(_) => None,
                };
                continue;
            }
            match scans
                .iter_mut()
                .find(|scan| scan.columns == columns && scan.reading == reading)
            {
                Some(scan) => scan.fitters.push((place, fitter)),
                None => scans.push(Scan {
                    columns,
                    reading,
                    fitters: vec![(place, fitter)],
                }),
            }
        }
        Ok(scans)
    }

    /// Reads the rows once for all fitters of a scan.
    fn scan(
        &self,
        rows: &DataFrame,
        scan: &mut Scan,
        progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let columns: Vec<&str> = scan.columns.iter().map(String::as_str).collect();
        let rows = self.select(rows, &columns)?;
        match scan.reading {
            Reading::Grouped => {
                let grouped = grouped(&rows, &columns).map_err(|error| self.error(error))?;
                self.run(grouped, progress, |batch| {
                    let counts = &batch.columns()[columns.len()];
                    let counts = counts.as_primitive::<Int64Type>().values();
                    let counts: Vec<u64> = counts.iter().map(|&count| count as u64).collect();
                    for (_, fitter) in &mut scan.fitters {
                        fitter.update_counted(&batch, &counts)?;
                    }
                    Ok::<(), Error>(())
                })
            }
            Reading::Streamed => self.run(self.ordered(&rows), progress, |batch| {
                for (_, fitter) in &mut scan.fitters {
                    fitter.update(&batch)?;
                }
                Ok::<(), Error>(())
            }),
            Reading::Whole => {
                let all = self.whole(&rows, progress)?;
                for (_, fitter) in &mut scan.fitters {
                    fitter.update(&all)?;
                }
                Ok(())
            }
        }
    }

    /// All rows of a plan in order, within the memory limit.
    pub(crate) fn whole(
        &self,
        rows: &DataFrame,
        progress: impl FnMut(u64),
    ) -> Result<RecordBatch, Error> {
        let environment = self.in_order.runtime_env();
        let name = format!("all rows of {}", names(rows).join(", "));
        let reservation = MemoryConsumer::new(name).register(&environment.memory_pool);
        let rows = self.ordered(rows);
        let schema = rows.schema().inner().clone();
        let mut batches = Vec::new();
        self.run(rows, progress, |batch| {
            // The batches and their concatenation exist at the same time.
            reservation
                .try_grow(2 * batch.get_array_memory_size())
                .map_err(|error| self.error(error))?;
            batches.push(batch);
            Ok::<_, Error>(())
        })?;
        concat_batches(&schema, &batches).map_err(|error| self.error(error))
    }
}

/// The parts of a definition that are fitted independently: its chains, unless an operator looks at the whole table.
fn pieces(definition: &Definition) -> Vec<Definition> {
    if !definition.before.is_empty() || !definition.table.is_empty() {
        return vec![definition.clone()];
    }
    let chains = definition.chains.iter().cloned();
    chains.map(|chain| Definition::new(vec![chain])).collect()
}

/// The columns that the fit of a definition reads.
fn columns_read<'a>(definition: &'a Definition, rows: &'a DataFrame) -> Vec<&'a str> {
    let first = definition.before.first().unwrap_or(definition);
    if first.table.is_empty() {
        return definition.fit_input_names();
    }
    // Dropna may look at any column.
    names(rows)
}

fn is_list(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
    )
}

/// Equal rows once, with their number. They are sorted by value, so that sums are always computed in the same order.
fn grouped(rows: &DataFrame, columns: &[&str]) -> datafusion::error::Result<DataFrame> {
    let columns: Vec<Expr> = columns.iter().map(|column| ident(*column)).collect();
    rows.clone()
        .aggregate(columns.clone(), vec![count(lit(1)).alias(ROWS)])?
        .sort_by(columns)
}

/// Whether the result for a row is independent of all other rows.
pub(crate) fn row_by_row(definition: &Definition) -> bool {
    definition.stages().all(|stage| {
        let mut operators = stage.chains.iter().flat_map(|chain| &chain.operators);
        let mut tables = stage.table.iter();
        operators.all(Operator::of_row_alone)
            && tables.all(|operator| !matches!(operator, TableOperator::Groupby { .. }))
    })
}

/// How rows must be read for a definition. It depends on whether its operators use other rows.
fn reading(definition: &Definition, nested: bool) -> Reading {
    if !row_by_row(definition) {
        return Reading::Whole;
    }
    let chains = definition.stages().flat_map(|stage| &stage.chains);
    let mut operators = chains.flat_map(|chain| &chain.operators);
    let folds = operators.any(|operator| operator.folds().is_some());
    let tables = definition.stages().any(|stage| !stage.table.is_empty());
    if nested || tables || folds || !definition.before.is_empty() {
        return Reading::Streamed;
    }
    Reading::Grouped
}
