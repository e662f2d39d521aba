//! Operators over arrow columns: the offline side, with the programs that serve.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;

use crate::column::{Column, DType, SliceMut};
use crate::compile;
use crate::definition::{Chain, Operator};
use crate::error::Error;
use crate::folds::BatchFolds;
use crate::ingest::{Ingested, arrow_unit, batch_of, convert, fold_column, ingest};
use crate::operators::Fitted;
use crate::program::{self, Expression, Scratch};
use crate::variable::{SmallInt, Variable};

/// Applies a chain's operators before `until`; with `folds`, as for the rows that were fitted on.
pub(crate) fn apply_chain(
    chain: &Chain,
    fitted: &[Fitted],
    until: usize,
    batch: &RecordBatch,
    folds: Option<&BatchFolds>,
) -> Result<Vec<Ingested>, Error> {
    let mut columns = chain
        .columns
        .iter()
        .map(|name| ingest(batch, name))
        .collect::<Result<Vec<_>, _>>()?;
    for (operator, fitted) in chain.operators.iter().zip(fitted).take(until) {
        columns = apply_operator(operator, fitted, columns, batch, folds)?;
    }
    Ok(columns)
}

fn apply_operator(
    operator: &Operator,
    fitted: &Fitted,
    mut columns: Vec<Ingested>,
    batch: &RecordBatch,
    folds: Option<&BatchFolds>,
) -> Result<Vec<Ingested>, Error> {
    let variables: Vec<Variable> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| column.variable(index))
        .collect();
    if let Some(columns) = operator.transform().apply_to_lists(&columns)? {
        return Ok(columns);
    }
    let read = operator.transform().reads().iter();
    let mut side_columns = read
        .map(|name| ingest(batch, name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut in_fold = false;
    if let Some(draw) = operator.folds()
        && let Some(folds) = folds.and_then(|folds| folds.of(draw))
    {
        side_columns.push(fold_column(folds)?);
        in_fold = true;
    }
    let first_side = columns.len();
    let side_variable = |name: &str| {
        let mut columns = (first_side..).zip(&side_columns);
        columns
            .find(|(_, column)| column.name == name)
            .map(|(index, column)| column.variable(index))
            .ok_or_else(|| Error::MissingColumn {
                column: name.to_owned(),
                given: "none".to_owned(),
            })
    };
    let fold = side_columns.last().filter(|_| in_fold);
    let fold = fold.map(|column| column.variable(first_side + side_columns.len() - 1));
    let outputs = compile::compile(operator, fitted, &variables, &side_variable, fold.as_ref())?;
    columns.extend(side_columns);
    let strings: Vec<Vec<&[u8]>> = columns.iter().map(Ingested::strings).collect();
    let booleans: Vec<Vec<bool>> = columns.iter().map(Ingested::booleans).collect();
    let inputs: Vec<Column<'_>> = columns
        .iter()
        .zip(&strings)
        .zip(&booleans)
        .map(|((column, strings), booleans)| column.column(strings, booleans))
        .collect();
    let mut scratch = Scratch::default();
    outputs
        .into_iter()
        .map(|variable| {
            if let Expression::Input(index) = variable.expression
                && let Some(column) = columns.get(index)
            {
                return Ok(Ingested {
                    name: variable.name,
                    ..column.clone()
                });
            }
            let shape = Shape::of(&variable, &columns)?;
            let elements = evaluate(&variable, shape.elements, &inputs, &mut scratch);
            let elements = match variable.small {
                Some(SmallInt::Int8) => convert(&variable.name, &elements, &DataType::Int8)?,
                Some(SmallInt::Int16) => convert(&variable.name, &elements, &DataType::Int16)?,
                None => elements,
            };
            let elements = match variable.datetime.map(arrow_unit) {
                Some(unit) => convert(&variable.name, &elements, &DataType::Timestamp(unit, None))?,
                None => elements,
            };
            let array = match shape.lists {
                Some((offsets, nulls)) => Arc::new(ListArray::new(
                    Arc::new(Field::new("item", elements.data_type().clone(), true)),
                    offsets,
                    elements,
                    nulls,
                )),
                None => elements,
            };
            Ingested::new(&variable.name, &array)
        })
        .collect()
}

/// How many elements an output column has, and the lists that they form.
struct Shape {
    elements: usize,
    lists: Option<(OffsetBuffer<i32>, Option<NullBuffer>)>,
}

impl Shape {
    /// The shape of the columns that `variable` reads: the columns of a chain may hold lists of different lengths.
    ///
    /// # Errors
    /// It reads several columns, and their lists differ, or some hold lists and others do not.
    fn of(variable: &Variable, columns: &[Ingested]) -> Result<Self, Error> {
        let mut read = program::inputs(&variable.expression)
            .into_iter()
            .filter_map(|index| columns.get(index));
        let Some(first) = read.next() else {
            return Ok(Self {
                elements: 0,
                lists: None,
            });
        };
        let offsets = |column: &Ingested| column.lists.as_ref().map(|(offsets, _)| offsets.clone());
        let mut nulls = (first.lists.as_ref()).and_then(|(_, nulls)| nulls.clone());
        for other in read {
            if offsets(other) != offsets(first) || other.elements.len() != first.elements.len() {
                return Err(Error::Value {
                    column: format!("{}, {}", first.name, other.name),
                    value: "columns whose rows hold different numbers of values".to_owned(),
                    accepted: "columns with one value a row, or lists of equal lengths".to_owned(),
                });
            }
            let others = other.lists.as_ref().and_then(|(_, nulls)| nulls.as_ref());
            nulls = NullBuffer::union(nulls.as_ref(), others);
        }
        let lists = offsets(first).filter(|_| variable.list);
        Ok(Self {
            elements: first.elements.len(),
            lists: lists.map(|offsets| (offsets, nulls)),
        })
    }
}

fn evaluate(
    variable: &Variable,
    rows: usize,
    inputs: &[Column<'_>],
    scratch: &mut Scratch,
) -> ArrayRef {
    let expression = &variable.expression;
    let nulls = program::mask(expression)
        .and_then(|index| inputs.get(index)?.valid)
        .map(|valid| NullBuffer::new(BooleanBuffer::from(valid)));
    macro_rules! run {
        ($slice:path, $zero:expr, $array:ty) => {{
            let mut values = vec![$zero; rows];
            program::evaluate(expression, inputs, &mut $slice(&mut values), scratch);
            Arc::new(<$array>::new(values.into(), nulls))
        }};
    }
    match variable.dtype {
        DType::Int32 => run!(SliceMut::Int32, 0, Int32Array),
        DType::Int64 => run!(SliceMut::Int64, 0, Int64Array),
        DType::Float32 => run!(SliceMut::Float32, 0.0, Float32Array),
        DType::Float64 => run!(SliceMut::Float64, 0.0, Float64Array),
        // No kernel gives strings.
        DType::Bool | DType::String => run!(SliceMut::Bool, false, BooleanArray),
    }
}

/// Applies all chains: one output column each, in order.
pub(crate) fn apply(
    chains: &[Chain],
    fitted: &[Vec<Fitted>],
    batch: &RecordBatch,
    folds: Option<&BatchFolds>,
) -> Result<RecordBatch, Error> {
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (chain, fitted) in chains.iter().zip(fitted) {
        for column in apply_chain(chain, fitted, usize::MAX, batch, folds)? {
            fields.push(Field::new(
                &column.name,
                column.array.data_type().clone(),
                true,
            ));
            arrays.push(column.array);
        }
    }
    batch_of(fields, arrays, batch.num_rows())
}
