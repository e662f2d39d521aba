//! Encodes interactions batch by batch.

use std::sync::Arc;

use crate::table;
use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use rustc_hash::FxHashMap;
use saker_bulk::BoxError;
use saker_pipeline::{Feature, Interactions, Pipeline};
use saker_workflow::Workflow;

use crate::clean::{RATING, TIME};
use crate::columns::Entities;
use crate::encode;

/// Turns rows of `data/interactions.parquet` into rows of `features/interactions.parquet`.
pub(crate) struct Encoder {
    user: Id,
    item: Id,
    label: Label,
    context: Workflow,
    context_features: Vec<Feature>,
    /// The user features whose columns change with time, their workflow, and the origin of each input column: the interaction (`None`) or
    /// the users' table.
    changing: Vec<Feature>,
    workflow: Workflow,
    columns: Vec<(String, Option<ArrayRef>)>,
}

/// Labels of ratings.
struct Label {
    positive_from: Option<f32>,
    weak_from: Option<f32>,
}

impl Label {
    /// 1 for a positive, 0.5 for a weak positive, 0 otherwise.
    fn of(&self, rating: f32) -> f32 {
        if self.positive_from.is_none_or(|least| rating >= least) {
            1.0
        } else if self.weak_from.is_some_and(|least| rating >= least) {
            0.5
        } else {
            0.0
        }
    }
}

/// An id column, and the row of each id in its table.
struct Id {
    column: String,
    rows: Arc<FxHashMap<i32, i32>>,
}

impl Id {
    fn rows(&self, batch: &RecordBatch) -> Result<Vec<i32>> {
        let ids = table::int32s(batch, &self.column)?.iter();
        ids.map(|id| {
            let row = self.rows.get(id).copied();
            row.with_context(|| format!("{} {id} is in no table", self.column))
        })
        .collect()
    }
}

impl Encoder {
    pub(crate) fn new(
        pipeline: &Pipeline,
        interactions: &Interactions,
        (users, user_table): (&Entities, &RecordBatch),
        items: &Entities,
        user_workflow: &Workflow,
        context_workflow: Workflow,
    ) -> Result<Self> {
        let changes = |name: &str| {
            let column = pipeline.user.column(name);
            column.is_some_and(|column| column.at_event())
        };
        let changing = pipeline.user.features.iter();
        let changing: Vec<Feature> = changing
            .filter(|feature| feature.columns().into_iter().any(changes))
            .cloned()
            .collect();
        let names: Vec<&str> = changing
            .iter()
            .map(|feature| feature.name.as_str())
            .collect();
        let workflow = user_workflow.only(&names)?;
        let columns = workflow.definition().input_names().into_iter();
        let columns = columns
            .map(|name| -> Result<_> {
                let of_table = || {
                    let column = user_table.column_by_name(name).cloned();
                    column.with_context(|| format!("users have no column {name}"))
                };
                let source = (!changes(name)).then(of_table).transpose()?;
                Ok((name.to_owned(), source))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            user: Id {
                column: pipeline.user.id.clone(),
                rows: Arc::clone(&users.row_of),
            },
            item: Id {
                column: pipeline.item.id.clone(),
                rows: Arc::clone(&items.row_of),
            },
            label: Label {
                positive_from: interactions.positive_from,
                weak_from: interactions.weak_from,
            },
            context: context_workflow,
            context_features: pipeline.context.features.clone(),
            changing,
            workflow,
            columns,
        })
    }

    pub(crate) fn encode(&self, batch: &RecordBatch) -> Result<RecordBatch, BoxError> {
        Ok(self.table(batch)?)
    }

    fn table(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let (users, items) = (self.user.rows(batch)?, self.item.rows(batch)?);
        let column = |name: &str| {
            let column = batch.column_by_name(name).cloned();
            column.with_context(|| format!("interactions have no column {name}"))
        };
        let ratings = table::float32s(batch, RATING)?;
        let context = encode::apply(&self.context, &self.context_features, batch)?;
        let changing = if self.changing.is_empty() {
            None
        } else {
            let rows = UInt32Array::from_iter_values(users.iter().map(|&row| row as u32));
            let inputs = self.columns.iter().map(|(name, source)| -> Result<_> {
                let values = match source {
                    None => column(name)?,
                    Some(values) => take(values, &rows, None)?,
                };
                Ok((name.as_str(), values))
            });
            let inputs = table::table(inputs.collect::<Result<_>>()?)?;
            Some(encode::apply(&self.workflow, &self.changing, &inputs)?)
        };

        let mut columns = vec![
            ("user_row", table::int32(users)),
            ("item_row", table::int32(items)),
            ("timestamp", column(TIME)?),
            ("rating", column(RATING)?),
            (
                "label",
                table::float32(
                    ratings
                        .iter()
                        .map(|&rating| self.label.of(rating))
                        .collect(),
                ),
            ),
            ("split", column("split")?),
        ];
        let encoded = [Some(&context), changing.as_ref()];
        let schemas = encoded.map(|table| table.map(|table| table.schema()));
        for (table, schema) in encoded.into_iter().zip(&schemas) {
            let (Some(table), Some(schema)) = (table, schema) else {
                continue;
            };
            let names = schema.fields().iter().map(|field| field.name().as_str());
            columns.extend(names.zip(table.columns().iter().cloned()));
        }
        table::table(columns)
    }
}
