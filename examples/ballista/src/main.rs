//! Fits the workflows of a pipeline definition twice, with the rows grouped and counted by a Ballista cluster and on this machine,
//! and compares the saved files byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballista::prelude::SessionContextExt;
use clap::Parser;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use saker_bulk::plan::{JoinType, ident, lit};
use saker_bulk::{DataFrame, Engine, Progress, Settings};
use saker_pipeline::{Group, Pipeline};
use saker_workflow::{Definition, Workflow};

/// Fit workflows on a Ballista cluster and on this machine, and compare what is saved
#[derive(Debug, Parser)]
struct Arguments {
    /// Scheduler of the cluster
    #[arg(long, value_name = "URL", default_value = "df://127.0.0.1:50050")]
    scheduler: String,
    /// Pipeline definition with the workflows to fit
    #[arg(long, value_name = "FILE")]
    pipeline: PathBuf,
    /// Table of users, at the same path on every executor
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// Table of items, likewise
    #[arg(long, value_name = "FILE")]
    items: PathBuf,
    /// Fit on events before this moment, in seconds since 1970
    #[arg(long, value_name = "SECONDS", default_value_t = i32::MAX)]
    before: i32,
    /// Folder for both saved workflows
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Tables of events
    #[arg(required = true, value_name = "EVENTS")]
    events: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let pipeline = Pipeline::load(&arguments.pipeline)?;
    let engine = Engine::new(Settings::default())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let cluster = runtime
        .block_on(SessionContext::remote(&arguments.scheduler))
        .with_context(|| format!("connecting to the scheduler {}", arguments.scheduler))?;
    let on_cluster = |files: &[PathBuf]| {
        let paths = files.iter().map(|file| absolute(file));
        let paths = paths.collect::<Result<Vec<String>>>()?;
        let read = cluster.read_parquet(paths, ParquetReadOptions::default());
        Ok(runtime.block_on(read)?)
    };
    let on_this_machine = |files: &[PathBuf]| Ok(engine.read(files)?);

    println!(
        "| workflow | scans | rows scanned | rows from the cluster | cluster s | this machine s | saved |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut different = Vec::new();
    for group in [Group::User, Group::Context, Group::Item] {
        let rows = rows(&arguments, group, on_this_machine)?;
        let definition = fitted_on(pipeline.workflow(group), &rows);
        let local = Fit::new(&engine, &definition, &rows)?;
        let rows = self::rows(&arguments, group, on_cluster)?;
        let distributed = Fit::new(&engine, &definition, &rows)
            .with_context(|| format!("fitting the {} features on the cluster", group.as_str()))?;

        let folder = |of: &str| arguments.out.join(of).join(group.as_str());
        let saved = saved(&local.workflow, &folder("this-machine"))?;
        let equal = saved == self::saved(&distributed.workflow, &folder("cluster"))?;
        println!(
            "| {} | {} | {} | {} | {:.1} | {:.1} | {} files, {} |",
            group.as_str(),
            distributed.progress.scans,
            local.progress.rows,
            distributed.progress.rows,
            distributed.took.as_secs_f64(),
            local.took.as_secs_f64(),
            saved.len(),
            if equal { "equal" } else { "DIFFERENT" },
        );
        if !equal {
            different.push(group.as_str());
        }
    }
    ensure!(
        different.is_empty(),
        "the cluster fitted other workflows than this machine: compare {} in both folders of {}",
        different.join(", "),
        arguments.out.display()
    );
    Ok(())
}

/// The rows that a group's workflow is fitted on: each event, with the columns of its user or item.
fn rows(
    arguments: &Arguments,
    group: Group,
    read: impl Fn(&[PathBuf]) -> Result<DataFrame>,
) -> Result<DataFrame> {
    /// The id on the other side of the join.
    const JOINED: &str = "joined id";
    let events = read(&arguments.events)?.filter(ident("timestamp").lt(lit(arguments.before)))?;
    let (table, id) = match group {
        Group::User => (&arguments.users, "user_id"),
        Group::Item => (&arguments.items, "item_id"),
        Group::Context => return Ok(events),
    };
    let table = read(std::slice::from_ref(table))?;
    let columns = table
        .schema()
        .fields()
        .iter()
        .map(|field| match field.name() {
            name if name == id => ident(id).alias(JOINED),
            name => ident(name),
        });
    let columns: Vec<_> = columns.collect();
    let same = ident(id).eq(ident(JOINED));
    // The left side is held in memory.
    let table = table.select(columns)?;
    Ok(table.join_on(events, JoinType::Inner, [same])?)
}

/// The chains of columns that the tables hold; `saker prepare` derives the others.
fn fitted_on(mut definition: Definition, rows: &DataFrame) -> Definition {
    let fields = rows.schema().fields();
    let held = |column: &String| fields.iter().any(|field| field.name() == column);
    definition
        .chains
        .retain(|chain| chain.columns.iter().all(held));
    definition
}

struct Fit {
    workflow: Workflow,
    /// Rows of the leaves of the plans that ran here: of the files, or of what the cluster sent.
    progress: Progress,
    took: Duration,
}

impl Fit {
    fn new(engine: &Engine, definition: &Definition, rows: &DataFrame) -> Result<Self> {
        let mut progress = Progress {
            rows: 0,
            scan: 0,
            scans: 0,
        };
        let started = Instant::now();
        let workflow = engine.fit(definition, rows, |at| progress = at)?;
        Ok(Self {
            workflow,
            progress,
            took: started.elapsed(),
        })
    }
}

/// Saves a workflow, in place of an earlier run's, and reads back every file, by its path in the folder.
fn saved(workflow: &Workflow, folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    workflow.save(folder)?;
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.to_owned(), fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

/// Executors have working directories of their own.
fn absolute(file: &Path) -> Result<String> {
    let path = file
        .canonicalize()
        .with_context(|| format!("there is no file {}", file.display()))?;
    Ok(path.display().to_string())
}
