//! Interactions read and sorted by a cluster: the source's own rows, which are cleaned here as they arrive.
//!
//! The plan holds nothing but DataFusion's operators (scans, projections, a sort), so that executors run it which know nothing of Saker.

use std::path::PathBuf;
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

/// Warns when no row has come from a cluster for a while: it waits for its executors without end.
pub(crate) struct Watch {
    rows: u64,
    since: Instant,
}

impl Watch {
    /// Between two warnings.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub(crate) fn start() -> Self {
        let (rows, since) = (0, Instant::now());
        Self { rows, since }
    }

    /// Takes note of the rows that have come so far.
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

/// Files of which the same columns are read, in the same types.
struct Alike {
    /// The columns that the files hold.
    fields: Vec<Field>,
    /// The columns that the names of their folders hold, with their value.
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
        arriving: Some(Arriving::new(cleaner)),
        schema,
        met,
    })
}

/// The columns that a cleaner reads, of all files, in no order.
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
                // Of whatever width: a union has one type.
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
    let without = "without --engine, this machine reads them as they are";
    for name in cleaner.columns() {
        let mut first: Option<(&DataType, &PathBuf)> = None;
        for group in groups {
            let file = &group.files[0];
            let kind = match group.fields.iter().find(|field| *field.name() == name) {
                Some(field) => field.data_type(),
                None => &DataType::Utf8,
            };
            let sorts = match kind {
                _ if name == cleaner.user => kind.is_integer(),
                _ if name == cleaner.time => {
                    kind.is_numeric() && !kind.is_decimal()
                        || matches!(
                            kind,
                            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
                        )
                }
                _ => true,
            };
            if !sorts {
                let accepted = match name == cleaner.user {
                    true => "integers",
                    false => "integers, floating-point numbers, timestamps and dates",
                };
                bail!(
                    "{}, column {name} is {kind}; a cluster sorts by it, and accepted are {accepted}; {without}",
                    file.display()
                );
            }
            match first {
                _ if name == cleaner.user => {}
                None => first = Some((kind, file)),
                Some((of_first, first)) if of_first != kind => bail!(
                    "column {name} is {of_first} in {} and {kind} in {}; a cluster reads columns of one type; {without}",
                    first.display(),
                    file.display()
                ),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// The time of the last event that is kept. Whether an event is kept is known here alone, so the cluster gives the last rows, and
/// more of them until one is kept.
fn latest(engine: &Engine, rows: &DataFrame, cleaner: &Cleaner) -> Result<i32> {
    let mut most = 1 << 10;
    loop {
        let last = engine.last(rows.clone(), &cleaner.time, most)?;
        let apart = cleaner.counting_apart();
        let met = Arc::clone(&apart.met);
        let mut arriving = Arriving::new(apart);
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
