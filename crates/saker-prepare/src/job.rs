//! One run of `saker prepare`, step by step.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::table;
use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, RecordBatch};
use saker_bulk::plan::SessionContext;
use saker_bulk::{Engine, Progress, Settings};
use saker_pipeline::{Column, Data, Entity, Group, Names, Pipeline};
use saker_serving::defaults::Defaults;
use saker_serving::files::remove;
use saker_serving::layout::{FeatureSchema, Layout, Schema};
use saker_serving::progress::Step;
use saker_workflow::Workflow;

use crate::clean::{self, Cleaner, Met};
use crate::cluster::{self, Watch};
use crate::columns::{self, Entities};
use crate::interactions::{self, Events};
use crate::serving_log::{self, Served};
use crate::source::Source;
use crate::{
    INTERACTIONS, ITEMS, Summary, USERS, Workflows, again, encode, files, read_json, rows,
    write_json,
};

/// The inputs of every step.
pub(crate) struct Job<'a> {
    pipeline: &'a Pipeline,
    data: &'a Data,
    layout: &'a Layout,
    engine: Engine,
    /// Whether the run uses the workflows, names and defaults of an earlier run.
    kept: bool,
}

/// The users and the items, as columns and as the written tables.
struct Tables {
    users: Entities,
    user_rows: RecordBatch,
    items: Entities,
    item_rows: RecordBatch,
    defaults: Defaults,
}

/// The workflow of each group.
struct Fits {
    user: Workflow,
    context: Workflow,
    item: Workflow,
}

impl<'a> Job<'a> {
    pub(crate) fn new(
        pipeline: &'a Pipeline,
        data: &'a Data,
        layout: &'a Layout,
        settings: Settings,
        workflows: Workflows,
        cluster: Option<SessionContext>,
    ) -> Result<Self> {
        let spill = settings.spill.clone();
        let spill = spill.unwrap_or_else(|| layout.root().join("spill"));
        let engine = Engine::new(Settings {
            spill: Some(spill),
            ..settings
        })?;
        Ok(Self {
            pipeline,
            data,
            layout,
            engine: match cluster {
                Some(session) => engine.on_cluster(session),
                None => engine,
            },
            kept: workflows == Workflows::Kept,
        })
    }

    /// Runs all steps in order.
    pub(crate) fn run(self) -> Result<Summary> {
        let (pipeline, layout) = (self.pipeline, self.layout);
        let mut names = match self.kept {
            true => read_json(&layout.names())?,
            false => Names::new(),
        };
        let (mut users, mut items) = self.entities(&mut names)?;

        if !self.kept {
            // The tables are replaced from here on. Remove the schema first, so that a failed run leaves none beside them.
            remove(&layout.schema())?;
            remove(&layout.schema_without_tables())?;
        }
        let step = Step::start("sort, split and write the interactions");
        let (events, met) = self
            .interactions(&step, &users, &items)
            .with_context(|| format!("interactions, {}", self.data.interactions.path))?;
        events.derive(&pipeline.item, &events.of_items, &mut items);
        events.derive(&pipeline.user, &events.of_users, &mut users);
        let summary = Summary {
            users: users.ids.len(),
            items: items.ids.len(),
            events: events.counts,
            dropped: met.dropped() as usize,
            unrated: met.unrated.load(Ordering::Relaxed) as usize,
        };
        step.done(&format!("{} interactions", events.len()));
        met.report();
        if events.counts[0] == 0 {
            bail!(
                "there is no training interaction; the data is empty, or its ids match no user and item"
            );
        }

        let tables = self.tables(users, items, &events)?;
        write_json(&layout.names(), &names)?;
        write_json(&layout.defaults(), &tables.defaults)?;
        let fits = Fits {
            user: self.fit(Group::User, &events)?,
            context: self.fit(Group::Context, &events)?,
            item: self.fit(Group::Item, &events)?,
        };
        let schema = self.encode(&tables, &fits)?;
        // Spilled rows have been removed, so the folder is empty.
        drop(self.engine);
        let _ = fs::remove_dir_all(layout.root().join("spill"));
        // The schema comes last, because training starts from it. Embedding tables are indexed by encoded id, and a run that keeps the workflows
        // adds no code.
        match self.kept {
            true => write_json(&layout.schema(), &schema)?,
            false => write_json(&layout.schema_without_tables(), &schema)?,
        }
        Ok(summary)
    }

