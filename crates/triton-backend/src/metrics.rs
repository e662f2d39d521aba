//! Counters and gauges on Triton's metrics page.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use triton_rs_sys as sys;

use crate::ffi::{c_string, check};
use crate::{Code, Error};

/// A number that only increases. Cheap to clone; a call is one atomic addition.
///
/// [`ModelContext::counter`](crate::ModelContext::counter) makes one.
///
/// ```no_run
/// # fn load(context: &triton_backend::ModelContext) -> Result<(), triton_backend::Error> {
/// let hits = context.counter("cache_hits_total", "Rows found in the cache", &[("cache", "users")])?;
/// hits.increment(3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Counter(Option<Arc<Metric>>);

impl Counter {
    /// A counter that counts nothing, for tests and for code that runs without a server.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Adds `amount`, one call of Triton's API. Nothing happens on a server without metrics.
    pub fn increment(&self, amount: u64) {
        if let Some(metric) = &self.0 {
            // SAFETY: the metric lives as long as the `Arc`; Triton's metrics are thread-safe.
            let _ = unsafe {
                check(sys::TRITONSERVER_MetricIncrement(
                    metric.raw.0,
                    amount as f64,
                ))
            };
        }
    }
}

/// A number that increases and decreases. Cheap to clone.
///
/// [`ModelContext::gauge`](crate::ModelContext::gauge) makes one.
///
/// ```no_run
/// # fn load(context: &triton_backend::ModelContext) -> Result<(), triton_backend::Error> {
/// let rows = context.gauge("table_rows", "Rows of the table in use", &[])?;
/// rows.set(1_000.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Gauge(Option<Arc<Metric>>);

impl Gauge {
    /// A gauge that shows nothing, for tests and for code that runs without a server.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Sets the value, one call of Triton's API. Nothing happens on a server without metrics.
    pub fn set(&self, value: f64) {
        if let Some(metric) = &self.0 {
            // SAFETY: as in `Counter::increment`.
            let _ = unsafe { check(sys::TRITONSERVER_MetricSet(metric.raw.0, value)) };
        }
    }
}

/// A use of an entry in the registry.
#[derive(Debug)]
struct Metric {
    key: MetricKey,
    raw: Raw<sys::TRITONSERVER_Metric>,
}

impl Drop for Metric {
    fn drop(&mut self) {
        registry().release(&self.key);
    }
}

#[derive(Debug)]
struct Raw<T>(*mut T);

impl<T> Clone for Raw<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Raw<T> {}

/// An object of Triton that any thread may use.
///
/// # Safety
/// Every function of Triton's that takes such an object is thread-safe.
unsafe trait ThreadSafe {}

// SAFETY: Triton documents that metrics and their families are thread-safe.
unsafe impl ThreadSafe for sys::TRITONSERVER_Metric {}
// SAFETY: as above.
unsafe impl ThreadSafe for sys::TRITONSERVER_MetricFamily {}

// SAFETY: the pointer is only passed to Triton's functions, which are thread-safe for such an object.
unsafe impl<T: ThreadSafe> Send for Raw<T> {}
// SAFETY: as above.
unsafe impl<T: ThreadSafe> Sync for Raw<T> {}

type Labels = Vec<(String, String)>;
type FamilyKey = (sys::TRITONSERVER_MetricKind, String);
type MetricKey = (FamilyKey, Labels);

/// An object of Triton and its number of users.
#[derive(Debug)]
struct Shared<T> {
    raw: Raw<T>,
    users: usize,
}

