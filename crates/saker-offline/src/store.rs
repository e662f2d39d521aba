use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use arrow::array::RecordBatch;
use bytes::Bytes;
use chrono::NaiveDate;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tokio::runtime::Runtime;

use crate::{Error, location, partition};

/// Features as they were, by view and day.
pub struct OfflineStore {
    storage: Box<dyn ObjectStore>,
    root: Path,
    // The storage's client is asynchronous; what is done here is not.
    runtime: Runtime,
}

/// What [`OfflineStore::append`] wrote for one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The day of the rows' event times, UTC.
    pub day: NaiveDate,
    /// The file, below the store's root.
    pub path: String,
    /// Its rows.
    pub rows: usize,
}

impl OfflineStore {
    /// Opens the store in a folder (made where there is none), or in a bucket: `s3://bucket/prefix`, with region and
    /// credentials from the environment's `AWS_…` variables.
    ///
    /// # Errors
    /// [`Error::Location`]. Whether a bucket answers shows at the first use.
    pub fn open(location: &str) -> Result<Self, Error> {
        Self::open_with(location, std::env::vars())
    }

    /// [`open`](Self::open) with these settings in place of the environment's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        location: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let (storage, root) = location::open(location, settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            storage,
            root,
            runtime,
        })
    }

    /// Writes rows of a view, a file for each day of their [`EVENT_TIMESTAMP`](crate::EVENT_TIMESTAMP)s, called `name`.
    /// Files of that name are replaced, others stay. No row writes nothing.
    ///
    /// # Errors
    /// An invalid name, rows without an event time, and what the storage says. A day's file is there whole or not at
    /// all; of several days some may be written when another fails, and are replaced when the same is appended again.
    pub fn append(
        &self,
        view: &str,
        name: &str,
        rows: &RecordBatch,
    ) -> Result<Vec<Appended>, Error> {
        self.write(view, name, rows, PutMode::Overwrite)
    }

    /// As [`append`](Self::append), but a file of that name is left as it is: [`Error::Exists`]. Of two writers that come to the
    /// same name, one succeeds.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_new(
        &self,
        view: &str,
        name: &str,
        rows: &RecordBatch,
    ) -> Result<Vec<Appended>, Error> {
        self.write(view, name, rows, PutMode::Create)
    }

    fn write(
        &self,
        view: &str,
        name: &str,
        rows: &RecordBatch,
        mode: PutMode,
    ) -> Result<Vec<Appended>, Error> {
        let folder = self.view(view)?;
        check_name(name)?;
        let days = partition::by_day(rows).map_err(|reason| Error::Rows {
            view: view.to_owned(),
            reason,
        })?;
        days.into_iter()
            .map(|(day, rows)| {
                let path = folder
                    .clone()
                    .join(partition::folder(day))
                    .join(format!("{name}.parquet"));
                let bytes = encode(&rows).map_err(|source| Error::Parquet {
                    path: path.to_string(),
                    source,
                })?;
                let (payload, options) = (
                    PutPayload::from_bytes(bytes),
                    PutOptions::from(mode.clone()),
                );
                self.runtime
                    .block_on(self.storage.put_opts(&path, payload, options))
                    .map_err(|source| match source {
                        object_store::Error::AlreadyExists { path, .. } => Error::Exists(path),
                        source => storage(&path, source),
                    })?;
                Ok(Appended {
                    day,
                    path: path.to_string(),
                    rows: rows.num_rows(),
                })
            })
            .collect()
    }

    /// Removes the files of a view whose names begin with `prefix`, so that a writer can write a whole set of them anew.
    ///
    /// # Errors
    /// An invalid name, and what the storage says.
    pub fn remove(&self, view: &str, prefix: &str) -> Result<(), Error> {
        let folder = self.view(view)?;
        check_name(prefix)?;
        for path in self.files(&folder)? {
            if path.filename().is_some_and(|name| name.starts_with(prefix)) {
                self.runtime
                    .block_on(self.storage.delete(&path))
                    .map_err(|source| storage(&path, source))?;
            }
        }
        Ok(())
    }

    /// The names of a view's files of one day (without `.parquet`), in order.
    ///
    /// # Errors
    /// What the storage says.
    pub fn names(&self, view: &str, day: NaiveDate) -> Result<Vec<String>, Error> {
        let folder = self.view(view)?.join(partition::folder(day));
        let paths = self.files(&folder)?;
        let name = |path: &Path| Some(path.filename()?.strip_suffix(".parquet")?.to_owned());
        Ok(paths.iter().filter_map(name).collect())
    }

    /// The days of which a view has rows, in order; none for a view that nobody has written.
    ///
    /// # Errors
    /// What the storage says.
    pub fn days(&self, view: &str) -> Result<Vec<NaiveDate>, Error> {
        let folder = self.view(view)?;
        let listed = self
            .runtime
            .block_on(self.storage.list_with_delimiter(Some(&folder)))
            .map_err(|source| storage(&folder, source))?;
        let days: BTreeSet<NaiveDate> = listed
            .common_prefixes
            .iter()
            .filter_map(|folder| partition::day(folder.filename()?))
            .collect();
        Ok(days.into_iter().collect())
    }

    /// Reads a view's rows of these days, file by file, in the order of days and names, and hands each batch to `found`.
    ///
    /// # Errors
    /// What the storage or a file's reader says, and the errors of `found`.
    pub fn read<E: From<Error>>(
        &self,
        view: &str,
        days: RangeInclusive<NaiveDate>,
        found: impl FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read_files(view, days, |_| true, found)
    }

    /// As [`read`](Self::read), of the files alone whose names (with `.parquet`) are `wanted`: those of one writer.
    ///
    /// # Errors
    /// As [`read`](Self::read).
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
                let bytes = self
                    .runtime
                    .block_on(async { self.storage.get(&path).await?.bytes().await })
                    .map_err(|source| storage(&path, source))?;
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

    fn files(&self, folder: &Path) -> Result<Vec<Path>, Error> {
        let listed = self.storage.list(Some(folder)).map_ok(|meta| meta.location);
        let mut paths: Vec<Path> = self
            .runtime
            .block_on(listed.try_collect())
            .map_err(|source| storage(folder, source))?;
        paths.retain(|path| path.extension() == Some("parquet"));
        paths.sort();
        Ok(paths)
    }

    fn view(&self, view: &str) -> Result<Path, Error> {
        check_name(view)?;
        Ok(self.root.clone().join(view))
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

fn check_name(name: &str) -> Result<(), Error> {
    let fits = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if fits && !name.is_empty() && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::Name(name.to_owned()))
}

fn storage(path: &Path, source: object_store::Error) -> Error {
    Error::Storage {
        path: path.to_string(),
        source,
    }
}
