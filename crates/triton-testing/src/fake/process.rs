//! The state that a server has once per process: version, log, metrics.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use triton_rs_sys as sys;

thread_local! {
    static API_VERSION: Cell<(u32, u32)> = const {
        Cell::new((sys::TRITONBACKEND_API_VERSION_MAJOR, sys::TRITONBACKEND_API_VERSION_MINOR))
    };
    static METRICS: Cell<bool> = const { Cell::new(true) };
}

/// The backend API version that the server claims on this thread.
pub fn set_api_version(major: u32, minor: u32) {
    API_VERSION.set((major, minor));
}

pub(super) fn api_version() -> (u32, u32) {
    API_VERSION.get()
}

/// Whether the server has metrics on this thread.
pub fn set_metrics_enabled(enabled: bool) {
    METRICS.set(enabled);
}

pub(super) fn metrics_enabled() -> bool {
    METRICS.get()
}

/// A line that a backend wrote to the server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// One of `TRITONSERVER_LOG_*`, such as `TRITONSERVER_LOG_WARN`.
    pub level: sys::TRITONSERVER_LogLevel,
    /// The text, without file and line number.
    pub message: String,
}

static LOG: Mutex<Vec<Line>> = Mutex::new(Vec::new());

pub(super) fn log(level: sys::TRITONSERVER_LogLevel, message: String) {
    LOG.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Line { level, message });
}

/// Every line logged in this process so far that contains `text`.
///
/// ```no_run
/// // After a load that had to warn:
/// let lines = triton_testing::fake::log_lines("the store is down");
/// assert_eq!(lines.len(), 1, "at most once a minute");
/// ```
pub fn log_lines(text: &str) -> Vec<Line> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter()
        .filter(|line| line.message.contains(text))
        .cloned()
        .collect()
}

type Labels = BTreeMap<String, String>;

/// The content of the metrics page: per family its kind and users, per label set its value and users.
#[derive(Debug)]
pub(super) struct FamilyEntry {
    pub(super) kind: sys::TRITONSERVER_MetricKind,
    pub(super) handles: usize,
    pub(super) metrics: BTreeMap<Labels, (f64, usize)>,
}

pub(super) static FAMILIES: Mutex<BTreeMap<String, FamilyEntry>> = Mutex::new(BTreeMap::new());

pub(super) fn families<T>(body: impl FnOnce(&mut BTreeMap<String, FamilyEntry>) -> T) -> T {
    body(&mut FAMILIES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The value of a metric on the metrics page; `None` when it is not there.
///
/// ```no_run
/// let labels = [("model", "lookup"), ("version", "1")];
/// assert_eq!(triton_testing::fake::metric("table_misses_total", &labels), Some(2.0));
/// ```
pub fn metric(name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    families(|families| {
        families
            .get(name)?
            .metrics
            .get::<Labels>(&labels)
            .map(|(value, _)| *value)
    })
}
