//! Fitting on the rows of a plan.

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

/// The column of a grouped plan that counts equal rows; no column of a feature is called so.
const ROWS: &str = "rows of this kind";

/// How the rows reach the fit of a chain of operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reading {
    /// Equal rows once, with their number: DataFusion groups and counts them, in parallel and spilling. The plan holds nothing but
    /// DataFusion's own operators.
    Grouped,
    /// All rows in order, batch by batch: lists, which are not grouped; folds, which follow the rows' order; operators over the table.
    Streamed,
    /// All rows of the columns at once, within the bound of the memory: operators that look at other rows.
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
    /// Fits a definition on the rows of a plan: on all threads, in as many scans as there are different sets of columns, times
    /// the operators of a chain that need fitting.
    ///
    /// The result is that of [`Workflow::fit`] on the same rows in memory, whatever the plan's parts: counts are exact, sums are
    /// added up in the order of the grouped values, in twice the precision of f64.
    ///
    /// Rows of another session, such as Ballista's, are grouped where that session runs its plans.
    ///
    /// # Errors
    /// A column is missing, a type or value does not suit an operator, or the rows cannot be read.
    pub fn fit(
        &self,
        definition: &Definition,
        rows: &DataFrame,
        mut progress: impl FnMut(Progress),
    ) -> Result<Workflow, Error> {
        definition.validate()?;
        let rows_alone = definition.before.is_empty() && definition.table.is_empty();
        let pieces: Vec<Definition> = if rows_alone {
            let chains = definition.chains.iter().cloned();
            chains.map(|chain| Definition::new(vec![chain])).collect()
        } else {
            vec![definition.clone()]
        };
        let mut fitted: Vec<Option<Workflow>> = vec![None; pieces.len()];
        let mut scans: Vec<Scan> = Vec::new();
        for (place, piece) in pieces.into_iter().enumerate() {
            let first = piece.before.first().unwrap_or(&piece);
            let read = if first.table.is_empty() {
                piece.fit_input_names()
            } else {
                // Dropna may look at any column.
                names(rows)
            };
            let columns: BTreeSet<String> = read.iter().map(|&name| name.to_owned()).collect();
            let selected = self.select(rows, &read)?;
            let nested = selected.schema().fields().iter().any(|field| {
                matches!(
                    field.data_type(),
                    DataType::List(_)
                        | DataType::LargeList(_)
                        | DataType::FixedSizeList(..)
                        | DataType::ListView(_)
                        | DataType::LargeListView(_)
                )
            });
            let reading = reading(&piece, nested);
            let mut fitter = Fitter::new(piece)?;
            if !fitter.needs_rows() {
                // The types of the columns are all there is to learn.
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

    /// One pass over the rows.
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

    /// All rows of a plan in order, within the bound of the memory.
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
            // Once as batches, once put together.
            reservation
                .try_grow(2 * batch.get_array_memory_size())
                .map_err(|error| self.error(error))?;
            batches.push(batch);
            Ok::<_, Error>(())
        })?;
        concat_batches(&schema, &batches).map_err(|error| self.error(error))
    }
}

/// Equal rows once, with their number, in the order of their values: sums are then added up in one order.
fn grouped(rows: &DataFrame, columns: &[&str]) -> datafusion::error::Result<DataFrame> {
    let columns: Vec<Expr> = columns.iter().map(|column| ident(*column)).collect();
    rows.clone()
        .aggregate(columns.clone(), vec![count(lit(1)).alias(ROWS)])?
        .sort_by(columns)
}

/// Whether a definition gives a row the same whatever rows are around it.
pub(crate) fn row_by_row(definition: &Definition) -> bool {
    definition.stages().all(|stage| {
        let mut operators = stage.chains.iter().flat_map(|chain| &chain.operators);
        let mut tables = stage.table.iter();
        operators.all(Operator::of_row_alone)
            && tables.all(|operator| !matches!(operator, TableOperator::Groupby { .. }))
    })
}

/// How rows must be read for a definition: by what its operators look at beside the row itself.
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
