//! Fits and applies workflows. Outputs have exactly the types of the tensors.

use std::fs;
use std::path::Path;

use crate::table;
use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use saker_bulk::plan::{JoinType, ScalarValue, ident, lit, when};
use saker_bulk::{DataFrame, Engine, Progress};
use saker_pipeline::{Default as Fallback, Entity, Feature, FeatureKind, Group, Pipeline};
use saker_serving::layout::Layout;
use saker_workflow::{Definition, Workflow};

use crate::split::PARTS;

/// Fits the features of a group on the training interactions, one row each, as the models are trained on them. Values of a frequent user
/// are therefore frequent.
pub(crate) fn fit(
    pipeline: &Pipeline,
    engine: &Engine,
    layout: &Layout,
    group: Group,
    mut progress: impl FnMut(Progress),
) -> Result<Workflow> {
    let definition = pipeline.workflow(group);
    let read = |table: &str| engine.read_shared(&[layout.data(table)]);
    let training = read("interactions")?.filter(ident("split").eq(lit(PARTS[0])))?;
    let rows = match group {
        Group::Context => training,
        Group::User => of_entity(&pipeline.user, training, read("users")?, &definition)?,
        Group::Item => of_entity(&pipeline.item, training, read("items")?, &definition)?,
    };
    engine
        .fit(&definition, &rows, &mut progress)
        .with_context(|| format!("fitting the {} features", group.as_str()))
}

/// The input columns of a group's features: columns that change with time are in the interactions, the others in the entity's table.
fn of_entity(
    entity: &Entity,
    training: DataFrame,
    table: DataFrame,
    definition: &Definition,
) -> Result<DataFrame> {
    /// The id on the other side of the join.
    const JOINED: &str = "joined id";
    let read = definition.fit_input_names();
    let (mut of_event, mut of_table) = (vec![ident(&entity.id)], Vec::new());
    for column in entity.columns.iter() {
        if !read.contains(&column.name.as_str()) {
            continue;
        }
        let name = column.name.as_str();
        match column.default {
            // Before the first event there is no value. It is encoded as out-of-vocabulary, as serving's default is.
            Fallback::Number(default) if column.at_event() => {
                let none = ident(name).eq(lit(default as i32));
                let mut none = when(none, lit(ScalarValue::Int32(None)));
                of_event.push(none.otherwise(ident(name))?.alias(name));
            }
            _ => of_table.push(ident(name)),
        }
    }
    let training = training.select(of_event)?;
    if of_table.is_empty() {
        return Ok(training);
    }
    of_table.push(ident(&entity.id).alias(JOINED));
    let table = table.select(of_table)?;
    let same = ident(&entity.id).eq(ident(JOINED));
    // The left side is in memory; the right side's rows are read in their order.
    Ok(table.join_on(training, JoinType::Inner, [same])?)
}

/// Saves a workflow, and replaces that of an earlier fit.
pub(crate) fn save(workflow: &Workflow, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(workflow.save(folder)?)
}

/// The features of these rows: Int32 codes and Float32 numbers, in the order of the definition.
pub(crate) fn apply(
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
        // A value out of range is an error, never a null.
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let column = cast_with_options(column, &accepted, &strict).with_context(|| {
            format!(
                "feature {} is {}, and its values must fit {accepted}",
                feature.name,
                column.data_type()
            )
        })?;
        Ok((&feature.name, column))
    });
    table::table(columns.collect::<Result<_>>()?)
}

/// Number of codes of a categorical feature; `None` for a continuous one.
pub(crate) fn cardinality(workflow: &Workflow, feature: &Feature) -> Result<Option<usize>> {
    if feature.kind() == FeatureKind::Continuous {
        return Ok(None);
    }
    let counted = workflow.cardinality(&feature.name);
    let counted = counted.with_context(|| {
        format!(
            "feature {} is a number of unknown range; end its operators in Categorify or Normalize",
            feature.name
        )
    })?;
    Ok(Some(counted))
}
