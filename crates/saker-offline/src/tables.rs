//! The store's rows as Arrow's tables.

use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use chrono::{DateTime, NaiveDate};
use object_store::PutMode;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::store::{OfflineStore, check_name};
use crate::{EVENT_TIMESTAMP, Error, partition};

/// The file that [`OfflineStore::append`] wrote for one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The day of the rows' event times, UTC.
    pub day: NaiveDate,
    /// The file, below the store's root.
    pub path: String,
    /// Number of its rows.
    pub rows: usize,
}

impl OfflineStore {
    /// Writes rows of a view: a file named `name` for each day of their [`EVENT_TIMESTAMP`](crate::EVENT_TIMESTAMP)s.
    /// Replaces files of that name and keeps all others. Without rows it writes nothing.
    ///
    /// # Errors
    /// Returns an error if the name is invalid, if a row has no event time, or if the storage fails. A file is visible only when it is
    /// complete. If one day fails, files of other days may exist; the next call with the same name replaces them.
    pub fn append(
        &self,
        view: &str,
        name: &str,
        rows: &RecordBatch,
    ) -> Result<Vec<Appended>, Error> {
        let folder = self.view(view)?;
        check_name(name)?;
        let days = by_day(rows).map_err(|reason| Error::Rows {
            view: view.to_owned(),
            reason,
        })?;
        days.into_iter()
            .map(|(day, rows)| {
                let bytes = encode(&rows).map_err(|source| Error::Parquet {
                    path: format!("{view}/{}/{name}.parquet", partition::folder(day)),
                    source,
                })?;
                let path = self.put(&folder, day, name, bytes, PutMode::Overwrite)?;
                Ok(Appended {
                    day,
                    path: path.to_string(),
                    rows: rows.num_rows(),
                })
            })
            .collect()
    }

    /// Reads a view's rows of these days, file by file, in the order of days and names. Calls `found` with each batch.
    ///
    /// # Errors
    /// Returns the errors of the storage, of a file's reader, and of `found`.
    pub fn read<E: From<Error>>(
        &self,
        view: &str,
        days: RangeInclusive<NaiveDate>,
        found: impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read_files(view, days, |_| true, found)
    }

    /// Like [`read`](Self::read), but only files whose names (with `.parquet`) are `wanted`, such as those of one writer.
    ///
    /// # Errors
    /// Returns an error as [`read`](Self::read) does.
    pub fn read_files<E: From<Error>>(
        &self,
        view: &str,
        days: RangeInclusive<NaiveDate>,
        wanted: impl Fn(&str) -> bool,
        mut found: impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let folder = self.view(view)?;
        for day in self.days(view)? {
            if !days.contains(&day) {
                continue;
            }
            for path in self.files(&folder.clone().join(partition::folder(day)))? {
                if !path.filename().is_some_and(&wanted) {
                    continue;
                }
                let bytes = self.bytes(&path)?;
                let broken = |source| Error::Parquet {
                    path: path.to_string(),
                    source,
                };
                let batches = ParquetRecordBatchReaderBuilder::try_new(bytes)
                    .and_then(|builder| builder.build())
                    .map_err(broken)?;
                for batch in batches {
                    found(batch.map_err(|error| broken(error.into()))?)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(rows: &RecordBatch) -> Result<Bytes, parquet::errors::ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    Ok(writer.into_inner()?.into())
}

/// The rows of each day, in the order of the days. Within a day, rows keep their order.
///
/// # Errors
/// Returns a message if the column of event times is missing, has another type or has an invalid value.
fn by_day(rows: &RecordBatch) -> Result<Vec<(NaiveDate, RecordBatch)>, String> {
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
