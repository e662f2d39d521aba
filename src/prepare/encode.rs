//! Fitting and applying a workflow, with outputs of exactly the types that the tensors have.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use saker_pipeline::{Feature, FeatureKind};
use saker_workflow::{Definition, Function, Operator, Workflow};

use crate::table;

pub(super) fn fit(definition: &Definition, rows: &RecordBatch) -> Result<Workflow> {
    if rows.num_rows() == 0 {
        bail!(
            "there is no training interaction; the data is empty, or its ids match no user and item"
        );
    }
    Ok(Workflow::fit(
        definition.clone(),
        std::slice::from_ref(rows),
    )?)
}

/// Saves in place of what an earlier fit left.
pub(super) fn save(workflow: &Workflow, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(workflow.save(folder)?)
}

/// The features of these rows: Int32 codes and Float32 numbers, in the order of the definition.
pub(super) fn apply(
    workflow: &Workflow,
    features: &[Feature],
    rows: &RecordBatch,
) -> Result<RecordBatch> {
    let encoded = workflow.apply(rows)?;
    let columns = features.iter().map(|feature| -> Result<(&str, ArrayRef)> {
        let column = encoded
            .column_by_name(&feature.name)
            .with_context(|| format!("the workflow gives no column {}", feature.name))?;
        let accepted = match feature.kind() {
            FeatureKind::Categorical => DataType::Int32,
            FeatureKind::Continuous => DataType::Float32,
        };
        let column = cast(column, &accepted).with_context(|| {
            format!(
                "feature {} is {} and not {accepted}",
                feature.name,
                column.data_type()
            )
        })?;
        Ok((&feature.name, column))
    });
    table::table(columns.collect::<Result<_>>()?)
}

/// Codes of a categorical feature; `None` of a continuous one.
pub(super) fn cardinality(workflow: &Workflow, feature: &Feature) -> Result<Option<usize>> {
    if feature.kind() == FeatureKind::Continuous {
        return Ok(None);
    }
    let counted = workflow
        .cardinality(&feature.name)
        .or_else(|| match feature.operators.last() {
            Some(Operator::Bucketize { boundaries }) => Some(boundaries.len() + 1),
            Some(Operator::LambdaOp(Function::Hour)) => Some(24),
            Some(Operator::LambdaOp(Function::Weekday)) => Some(7),
            _ => None,
        });
    let counted = counted.with_context(|| {
        format!(
            "feature {} is a number of unknown range; end its operators in Categorify or Normalize",
            feature.name
        )
    })?;
    Ok(Some(counted))
}
