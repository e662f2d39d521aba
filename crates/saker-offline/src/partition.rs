//! Rows by the day of their event time.

use chrono::NaiveDate;

/// The view of the events.
pub const EVENTS: &str = "events";

/// The column that says when a row's features came to be: Timestamp in microseconds, UTC.
pub const EVENT_TIMESTAMP: &str = "event_timestamp";

/// The folder of a day's rows.
pub(crate) fn folder(day: NaiveDate) -> String {
    format!("event_date={day}")
}

/// The day that a folder is for.
pub(crate) fn day(folder: &str) -> Option<NaiveDate> {
    folder.strip_prefix("event_date=")?.parse().ok()
}
