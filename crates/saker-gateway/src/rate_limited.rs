//! Log messages at a limited rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Limits a message to one per second, because one failure under load can affect a thousand requests.
pub(crate) struct RateLimited {
    start: Instant,
    next_ms: AtomicU64,
}

impl Default for RateLimited {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            next_ms: AtomicU64::new(0),
        }
    }
}

impl RateLimited {
    pub(crate) fn say(&self, what: impl FnOnce()) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next_ms.load(Ordering::Relaxed);
        let won = now >= next
            && self
                .next_ms
                .compare_exchange(next, now + 1000, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if won {
            what();
        }
    }
}
