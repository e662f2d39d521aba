//! Progress of long steps, on standard error.

use chrono::DateTime;
use std::borrow::Cow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A progress line of a step. At the end it is replaced by a line with the step's duration.
pub struct Step {
    bar: ProgressBar,
    name: String,
    start: Instant,
}

impl Step {
    /// Starts a step of unknown length.
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = ProgressBar::new_spinner().with_message(name.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar,
            name,
            start: Instant::now(),
        }
    }

    /// Starts a step of `length` units.
    pub fn counted(name: impl Into<String>, length: u64) -> Self {
        let name = name.into();
        let bar = ProgressBar::new(length).with_message(name.clone());
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        Self {
            bar,
            name,
            start: Instant::now(),
        }
    }

    /// Sets the number of completed units.
    pub fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Sets the number of completed units and the total.
    pub fn of(&self, position: u64, length: u64) {
        self.bar.set_length(length);
        self.bar.set_position(position);
    }

    /// Sets the description of the current work.
    pub fn say(&self, what: impl Into<Cow<'static, str>>) {
        self.bar.set_message(what);
    }

    /// Ends the step with a line such as `✓ users encoded: 943 rows (0.2 s)`.
    pub fn done(self, result: &str) {
        self.bar.finish_and_clear();
        eprintln!(
            "✓ {}: {result} ({:.1} s)",
            self.name,
            self.start.elapsed().as_secs_f64()
        );
    }
}

/// A Unix second as a readable date.
pub fn time(seconds: i32) -> String {
    DateTime::from_timestamp(i64::from(seconds), 0)
        .map(|time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default()
}
