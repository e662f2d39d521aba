//! Cached mode: a copy of a whole feature view, refreshed in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use hashbrown::HashMap;
use saker_contract::RawId;
use saker_steps::lookup::{Columns, Feature, Meters, Parameters};
use saker_store::feast::{EntityType, FeatureView, load};
use saker_store::{Connection, Pipeline, Reply, Settings, StoreError};
use triton_backend::{Error, Gauge, ModelContext, Periodic, Stop, log};

/// Maximum duration of each round trip of a load.
const ROUND_TRIP: Duration = Duration::from_secs(10);
/// Pause between two attempts of a load while the store does not answer.
const RETRY: Duration = Duration::from_millis(200);

/// A snapshot of a view.
pub(crate) struct Table {
    rows: HashMap<i64, u32>,
    columns: Columns,
    /// The value of the version key when the view was read.
    version: Option<Vec<u8>>,
    /// Number of entities that were skipped, because their id has another type or is not a whole number.
    left_out: usize,
}

impl Table {
    /// The row of an id. Ids may have gaps.
    pub(crate) fn row(&self, id: i64) -> Option<u32> {
        if id == RawId::NONE {
            None
        } else {
            self.rows.get(&id).copied()
        }
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }
}

/// The current table and the thread that refreshes it; dropping it joins the thread.
pub(crate) struct Cache {
    table: Arc<ArcSwap<Table>>,
    _refresher: Option<Periodic>,
}

/// The metrics of a table.
struct Gauges {
    rows: Gauge,
    left_out: Gauge,
}

impl Gauges {
    fn set(&self, table: &Table) {
        self.rows.set(table.rows.len() as f64);
        self.left_out.set(table.left_out as f64);
    }
}

/// The source of a view: store, names and types.
struct Source {
    settings: Settings,
    view: FeatureView,
    /// The accepted entity type; `None` accepts all types.
    entity_type: Option<EntityType>,
    features: Arc<[Feature]>,
    version_key: Option<String>,
    meters: Arc<Meters>,
}

impl Cache {
    /// Reads the view, waits for the store if necessary, and starts the refresh thread.
    pub(crate) fn load(
        context: &ModelContext,
        settings: Settings,
        view: FeatureView,
        features: Arc<[Feature]>,
        parameters: &Parameters,
        meters: Arc<Meters>,
    ) -> Result<Self, Error> {
        let url = settings.url().clone();
        let version_key = parameters.refresh_key.clone();
        let source = Source {
            settings,
            view,
            entity_type: parameters.entity_type()?,
            features,
            version_key,
            meters,
        };
        let failures = context.counter(
            "saker_feature_lookup_refresh_failures_total",
            "Failed refreshes of the cached view; the old copy stays in use",
            &[],
        )?;
        let rows = context.gauge(
            "saker_feature_lookup_rows",
            "Entities in the cached view",
            &[],
        )?;

        let begin = Instant::now();
        let table = loop {
            match source.read(&Stop::default()) {
                Ok(table) => break table,
                Err(_) if begin.elapsed() < parameters.load_timeout() => std::thread::sleep(RETRY),
                Err(error) => {
                    return Err(Error::unavailable(format!(
                        "the cached view cannot be read from {url} within {} s (LOAD_TIMEOUT_SECONDS): {error}",
                        parameters.load_timeout().as_secs()
                    )));
                }
            }
        };
        log::info!(
            "model '{}': {} entities of view '{}' read in {} ms",
            context.name(),
            table.rows.len(),
            source.view.name(),
            begin.elapsed().as_millis()
        );
        let left_out = context.gauge(
            "saker_feature_lookup_left_out",
            "Entities of the view that the cached copy lacks: their id has another type or is not a whole number",
            &[],
        )?;
        if table.left_out > 0 {
            log::warn!(
                "model '{}': {} entities of view '{}' are skipped: their id is {}",
                context.name(),
                table.left_out,
                source.view.name(),
                source.why_left_out()
            );
        }
        let gauges = Gauges { rows, left_out };
        gauges.set(&table);
        let table = Arc::new(ArcSwap::from_pointee(table));
        let refresher = match parameters.refresh_every() {
            None => None,
            Some(every) => {
                let shared = Arc::clone(&table);
                Some(Periodic::start("saker-refresh", every, move |stop| {
                    match source.renew(&shared, stop) {
                        Ok(true) => gauges.set(&shared.load()),
                        Ok(false) => {}
                        Err(_) if stop.is_set() => {}
                        Err(error) => {
                            failures.increment(1);
                            source.meters.stale(source.view.name(), &error);
                        }
                    }
                    every
                })?)
            }
        };
        Ok(Self {
            table,
            _refresher: refresher,
        })
    }