    /// Reads the users and the items.
    fn entities(&self, names: &mut Names) -> Result<(Entities, Entities)> {
        let (pipeline, data) = (self.pipeline, self.data);
        let step = Step::start("read users and items");
        let mut read = |entity: &Entity, table: &saker_pipeline::Table, key| {
            let id = table.id.as_deref().unwrap_or(&entity.id);
            let files = files::files(pipeline, data.format, key, &table.path)?;
            let source = Source::read(data, &files, &columns::read_columns(entity, id))?;
            Entities::read(entity, id, &source, names)
        };
        let users = read(&pipeline.user, &data.users, USERS)
            .with_context(|| format!("users, {}", data.users.path))?;
        let items = read(&pipeline.item, &data.items, ITEMS)
            .with_context(|| format!("items, {}", data.items.path))?;
        step.done(&format!(
            "{} users, {} items",
            users.ids.len(),
            items.ids.len()
        ));
        Ok((users, items))
    }

    /// Watches the engine's cluster, if it has one.
    fn watch(&self) -> Option<Watch> {
        self.engine.has_cluster().then(Watch::start)
    }

    /// Writes `data/interactions.parquet`.
    fn interactions(
        &self,
        step: &Step,
        users: &Entities,
        items: &Entities,
    ) -> Result<(Events, Arc<Met>)> {
        let (pipeline, data, layout) = (self.pipeline, self.data, self.layout);
        // A full training uses the source alone; a fine-tuning adds the events that the updater has stored since.
        let live = match self.kept {
            true => serving_log::events(pipeline, layout, &data.interactions)?,
            false => Vec::new(),
        };
        let path = &data.interactions.path;
        let files = files::files(pipeline, data.format, INTERACTIONS, path)?;
        let engine = &self.engine;
        let cleaner = Cleaner::new(pipeline, &data.interactions, users, items);
        let sorted = match engine.has_cluster() {
            true => cluster::sorted(engine, data, &files, cleaner, pipeline.split.parts())?,
            false => clean::sorted(engine, data, files, &live, cleaner)?,
        };
        let met = Arc::clone(&sorted.met);
        let mut watch = self.watch();
        let read = |rows: u64| {
            if let Some(watch) = &mut watch {
                watch.see(rows);
            }
            step.say(format!("sort the interactions, {rows} read"));
        };
        let events = interactions::write(
            pipeline,
            &self.engine,
            layout,
            sorted,
            (users, items),
            |column| self.served(column),
            read,
        )?;
        Ok((events, met))
    }

    /// The values of a column that serving wrote, if the run continues an earlier one.
    fn served(&self, column: &Column) -> Result<Served> {
        if !self.kept {
            return Ok(Served::default());
        }
        let served = Served::read(self.pipeline, self.layout, column)?;
        if served.len() > 0 {
            tracing::info!(
                "{} values of {} as serving wrote them",
                served.len(),
                column.name
            );
        }
        Ok(served)
    }

    /// Fills what is empty, and writes `data/users.parquet` and `data/items.parquet`.
    fn tables(&self, users: Entities, items: Entities, events: &Events) -> Result<Tables> {
        let (pipeline, layout) = (self.pipeline, self.layout);
        let defaults = match self.kept {
            true => read_json(&layout.defaults())?,
            false => Defaults {
                user: users.defaults(&pipeline.user, &events.of_users)?,
                item: items.defaults(&pipeline.item, &events.of_items)?,
            },
        };
        let user_rows = users.table(&pipeline.user, &defaults.user)?;
        let item_rows = items.table(&pipeline.item, &defaults.item)?;
        table::write(&layout.data("users"), &user_rows)?;
        table::write(&layout.data("items"), &item_rows)?;
        Ok(Tables {
            users,
            user_rows,
            items,
            item_rows,
            defaults,
        })
    }

    /// The workflow of a group: fitted on the training events, or that of an earlier run.
    fn fit(&self, group: Group, events: &Events) -> Result<Workflow> {
        let folder = self.layout.workflow(group.as_str());
        if self.kept {
            return Workflow::load(&folder).with_context(again);
        }
        let step = Step::start(format!("fit the {} features", group.as_str()));
        let mut watch = self.watch();
        let progress = |at: Progress| {
            if let Some(watch) = &mut watch {
                watch.see(at.rows);
            }
            step.say(format!(
                "fit the {} features, scan {} of {}, {} rows",
                group.as_str(),
                at.scan,
                at.scans,
                at.rows
            ));
        };
        let workflow = encode::fit(self.pipeline, &self.engine, self.layout, group, progress)?;
        encode::save(&workflow, &folder)?;
        step.done(&format!("{} training interactions", events.counts[0]));
        Ok(workflow)
    }

