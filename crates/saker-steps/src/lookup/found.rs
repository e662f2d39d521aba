//! Detects that lookups find no entity for a long time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time without any found entity after which a warning is logged.
const PATIENCE: Duration = Duration::from_secs(60);

/// The result of recent lookups.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lately {
    /// An entity was found within the last minute.
    Somebody,
    /// An entity was found after a minute without any.
    SomebodyAgain,
    /// Lookups of a minute or longer found no entity.
    Nobody,
}

/// Shared by all instances of a model, without a lock. Times are milliseconds since `begin`, and are at least 1.
#[derive(Debug)]
pub(super) struct Found {
    begin: Instant,
    /// Time of the first lookup of the current series without a found entity; 0 if the latest lookup found one.
    since_ms: AtomicU64,
    /// Time of the latest lookup of the series.
    last_ms: AtomicU64,
    nobody: AtomicBool,
}

impl Found {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            since_ms: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
            nobody: AtomicBool::new(false),
        }
    }

    /// Records a lookup that the store has answered.
    pub(super) fn note(&self, found: bool) -> Lately {
        if found && self.since_ms.load(Ordering::Relaxed) == 0 {
            return Lately::Somebody;
        }
        self.note_at(found, self.begin.elapsed())
    }

    fn note_at(&self, found: bool, now: Duration) -> Lately {
        let patience = PATIENCE.as_millis() as u64;
        let now = now.as_millis() as u64 + 1;
        if found {
            self.since_ms.store(0, Ordering::Relaxed);
            return match self.nobody.swap(false, Ordering::Relaxed) {
                true => Lately::SomebodyAgain,
                false => Lately::Somebody,
            };
        }
        let last = self.last_ms.swap(now, Ordering::Relaxed);
        let since = self.since_ms.load(Ordering::Relaxed);
        if self.nobody.load(Ordering::Relaxed) {
            return Lately::Nobody;
        }
        // Two unknown users an hour apart do not count as a minute without found entities.
        if since == 0 || now.saturating_sub(last) > patience {
            self.since_ms.store(now, Ordering::Relaxed);
            return Lately::Somebody;
        }
        if now.saturating_sub(since) < patience {
            return Lately::Somebody;
        }
        self.nobody.store(true, Ordering::Relaxed);
        Lately::Nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(found: &Found, somebody: bool, second: u64) -> Lately {
        found.note_at(somebody, Duration::from_secs(second))
    }

    #[test]
    fn a_minute_of_lookups_without_anybody_is_noted_and_its_end_too() {
        let found = Found::new();
        assert_eq!(at(&found, true, 0), Lately::Somebody);
        for second in 1..61 {
            assert_eq!(at(&found, false, second), Lately::Somebody, "{second}");
        }
        assert_eq!(at(&found, false, 61), Lately::Nobody);
        assert_eq!(at(&found, false, 400), Lately::Nobody);
        assert_eq!(at(&found, true, 401), Lately::SomebodyAgain);
        assert_eq!(at(&found, true, 402), Lately::Somebody);
        assert_eq!(at(&found, false, 403), Lately::Somebody);
    }

    #[test]
    fn one_who_is_found_begins_the_minute_anew() {
        let found = Found::new();
        assert_eq!(at(&found, false, 0), Lately::Somebody);
        assert_eq!(at(&found, true, 30), Lately::Somebody);
        for second in 31..91 {
            assert_eq!(at(&found, false, second), Lately::Somebody, "{second}");
        }
        assert_eq!(at(&found, false, 91), Lately::Nobody);
    }

    #[test]
    fn strangers_at_long_intervals_are_no_minute_of_lookups() {
        let found = Found::new();
        for hour in 0..5 {
            assert_eq!(at(&found, false, hour * 3600), Lately::Somebody);
        }
    }
}