    /// The current table. A later refresh does not change the returned one.
    pub(crate) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }
}

impl Source {
    /// Reads the view again, unless a version key exists and is unchanged. Returns whether the view was read.
    fn renew(&self, table: &ArcSwap<Table>, stop: &Stop) -> Result<bool, StoreError> {
        if self.version_key.is_some() {
            let mut connection = Connection::open(&self.settings)?;
            if self.version(&mut connection)? == table.load().version {
                return Ok(false);
            }
        }
        table.store(Arc::new(self.read(stop)?));
        Ok(true)
    }

    fn read(&self, stop: &Stop) -> Result<Table, StoreError> {
        let mut connection = Connection::open(&self.settings)?;
        // Read before the rows: if the version changes during the read, the next refresh reads the rows again.
        let version = self.version(&mut connection)?;
        let mut rows = HashMap::new();
        // The type of each row's id.
        let mut types: Vec<EntityType> = Vec::new();
        let mut left_out = 0;
        let mut columns = Columns::new(&self.features);
        load(&mut connection, &self.view, ROUND_TRIP, &mut |id, row| {
            if stop.is_set() {
                return Err(StoreError::Data("the model is being unloaded".into()));
            }
            let kind = id.entity_type();
            let wanted = self.entity_type.is_none_or(|wanted| kind == Some(wanted));
            let (Some(id), Some(kind), true) = (id.number(), kind, wanted) else {
                left_out += 1;
                return Ok(());
            };
            columns.push_row(
                &self.features,
                |position| row.value(position),
                |why| self.meters.unreadable(&why),
            );
            match rows.get(&id) {
                // SCAN may return a key twice.
                Some(&row) if types.get(row as usize) == Some(&kind) => {
                    columns.replace_with_last(&self.features, row as usize);
                }
                Some(&row) => {
                    let other = types.get(row as usize).copied().unwrap_or_default();
                    return Err(StoreError::Data(format!(
                        "view '{}' has {} {id} as {other} and as {kind}; set ENTITY_TYPE to the one to use",
                        self.view.name(),
                        self.view.join_key()
                    )));
                }
                None => {
                    let row = u32::try_from(rows.len())
                        .map_err(|_| StoreError::Data("more than 4,294,967,295 entities".into()))?;
                    rows.insert(id, row);
                    types.push(kind);
                }
            }
            Ok(())
        })?;
        if rows.is_empty() {
            let others = match left_out {
                0 => String::new(),
                _ => format!(
                    " ({left_out} are skipped: their id is {})",
                    self.why_left_out()
                ),
            };
            return Err(StoreError::Data(format!(
                "no entity with join key '{}' has view '{}'{others}: are project, view, database, entity type and entity \
                 key serialization those that wrote it?",
                self.view.join_key(),
                self.view.name()
            )));
        }
        Ok(Table {
            rows,
            columns,
            version,
            left_out,
        })
    }

    fn why_left_out(&self) -> String {
        match self.entity_type {
            Some(wanted) => format!("not {wanted}, as ENTITY_TYPE says, or no whole number"),
            None => "no whole number".into(),
        }
    }

    fn version(&self, connection: &mut Connection) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(key) = &self.version_key else {
            return Ok(None);
        };
        let mut pipeline = Pipeline::new();
        pipeline.command(key.as_bytes(), |cmd| {
            cmd.arg("GET").arg(key);
        });
        match connection.run(&pipeline, ROUND_TRIP)?.pop() {
            Some(Reply::BulkString(version)) => Ok(Some(version)),
            Some(Reply::Nil) => Ok(None),
            _ => Err(StoreError::Protocol(format!("GET {key}: not a string"))),
        }
    }
}
