//! Has a cluster read and sort the source's own rows. This machine cleans them as they arrive.
//!
//! The plan holds only DataFusion's operators (scans, projections, a sort), so executors need no code of Saker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::datatypes::{DataType, Field, Schema};
use saker_bulk::plan::{Expr, ScalarValue, cast, ident, lit};
use saker_bulk::{DataFrame, Engine};
use saker_pipeline::{Data, Format, Parts};

use crate::clean::{Arriving, Cleaner, Sorted};
use crate::files::TableFile;
use crate::source::columns_of;
use crate::table;

/// Warns when no row has come from a cluster for a while, because a cluster waits for its executors without a time limit.
pub(crate) struct Watch {
    rows: u64,
    since: Instant,
}

impl Watch {
    /// Time without a new row before each warning.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub(crate) fn start() -> Self {
        let (rows, since) = (0, Instant::now());
        Self { rows, since }
    }

    /// Records the number of rows that have come so far.
    pub(crate) fn see(&mut self, rows: u64) {
        let silent = self.since.elapsed();
        if rows != self.rows {
            (self.rows, self.since) = (rows, Instant::now());
        } else if silent > Self::PATIENCE {
            self.since = Instant::now();
            tracing::warn!(
                "no row has come from the cluster for {} s: it is sorting, or none of its executors is free",
                silent.as_secs()
            );
        }
    }
}

/// Files with the same columns in the same types.
struct Alike {
    /// The columns in the files.
    fields: Vec<Field>,
    /// The columns in the names of their folders, with their values.
    of_folders: Vec<(String, Option<String>)>,
    files: Vec<PathBuf>,
}

/// The interactions as the engine's cluster sorts them.
pub(crate) fn sorted(
    engine: &Engine,
    data: &Data,
    files: &[TableFile],
    cleaner: Cleaner,
    split: Parts,
) -> Result<Sorted> {
    if data.format != Format::Parquet {
        bail!(
            "data.format = \"atomic\": a cluster reads Parquet files alone; leave --engine out, or convert the tables"
        );
    }
    let rows = rows(engine, files, &cleaner)?;
    let (schema, met) = (Arc::clone(&cleaner.schema), Arc::clone(&cleaner.met));
    if matches!(split, Parts::Days { .. }) {
        let latest = latest(engine, &rows, &cleaner)?;
        met.latest.fetch_max(latest, Ordering::Relaxed);
    }
    Ok(Sorted {
        plan: engine.sorted(rows, &[&cleaner.user, &cleaner.time])?,
        arriving: Some(Arriving::of_cluster(cleaner)),
        schema,
        met,
    })
}

/// The rows of all files in no order, with the columns that a cleaner reads.
fn rows(engine: &Engine, files: &[TableFile], cleaner: &Cleaner) -> Result<DataFrame> {
    let columns = cleaner.columns();
    let groups = alike(files, &columns)?;
    check(&groups, cleaner)?;
    let mut all: Option<DataFrame> = None;
    for group in &groups {
        let read = engine.read_shared_columns(&group.files, &Schema::new(group.fields.clone()))?;
        let column = |name: &String| -> Expr {
            let value = group.of_folders.iter().find(|(column, _)| column == name);
            match value {
                Some((_, value)) => lit(ScalarValue::Utf8(value.clone())).alias(name),
                // Files may hold user ids of different widths; a union has one type.
                None if *name == cleaner.user => cast(ident(name), DataType::Int64).alias(name),
                None => ident(name),
            }
        };
        let rows = read.select(columns.iter().map(column).collect::<Vec<Expr>>())?;
        all = Some(match all {
            None => rows,
            Some(all) => all.union(rows)?,
        });
    }
    all.context("there is no file of interactions")
}

