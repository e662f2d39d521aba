//! From operators and their fitted state to programs, with every type checked.

use crate::definition::{Chain, Operator};
use crate::error::Error;
use crate::operators::{Context, Fitted};
use crate::variable::Variable;

/// Compiles a chain up to the operator before `until`.
pub(crate) fn chain(
    chain: &Chain,
    fitted: &[Fitted],
    until: usize,
    input: &dyn Fn(&str) -> Result<Variable, Error>,
) -> Result<Vec<Variable>, Error> {
    let mut columns = chain
        .columns
        .iter()
        .map(|name| input(name))
        .collect::<Result<Vec<_>, _>>()?;
    for (operator, fitted) in chain.operators.iter().zip(fitted).take(until) {
        columns = compile(operator, fitted, &columns, input, None)?;
    }
    Ok(columns)
}

/// Compiles one operator over its columns. `input` finds the workflow's input columns, for operators that read some besides theirs;
/// `fold` is the column of the rows' folds, when rows are encoded as the ones that were fitted on.
pub(crate) fn compile(
    operator: &Operator,
    fitted: &Fitted,
    columns: &[Variable],
    input: &dyn Fn(&str) -> Result<Variable, Error>,
    fold: Option<&Variable>,
) -> Result<Vec<Variable>, Error> {
    let context = Context {
        operator: operator.name(),
        fitted,
        columns,
        input,
        fold,
    };
    let mut outputs = operator.transform().compile(columns, &context)?;
    // What is known of a column holds for what is made of it.
    if outputs.len() == columns.len() {
        for (output, column) in outputs.iter_mut().zip(columns) {
            output.tags.clone_from(&column.tags);
            output.properties.clone_from(&column.properties);
        }
    }
    let (tags, properties) = operator.transform().metadata();
    for output in &mut outputs {
        let new = tags.iter().filter(|tag| !output.tags.contains(tag));
        let new: Vec<String> = new.cloned().collect();
        output.tags.extend(new);
        output.properties.extend(properties.clone());
    }
    Ok(outputs)
}