    /// Writes `features/`. Returns the schema.
    fn encode(&self, tables: &Tables, fits: &Fits) -> Result<Schema> {
        let (pipeline, layout) = (self.pipeline, self.layout);
        let step = Step::start("encode the features");
        let of = |workflow: &Workflow, group: Group, rows: &RecordBatch| {
            encode::apply(workflow, pipeline.features(group), rows)
        };
        let user_features = of(&fits.user, Group::User, &tables.user_rows)?;
        let item_features = of(&fits.item, Group::Item, &tables.item_rows)?;
        table::write(&layout.features("users"), &user_features)?;
        table::write(&layout.features("items"), &item_features)?;
        let encoder = rows::Encoder::new(
            pipeline,
            &self.data.interactions,
            (&tables.users, &tables.user_rows),
            &tables.items,
            &fits.user,
            fits.context.clone(),
        )?;
        self.engine.write(
            &self.engine.read(&[layout.data("interactions")])?,
            &layout.features("interactions"),
            |at| step.say(format!("encode the features, {} interactions", at.rows)),
            move |batch| encoder.encode(batch),
        )?;
        let schema = |group: Group, workflow: &Workflow| -> Result<Vec<FeatureSchema>> {
            let cold = cold_row(pipeline, group, &tables.defaults)?;
            schema_of(pipeline, group, workflow, &cold)
        };
        let embeddings = pipeline.item.embeddings.iter();
        let schema = Schema {
            user_id: pipeline.user.id.clone(),
            item_id: pipeline.item.id.clone(),
            user: schema(Group::User, &fits.user)?,
            context: schema(Group::Context, &fits.context)?,
            item: schema(Group::Item, &fits.item)?,
            embeddings: embeddings
                .map(|table| (table.name.clone(), table.dim))
                .collect(),
        };
        step.done(&format!(
            "{} features",
            schema.user.len() + schema.context.len() + schema.item.len()
        ));
        Ok(schema)
    }
}

/// The row of a cold start: id -1 and the defaults.
fn cold_row(pipeline: &Pipeline, group: Group, defaults: &Defaults) -> Result<RecordBatch> {
    let (entity, values) = match group {
        Group::User => (&pipeline.user, &defaults.user),
        Group::Item => (&pipeline.item, &defaults.item),
        Group::Context => {
            let columns = pipeline.context.columns.iter().map(|column| {
                let number = match column.default {
                    saker_pipeline::Default::Number(number) => number,
                    saker_pipeline::Default::Word(_) => 0.0,
                };
                (column.name.as_str(), constant(column, number))
            });
            return table::table(columns.collect());
        }
    };
    let mut columns = vec![(entity.id.as_str(), table::int32(vec![-1]))];
    columns.extend(entity.stored().map(|column| {
        (
            column.name.as_str(),
            constant(column, values.get(&column.name).copied().unwrap_or(-1.0)),
        )
    }));
    table::table(columns)
}

fn constant(column: &saker_pipeline::Column, number: f64) -> ArrayRef {
    match column.kind {
        saker_pipeline::ColumnType::Float32 => table::float32(vec![number as f32]),
        _ => table::int32(vec![number as i32]),
    }
}

fn schema_of(
    pipeline: &Pipeline,
    group: Group,
    workflow: &Workflow,
    cold_row: &RecordBatch,
) -> Result<Vec<FeatureSchema>> {
    let features = pipeline.features(group);
    let cold = encode::apply(workflow, features, cold_row)?;
    let schema = |feature: &saker_pipeline::Feature| -> Result<FeatureSchema> {
        let cardinality = encode::cardinality(workflow, feature)?;
        let cold_start = match cardinality {
            // For training, an absent item is padding, whose code is never trained.
            Some(_) => table::int32s(&cold, &feature.name)?[0] as f32,
            None => table::float32s(&cold, &feature.name)?[0],
        };
        Ok(FeatureSchema {
            name: feature.name.clone(),
            cardinality,
            embedding_dim: feature.embedding_dim,
            cold_start: if cold_start.is_finite() {
                cold_start
            } else {
                0.0
            },
        })
    };
    features.iter().map(schema).collect()
}