fn alike(files: &[TableFile], columns: &[String]) -> Result<Vec<Alike>> {
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut groups: Vec<Alike> = Vec::new();
    for file in files {
        let held = columns_of(file, &names)?;
        let schema = table::schema(&file.path)?;
        let fields = held.iter().map(|name| -> Result<Field> {
            let field = schema.field_with_name(name)?;
            Ok(Field::new(name, field.data_type().clone(), true))
        });
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let of_folders = file.partition.iter();
        let of_folders =
            of_folders.filter(|(name, _)| columns.contains(name) && !held.contains(name));
        let of_folders: Vec<_> = of_folders.cloned().collect();
        let group = groups
            .iter_mut()
            .find(|group| group.fields == fields && group.of_folders == of_folders);
        match group {
            Some(group) => group.files.push(file.path.clone()),
            None => groups.push(Alike {
                fields,
                of_folders,
                files: vec![file.path.clone()],
            }),
        }
    }
    Ok(groups)
}

/// Refuses types that a cluster would not sort as cleaned rows are sorted, and columns of several types.
fn check(groups: &[Alike], cleaner: &Cleaner) -> Result<()> {
    for name in cleaner.columns() {
        let kinds: Vec<Kind> = groups.iter().map(|group| group.kind(&name)).collect();
        if name == cleaner.user {
            // The plan casts user ids to one width.
            check_user(&name, &kinds)?;
            continue;
        }
        if name == cleaner.time {
            check_time(&name, &kinds)?;
        }
        check_one_type(&name, &kinds)?;
    }
    Ok(())
}

/// The type of a column in a group of files.
struct Kind<'a> {
    kind: &'a DataType,
    /// The group's first file.
    file: &'a Path,
}

impl Alike {
    /// The type of a column; text if it is in the names of the folders.
    fn kind(&self, column: &str) -> Kind<'_> {
        let field = self.fields.iter().find(|field| field.name() == column);
        Kind {
            kind: field.map_or(&DataType::Utf8, Field::data_type),
            file: &self.files[0],
        }
    }
}

const WITHOUT: &str = "without --engine, this machine reads them as they are";

fn check_user(name: &str, kinds: &[Kind]) -> Result<()> {
    check_sorts(name, kinds, DataType::is_integer, "integers")
}

fn check_time(name: &str, kinds: &[Kind]) -> Result<()> {
    let sorts = |kind: &DataType| {
        let is_date = matches!(
            kind,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
        );
        is_date || kind.is_numeric() && !kind.is_decimal()
    };
    let accepted = "integers, floating-point numbers, timestamps and dates";
    check_sorts(name, kinds, sorts, accepted)
}

fn check_sorts(
    name: &str,
    kinds: &[Kind],
    sorts: impl Fn(&DataType) -> bool,
    accepted: &str,
) -> Result<()> {
    let Some(Kind { kind, file }) = kinds.iter().find(|held| !sorts(held.kind)) else {
        return Ok(());
    };
    bail!(
        "{}, column {name} is {kind}; a cluster sorts by it, and accepted are {accepted}; {WITHOUT}",
        file.display()
    )
}

fn check_one_type(name: &str, kinds: &[Kind]) -> Result<()> {
    let Some((first, others)) = kinds.split_first() else {
        return Ok(());
    };
    let Some(other) = others.iter().find(|other| other.kind != first.kind) else {
        return Ok(());
    };
    bail!(
        "column {name} is {} in {} and {} in {}; a cluster reads columns of one type; {WITHOUT}",
        first.kind,
        first.file.display(),
        other.kind,
        other.file.display()
    )
}

/// The time of the last event that is kept. Only this machine knows which events are kept. So it asks the cluster for the last rows, and
/// for more of them until one is kept.
fn latest(engine: &Engine, rows: &DataFrame, cleaner: &Cleaner) -> Result<i32> {
    let mut most = 1 << 10;
    loop {
        let last = engine.last(rows.clone(), &cleaner.time, most)?;
        let apart = cleaner.counting_apart();
        let met = Arc::clone(&apart.met);
        let mut arriving = Arriving::of_cluster(apart);
        let (mut given, mut kept) = (0, 0);
        let mut watch = Watch::start();
        engine.run(
            last,
            |rows| watch.see(rows),
            |batch| -> Result<()> {
                given += batch.num_rows();
                kept += arriving.clean(&batch)?.num_rows();
                Ok(())
            },
        )?;
        if kept > 0 || given < most {
            return Ok(met.latest());
        }
        most <<= 4;
    }
}
