//! Counters and gauges on Triton's metrics page.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use triton_rs_sys as sys;

use crate::ffi::{c_string, check};
use crate::{Code, Error};

/// A number that only grows. Cheap to clone; one atomic addition per call.
#[derive(Debug, Clone, Default)]
pub struct Counter(Option<Arc<Metric>>);

impl Counter {
    /// A counter that counts nothing, for tests and for code that runs without a server.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Adds `amount`.
    pub fn increment(&self, amount: u64) {
        if let Some(metric) = &self.0 {
            // SAFETY: the metric lives as long as the `Arc`; Triton's metrics are thread-safe.
            let _ = unsafe { check(sys::TRITONSERVER_MetricIncrement(metric.raw, amount as f64)) };
        }
    }
}

/// A number that goes up and down. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Option<Arc<Metric>>);

impl Gauge {
    /// A gauge that shows nothing, for tests and for code that runs without a server.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        if let Some(metric) = &self.0 {
            // SAFETY: as in `Counter::increment`.
            let _ = unsafe { check(sys::TRITONSERVER_MetricSet(metric.raw, value)) };
        }
    }
}

#[derive(Debug)]
struct Metric {
    raw: *mut sys::TRITONSERVER_Metric,
    // Dropped after `raw` is deleted: a family must outlive its metrics.
    _family: Arc<Family>,
}

// SAFETY: Triton's metric functions are thread-safe, and the pointer is only passed to them.
unsafe impl Send for Metric {}
// SAFETY: as above.
unsafe impl Sync for Metric {}

impl Drop for Metric {
    fn drop(&mut self) {
        // SAFETY: made by MetricNew, deleted once; its family is still alive.
        let _ = unsafe { check(sys::TRITONSERVER_MetricDelete(self.raw)) };
    }
}

#[derive(Debug)]
struct Family {
    raw: *mut sys::TRITONSERVER_MetricFamily,
}

// SAFETY: as for `Metric`.
unsafe impl Send for Family {}
// SAFETY: as for `Metric`.
unsafe impl Sync for Family {}

impl Drop for Family {
    fn drop(&mut self) {
        // SAFETY: made by MetricFamilyNew, deleted once, after its metrics.
        let _ = unsafe { check(sys::TRITONSERVER_MetricFamilyDelete(self.raw)) };
    }
}

type Labels = Vec<(String, String)>;

/// What exists now, so that models of this library share families, and a model that is
/// reloaded while its predecessor still serves shares the metric.
#[derive(Default)]
struct Registry {
    families: HashMap<(sys::TRITONSERVER_MetricKind, String), Weak<Family>>,
    metrics: HashMap<(String, Labels), Weak<Metric>>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

pub(crate) fn counter(name: &str, help: &str, labels: &Labels) -> Result<Counter, Error> {
    metric(sys::TRITONSERVER_METRIC_KIND_COUNTER, name, help, labels).map(Counter)
}

pub(crate) fn gauge(name: &str, help: &str, labels: &Labels) -> Result<Gauge, Error> {
    metric(sys::TRITONSERVER_METRIC_KIND_GAUGE, name, help, labels).map(Gauge)
}

fn metric(
    kind: sys::TRITONSERVER_MetricKind,
    name: &str,
    help: &str,
    labels: &Labels,
) -> Result<Option<Arc<Metric>>, Error> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    let family_key = (kind, name.to_owned());
    let family = match registry.families.get(&family_key).and_then(Weak::upgrade) {
        Some(family) => family,
        None => match new_family(kind, name, help) {
            Ok(family) => Arc::new(family),
            // The server runs without metrics: that must not keep a model from serving.
            Err(e) if matches!(e.code(), Code::Unsupported | Code::Unavailable) => return Ok(None),
            Err(e) => return Err(e.context(format_args!("metric '{name}'"))),
        },
    };
    registry
        .families
        .insert(family_key, Arc::downgrade(&family));
    let metric_key = (name.to_owned(), labels.clone());
    if let Some(metric) = registry.metrics.get(&metric_key).and_then(Weak::upgrade) {
        return Ok(Some(metric));
    }
    let metric =
        new_metric(family, labels).map_err(|e| e.context(format_args!("metric '{name}'")))?;
    let metric = Arc::new(metric);
    registry
        .metrics
        .retain(|_, metric| metric.strong_count() > 0);
    registry.metrics.insert(metric_key, Arc::downgrade(&metric));
    Ok(Some(metric))
}

fn new_family(kind: sys::TRITONSERVER_MetricKind, name: &str, help: &str) -> Result<Family, Error> {
    let (name, help) = (c_string(name), c_string(help));
    let mut raw = ptr::null_mut();
    // SAFETY: the strings are NUL-terminated and copied by Triton; `raw` is written on success.
    unsafe {
        check(sys::TRITONSERVER_MetricFamilyNew(
            &mut raw,
            kind,
            name.as_ptr(),
            help.as_ptr(),
        ))?
    };
    Ok(Family { raw })
}

fn new_metric(family: Arc<Family>, labels: &Labels) -> Result<Metric, Error> {
    let mut parameters: Vec<*const sys::TRITONSERVER_Parameter> = labels
        .iter()
        .map(|(key, value)| {
            let (key, value) = (c_string(key), c_string(value));
            let kind = sys::TRITONSERVER_PARAMETER_STRING;
            // SAFETY: both strings are NUL-terminated and copied by Triton.
            unsafe {
                sys::TRITONSERVER_ParameterNew(key.as_ptr(), kind, value.as_ptr().cast::<c_void>())
            }
            .cast_const()
        })
        .collect();
    let mut raw = ptr::null_mut();
    // SAFETY: the family is alive, `parameters` holds as many labels as said; they are
    // deleted once, right after, which the API allows.
    let made = unsafe {
        let error = sys::TRITONSERVER_MetricNew(
            &mut raw,
            family.raw,
            parameters.as_mut_ptr(),
            parameters.len() as u64,
        );
        for parameter in parameters {
            sys::TRITONSERVER_ParameterDelete(parameter.cast_mut());
        }
        check(error)
    };
    made.map(|()| Metric {
        raw,
        _family: family,
    })
}
