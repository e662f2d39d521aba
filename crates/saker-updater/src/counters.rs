//! Counts of the updater's work, as Prometheus metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the histogram's buckets, in milliseconds.
pub const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 500, 1000, 10_000];

/// Counts since the start, and gauges as of the last poll.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events applied.
    pub applied: AtomicU64,
    /// Rejected entries: they could not be applied.
    pub rejected: AtomicU64,
    /// Single changes that the server refused after their event was acknowledged.
    pub refused: AtomicU64,
    /// Entries taken over from another worker.
    pub claimed: AtomicU64,
    /// Batches of one user that were computed again because another writer was faster.
    pub repeated: AtomicU64,
    /// Failures of the store.
    pub failures: AtomicU64,
    /// Rows written to the offline store.
    pub offline_rows: AtomicU64,
    /// Entries in the stream, including applied ones that are not trimmed yet.
    pub backlog: AtomicU64,
    /// Number of events by milliseconds from the entry's time to its application; the last bucket has no upper bound.
    latency: [AtomicU64; BOUNDS_MS.len() + 1],
    latency_ms: AtomicU64,
}

impl Counters {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Records the time from an event's arrival to its application.
    pub fn observe(&self, milliseconds: u64) {
        let class = BOUNDS_MS.partition_point(|&bound| bound < milliseconds);
        if let Some(latency) = self.latency.get(class) {
            latency.fetch_add(1, Ordering::Relaxed);
        }
        self.latency_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// All metrics, in Prometheus' text format.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
            text.push_str(&format!(
                "# HELP saker_updater_{name} {help}\n# TYPE saker_updater_{name} {kind}\nsaker_updater_{name} {value}\n"
            ));
        };
        for (name, help, counter) in [
            ("events_applied_total", "Events applied.", &self.applied),
            (
                "events_rejected_total",
                "Entries that could not be applied, and were put aside.",
                &self.rejected,
            ),
            (
                "changes_refused_total",
                "Single changes that the store refused after their event was acknowledged.",
                &self.refused,
            ),
            (
                "events_claimed_total",
                "Entries taken over from another worker.",
                &self.claimed,
            ),
            (
                "repeats_total",
                "Batches computed again after another writer's change.",
                &self.repeated,
            ),
            (
                "store_failures_total",
                "Times that the store failed.",
                &self.failures,
            ),
            (
                "offline_rows_total",
                "Rows written to the offline store.",
                &self.offline_rows,
            ),
        ] {
            metric(name, "counter", help, read(counter));
        }
        metric(
            "backlog",
            "gauge",
            "Entries in the stream.",
            read(&self.backlog),
        );
        let name = "saker_updater_apply_seconds";
        text.push_str(&format!(
            "# HELP {name} From the event's arrival in the stream to its application.\n# TYPE {name} histogram\n"
        ));
        let mut count = 0;
        for (place, class) in self.latency.iter().enumerate() {
            count += read(class);
            let bound = BOUNDS_MS.get(place);
            let bound = bound.map_or("+Inf".to_owned(), |&bound| (bound as f64 / 1e3).to_string());
            text.push_str(&format!("{name}_bucket{{le=\"{bound}\"}} {count}\n"));
        }
        let sum = read(&self.latency_ms) as f64 / 1e3;
        text.push_str(&format!("{name}_sum {sum}\n{name}_count {count}\n"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_add_up() {
        let counters = Counters::default();
        [0, 1, 3, 20_000]
            .into_iter()
            .for_each(|ms| counters.observe(ms));
        let text = counters.prometheus();
        for line in [
            "saker_updater_apply_seconds_bucket{le=\"0.001\"} 2",
            "saker_updater_apply_seconds_bucket{le=\"0.005\"} 3",
            "saker_updater_apply_seconds_bucket{le=\"+Inf\"} 4",
            "saker_updater_apply_seconds_sum 20.004",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
