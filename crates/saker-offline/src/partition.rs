//! Rows by the day of their event time.

use chrono::NaiveDate;

/// The view of the events.
pub const EVENTS: &str = "events";

/// The column with the time from which on a row's features are valid: Timestamp in microseconds, UTC.
pub const EVENT_TIMESTAMP: &str = "event_timestamp";

/// The folder of a day's rows.
pub(crate) fn folder(day: NaiveDate) -> String {
    format!("event_date={day}")
}

/// The day of a folder.
pub(crate) fn day(folder: &str) -> Option<NaiveDate> {
    folder.strip_prefix("event_date=")?.parse().ok()
}
