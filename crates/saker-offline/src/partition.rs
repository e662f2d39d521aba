//! Rows by the day of their event time.

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDate};

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

/// The rows of each day, in the order of the days; within a day in their own order.
///
/// # Errors
/// What is wrong with the event times.
pub(crate) fn by_day(rows: &RecordBatch) -> Result<Vec<(NaiveDate, RecordBatch)>, String> {
    let times = rows
        .column_by_name(EVENT_TIMESTAMP)
        .ok_or_else(|| format!("there is no column '{EVENT_TIMESTAMP}'"))?;
    if !matches!(times.data_type(), DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if **zone == *"UTC")
    {
        return Err(format!(
            "column '{EVENT_TIMESTAMP}' is {}; accepted: Timestamp(Microsecond, UTC)",
            times.data_type()
        ));
    }
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut days: std::collections::BTreeMap<NaiveDate, Vec<u32>> = Default::default();
    for row in 0..rows.num_rows() {
        let time = (!times.is_null(row)).then(|| times.value(row));
        let day = time
            .and_then(DateTime::from_timestamp_micros)
            .map(|time| time.date_naive())
            .ok_or_else(|| {
                format!(
                    "row {row} has the {EVENT_TIMESTAMP} {}; accepted: a time",
                    time.map_or("null".to_owned(), |time| time.to_string())
                )
            })?;
        let row = u32::try_from(row).map_err(|_| "more than 4,294,967,295 rows".to_owned())?;
        days.entry(day).or_default().push(row);
    }
    days.into_iter()
        .map(|(day, picked)| {
            let rows = take_record_batch(rows, &UInt32Array::from(picked))
                .map_err(|error| error.to_string())?;
            Ok((day, rows))
        })
        .collect()
}
