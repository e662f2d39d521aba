//! Prometheus metrics, and the latest latencies for the operators' page.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use saker_traces::{Exports, Traces};
use triton_client::balance::{Balanced, ServerState};

/// Bucket bounds in seconds; the deadline is in the middle.
const BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.035, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0,
];
/// Number of recent latencies kept.
const KEPT: usize = 4096;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    route: String,
    method: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Key {
    key: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Server {
    server: String,
}

/// The Triton servers at the time of a scrape. The series of a server end when it is removed.
#[derive(Debug)]
struct Tritons(Balanced);

impl Collector for Tritons {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let servers = self.0.servers();
        let ready = servers.iter().filter(|server| server.is_ready).count() as u64;
        let mut count = encoder.encode_descriptor(
            "triton_servers",
            "Triton servers that get requests, and servers that left or have not answered yet",
            None,
            MetricType::Gauge,
        )?;
        for (state, servers) in [("ready", ready), ("left", servers.len() as u64 - ready)] {
            let servers = i64::try_from(servers).unwrap_or(i64::MAX);
            ConstGauge::new(servers).encode(count.encode_family(&State { state })?)?;
        }
        let counters: [Counted; 2] = [
            (
                "triton_server_requests",
                "Requests sent to each Triton",
                |server| server.requests,
            ),
            (
                "triton_server_failures",
                "Requests that Triton did not answer, or answered with an error",
                |server| server.failures,
            ),
        ];
        for (name, help, of) in counters {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for server in &servers {
                let labels = Server {
                    server: server.address.clone(),
                };
                ConstCounter::new(of(server)).encode(counter.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Counters of the exports to the trace collector.
#[derive(Debug)]
struct TraceExports(Arc<Exports>);

impl Collector for TraceExports {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut counter = encoder.encode_descriptor(
            "trace_exports",
            "Requests to the collector of traces, by result",
            None,
            MetricType::Counter,
        )?;
        for (outcome, count) in [("sent", self.0.sent()), ("failed", self.0.failed())] {
            ConstCounter::new(count).encode(counter.encode_family(&Outcome { outcome })?)?;
        }
        Ok(())
    }
}

/// A counter per Triton server: metric name, help text, and the function that reads it.
type Counted = (&'static str, &'static str, fn(&ServerState) -> u64);

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    triton_seconds: Histogram,
    degraded: Family<Reason, Counter>,
    shed: Counter,
    refused_connections: Counter,
    events: Family<Outcome, Counter>,
    keys: Family<Key, Counter>,
    in_flight: Gauge<i64, AtomicI64>,
    /// Totals for the operators' page, which has no time series.
    recommended: AtomicU64,
    degraded_sum: AtomicU64,
    latest: Latest,
}

impl Metrics {
    pub(crate) fn new(tritons: Balanced, traces: &Traces) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            triton_seconds: histogram(),
            degraded: Family::default(),
            shed: Counter::default(),
            refused_connections: Counter::default(),
            events: Family::default(),
            keys: Family::default(),
            in_flight: Gauge::default(),
            recommended: AtomicU64::new(0),
            degraded_sum: AtomicU64::new(0),
            latest: Latest::default(),
        };
        metrics.registered(tritons, traces)
    }

    fn registered(mut self, tritons: Balanced, traces: &Traces) -> Self {
        let registry = self.registry.sub_registry_with_prefix("saker_gateway");
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_seconds",
            "Duration of the answered requests",
            self.seconds.clone(),
        );
        registry.register(
            "triton_seconds",
            "Duration of the requests that Triton answered",
            self.triton_seconds.clone(),
        );
        registry.register(
            "degraded",
            "Recommendations without Triton, or without the user's features or seen items",
            self.degraded.clone(),
        );
        registry.register(
            "shed",
            "Requests refused because the limit of concurrent requests to Triton was reached",
            self.shed.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections refused because their address had reached its limit",
            self.refused_connections.clone(),
        );
        registry.register("events", "Events received, by result", self.events.clone());
        registry.register("key_requests", "Requests by API key", self.keys.clone());
        registry.register(
            "in_flight",
            "Requests to Triton in progress",
            self.in_flight.clone(),
        );
        registry.register_collector(Box::new(Tritons(tritons)));
        if let Some(exports) = traces.exports() {
            registry.register_collector(Box::new(TraceExports(exports)));
        }
        self
    }

    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels = Answered {
            route: route.to_owned(),
            method: method.to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        let route = Route {
            route: route.to_owned(),
        };
        self.seconds
            .get_or_create(&route)
            .observe(took.as_secs_f64());
    }

    pub(crate) fn recommended(&self, took: Duration, degraded: Option<&'static str>) {
        self.recommended.fetch_add(1, Ordering::Relaxed);
        self.latest.note(took);
        if let Some(reason) = degraded {
            self.degraded_sum.fetch_add(1, Ordering::Relaxed);
            self.degraded.get_or_create(&Reason { reason }).inc();
        }
    }

    pub(crate) fn triton_answered(&self, took: Duration) {
        self.triton_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn shed(&self) {
        self.shed.inc();
    }

    pub(crate) fn refused_connection(&self) {
        self.refused_connections.inc();
    }

    pub(crate) fn in_flight(&self, count: usize) {
        self.in_flight.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn events(&self, accepted: u64, duplicates: u64) {
        for (outcome, count) in [("accepted", accepted), ("duplicate", duplicates)] {
            self.events
                .get_or_create(&Outcome { outcome })
                .inc_by(count);
        }
    }

    /// Counts events that were refused because the stream or the store is full.
    pub(crate) fn refused_events(&self, count: u64) {
        let refused = Outcome { outcome: "full" };
        self.events.get_or_create(&refused).inc_by(count);
    }

    /// Number of events accepted since the start.
    pub(crate) fn accepted_events(&self) -> u64 {
        let accepted = Outcome {
            outcome: "accepted",
        };
        self.events.get_or_create(&accepted).get()
    }

    pub(crate) fn key(&self, name: &str) {
        let key = name.to_owned();
        self.keys.get_or_create(&Key { key }).inc();
    }

    /// The page for Prometheus, in its text format.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut page, &self.registry);
        page
    }

    /// Latencies of recent recommendations, for the operators' page.
    pub(crate) fn summary(&self) -> serde_json::Value {
        let [p50, p99] = self.latest.quantiles([0.5, 0.99]);
        serde_json::json!({
            "requests": self.recommended.load(Ordering::Relaxed),
            "degraded": self.degraded_sum.load(Ordering::Relaxed),
            "shed": self.shed.get(),
            "p50_ms": p50,
            "p99_ms": p99,
        })
    }
}

/// Latest latencies in microseconds; 0 marks an unused entry.
struct Latest {
    micros: Vec<AtomicU32>,
    next: AtomicUsize,
}

impl Default for Latest {
    fn default() -> Self {
        Self {
            micros: (0..KEPT).map(|_| AtomicU32::new(0)).collect(),
            next: AtomicUsize::new(0),
        }
    }
}

impl Latest {
    fn note(&self, took: Duration) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % KEPT;
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        if let Some(slot) = self.micros.get(place) {
            slot.store(micros, Ordering::Relaxed);
        }
    }

    /// Quantiles in milliseconds; `None` before the first recommendation.
    fn quantiles<const N: usize>(&self, wanted: [f64; N]) -> [Option<f64>; N] {
        let noted = self.micros.iter().map(|slot| slot.load(Ordering::Relaxed));
        let mut noted: Vec<u32> = noted.filter(|&micros| micros != 0).collect();
        noted.sort_unstable();
        wanted.map(|quantile| {
            let place = (quantile * noted.len() as f64).ceil() as usize;
            noted
                .get(place.saturating_sub(1))
                .map(|&micros| f64::from(micros) / 1e3)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_noted() {
        let latest = Latest::default();
        assert_eq!(latest.quantiles([0.5]), [None]);
        for millis in 1..=100 {
            latest.note(Duration::from_millis(millis));
        }
        assert_eq!(latest.quantiles([0.5, 0.99]), [Some(50.0), Some(99.0)]);
    }
}
