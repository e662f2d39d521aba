//! Waiting for what comes later.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

/// Looks again and again until what it finds is as wished, for 20 seconds at most.
pub(crate) fn until<T: Debug>(mut look: impl FnMut() -> T, wished: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let found = look();
        if wished(&found) {
            return found;
        }
        assert!(Instant::now() < end, "stays {found:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something is so, for a minute at most; `what` says what is not.
pub(crate) fn until_so(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
