//! Writes to Triton's log.
//!
//! ```no_run
//! # let (rows, name) = (3, "x");
//! triton_backend::log::info!("loaded {rows} rows of {name}");
//! ```

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use triton_rs_sys as sys;

use crate::ffi::c_string;

pub use crate::{log_error as error, log_info as info, log_verbose as verbose, log_warn as warn};

/// Severity of a log line; an operator turns levels off on the server's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Shown with `--log-verbose`.
    Verbose,
    /// Normal operation.
    Info,
    /// Degraded operation that an operator should know about.
    Warn,
    /// A failure.
    Error,
}

impl Level {
    fn to_raw(self) -> sys::TRITONSERVER_LogLevel {
        match self {
            Level::Verbose => sys::TRITONSERVER_LOG_VERBOSE,
            Level::Info => sys::TRITONSERVER_LOG_INFO,
            Level::Warn => sys::TRITONSERVER_LOG_WARN,
            Level::Error => sys::TRITONSERVER_LOG_ERROR,
        }
    }
}

/// Whether the server logs lines of this level.
pub fn enabled(level: Level) -> bool {
    // SAFETY: no arguments but a plain integer.
    unsafe { sys::TRITONSERVER_LogIsEnabled(level.to_raw()) }
}

/// Writes one line; the macros of this module call it.
pub fn write(level: Level, file: &CStr, line: u32, message: &str) {
    let message = c_string(message);
    // SAFETY: both strings are NUL-terminated; Triton copies what it keeps.
    let error = unsafe {
        sys::TRITONSERVER_LogMessage(
            level.to_raw(),
            file.as_ptr(),
            line as c_int,
            message.as_ptr(),
        )
    };
    if !error.is_null() {
        // SAFETY: an error that we own. A failed log line cannot be reported anywhere else.
        unsafe { sys::TRITONSERVER_ErrorDelete(error) };
    }
}

/// Writes one line to Triton's log, formatted as by `format!`. The line is not formatted if the level is off.
#[doc(hidden)]
#[macro_export]
macro_rules! log_line {
    ($level:expr, $($argument:tt)+) => {
        if $crate::log::enabled($level) {
            const FILE: &str = concat!(file!(), "\0");
            const NAME: &std::ffi::CStr = match std::ffi::CStr::from_bytes_with_nul(FILE.as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            };
            $crate::log::write($level, NAME, line!(), &format!($($argument)+));
        }
    };
}

/// Writes a verbose line to Triton's log.
#[macro_export]
macro_rules! log_verbose { ($($a:tt)+) => { $crate::log_line!($crate::log::Level::Verbose, $($a)+) }; }
/// Writes an info line to Triton's log.
#[macro_export]
macro_rules! log_info { ($($a:tt)+) => { $crate::log_line!($crate::log::Level::Info, $($a)+) }; }
/// Writes a warning to Triton's log.
#[macro_export]
macro_rules! log_warn { ($($a:tt)+) => { $crate::log_line!($crate::log::Level::Warn, $($a)+) }; }
/// Writes an error line to Triton's log.
#[macro_export]
macro_rules! log_error { ($($a:tt)+) => { $crate::log_line!($crate::log::Level::Error, $($a)+) }; }

/// Limits a log line to one per minute, for failures that occur on every request.
///
/// ```no_run
/// use triton_backend::{log, log::EveryMinute};
///
/// static STORE_DOWN: EveryMinute = EveryMinute::new();
/// if let Some(suppressed) = STORE_DOWN.due() {
///     log::warn!("the store is down, serving defaults ({suppressed} more such requests since the last line)");
/// }
/// ```
#[derive(Debug, Default)]
pub struct EveryMinute {
    /// Time at which the next line is due, in milliseconds of the process clock.
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl EveryMinute {
    const PERIOD: Duration = Duration::from_secs(60);

    /// The first line is due immediately.
    pub const fn new() -> Self {
        Self {
            next_ms: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Returns `Some` if a line is due, with the number of suppressed lines since the last one.
    pub fn due(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        self.due_at(START.get_or_init(Instant::now).elapsed())
    }

    fn due_at(&self, now: Duration) -> Option<u64> {
        let now_ms = now.as_millis() as u64;
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let after = now_ms + Self::PERIOD.as_millis() as u64;
        // Of several threads that see the due time, the one that changes it writes the line.
        let due = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(next_ms, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if due {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_with_the_count_of_the_others() {
        let limit = EveryMinute::new();
        let at = |s| limit.due_at(Duration::from_secs(s));
        assert_eq!(at(0), Some(0));
        assert_eq!(at(1), None);
        assert_eq!(at(59), None);
        assert_eq!(at(60), Some(2));
        assert_eq!(at(61), None);
        assert_eq!(at(500), Some(1));
    }
}