/// The existing objects. Models of this library share families. A model that is reloaded while its predecessor still serves shares the
/// metric. Triton returns the same object to two users of one name, and the first user to end would delete it.
#[derive(Debug, Default)]
struct Registry {
    families: HashMap<FamilyKey, Shared<sys::TRITONSERVER_MetricFamily>>,
    metrics: HashMap<MetricKey, Shared<sys::TRITONSERVER_Metric>>,
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn counter(name: &str, help: &str, labels: Labels) -> Result<Counter, Error> {
    metric(sys::TRITONSERVER_METRIC_KIND_COUNTER, name, help, labels).map(Counter)
}

pub(crate) fn gauge(name: &str, help: &str, labels: Labels) -> Result<Gauge, Error> {
    metric(sys::TRITONSERVER_METRIC_KIND_GAUGE, name, help, labels).map(Gauge)
}

fn metric(
    kind: sys::TRITONSERVER_MetricKind,
    name: &str,
    help: &str,
    labels: Labels,
) -> Result<Option<Arc<Metric>>, Error> {
    let key = ((kind, name.to_owned()), labels);
    let acquired = registry().acquire(&key, help);
    match acquired {
        Ok(raw) => Ok(Some(Arc::new(Metric { key, raw }))),
        // The server runs without metrics; the model must still serve.
        Err(e) if matches!(e.code(), Code::Unsupported | Code::Unavailable) => Ok(None),
        Err(e) => Err(e.context(format_args!("metric '{name}'"))),
    }
}

impl Registry {
    fn acquire(
        &mut self,
        key: &MetricKey,
        help: &str,
    ) -> Result<Raw<sys::TRITONSERVER_Metric>, Error> {
        if let Some(metric) = self.metrics.get_mut(key) {
            metric.users += 1;
            return Ok(metric.raw);
        }
        let (family_key, labels) = key;
        let family = match self.families.entry(family_key.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Shared {
                raw: new_family(family_key, help)?,
                users: 0,
            }),
        };
        family.users += 1;
        match new_metric(family.raw, labels) {
            Ok(raw) => {
                self.metrics.insert(key.clone(), Shared { raw, users: 1 });
                Ok(raw)
            }
            Err(error) => {
                self.release_family(family_key);
                Err(error)
            }
        }
    }

    fn release(&mut self, key: &MetricKey) {
        let Some(metric) = self.metrics.get_mut(key) else {
            return;
        };
        metric.users -= 1;
        if metric.users == 0 {
            // SAFETY: made by MetricNew, deleted once, before its family.
            let _ = unsafe { check(sys::TRITONSERVER_MetricDelete(metric.raw.0)) };
            self.metrics.remove(key);
            self.release_family(&key.0);
        }
    }

    fn release_family(&mut self, key: &FamilyKey) {
        let Some(family) = self.families.get_mut(key) else {
            return;
        };
        family.users -= 1;
        if family.users == 0 {
            // SAFETY: made by MetricFamilyNew, deleted once, after its last metric.
            let _ = unsafe { check(sys::TRITONSERVER_MetricFamilyDelete(family.raw.0)) };
            self.families.remove(key);
        }
    }
}

fn new_family(
    (kind, name): &FamilyKey,
    help: &str,
) -> Result<Raw<sys::TRITONSERVER_MetricFamily>, Error> {
    let (name, help) = (c_string(name), c_string(help));
    let mut raw = ptr::null_mut();
    // SAFETY: the strings are NUL-terminated and copied by Triton; `raw` is written on success.
    unsafe {
        check(sys::TRITONSERVER_MetricFamilyNew(
            &mut raw,
            *kind,
            name.as_ptr(),
            help.as_ptr(),
        ))?;
    }
    Ok(Raw(raw))
}

fn new_metric(
    family: Raw<sys::TRITONSERVER_MetricFamily>,
    labels: &Labels,
) -> Result<Raw<sys::TRITONSERVER_Metric>, Error> {
    let mut parameters: Vec<*const sys::TRITONSERVER_Parameter> = labels
        .iter()
        .map(|(key, value)| {
            let (key, value) = (c_string(key), c_string(value));
            // SAFETY: both strings are NUL-terminated and copied by Triton.
            let parameter = unsafe {
                sys::TRITONSERVER_ParameterNew(
                    key.as_ptr(),
                    sys::TRITONSERVER_PARAMETER_STRING,
                    value.as_ptr().cast::<c_void>(),
                )
            };
            parameter.cast_const()
        })
        .collect();
    let mut raw = ptr::null_mut();
    // SAFETY: the family is alive, `parameters` holds as many labels as said; they are
    // deleted once, right after, which the API allows.
    unsafe {
        let count = parameters.len() as u64;
        let error = sys::TRITONSERVER_MetricNew(&mut raw, family.0, parameters.as_mut_ptr(), count);
        for parameter in parameters {
            sys::TRITONSERVER_ParameterDelete(parameter.cast_mut());
        }
        check(error)?;
    }
    Ok(Raw(raw))
}
