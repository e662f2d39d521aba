use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::NaiveDate;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::runtime::Runtime;

use crate::{Error, location, partition};

/// The history of features, by view and day.
pub struct OfflineStore {
    storage: Box<dyn ObjectStore>,
    root: Path,
    // The storage's client is asynchronous; this crate's functions block.
    runtime: Runtime,
}

impl OfflineStore {
    /// Opens the store in a folder, which is created if it is missing, or in a bucket: `s3://bucket/prefix`, with region and
    /// credentials from the environment's `AWS_…` variables.
    ///
    /// # Errors
    /// Returns [`Error::Location`]. A bucket is contacted only at the first read or write.
    pub fn open(location: &str) -> Result<Self, Error> {
        Self::open_with(location, std::env::vars())
    }

    /// Like [`open`](Self::open), with these settings instead of the environment's.
    ///
    /// # Errors
    /// Returns an error as [`open`](Self::open) does.
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

    /// Writes a Parquet file of one day's rows. If two writers use the same name, one of them succeeds.
    ///
    /// # Errors
    /// Returns [`Error::Exists`] if a file of that name exists, and an error if a name is invalid or the storage fails.
    pub fn put_new(
        &self,
        view: &str,
        day: NaiveDate,
        name: &str,
        file: Bytes,
    ) -> Result<(), Error> {
        let folder = self.view(view)?;
        check_name(name)?;
        self.put(&folder, day, name, file, PutMode::Create)
            .map(|_| ())
    }

    /// Reads the file of one day's rows with this name (without `.parquet`).
    ///
    /// # Errors
    /// Returns an error if a name is invalid, the file is missing, or the storage fails.
    pub fn get(&self, view: &str, day: NaiveDate, name: &str) -> Result<Bytes, Error> {
        let folder = self.view(view)?;
        check_name(name)?;
        self.bytes(&file(&folder, day, name))
    }

    /// Writes a file. Returns its path below the root.
    pub(crate) fn put(
        &self,
        folder: &Path,
        day: NaiveDate,
        name: &str,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<Path, Error> {
        let path = file(folder, day, name);
        let (payload, options) = (PutPayload::from_bytes(bytes), PutOptions::from(mode));
        self.runtime
            .block_on(self.storage.put_opts(&path, payload, options))
            .map_err(|source| match source {
                object_store::Error::AlreadyExists { path, .. } => Error::Exists(path),
                source => storage(&path, source),
            })?;
        Ok(path)
    }

    pub(crate) fn bytes(&self, path: &Path) -> Result<Bytes, Error> {
        self.runtime
            .block_on(async { self.storage.get(path).await?.bytes().await })
            .map_err(|source| storage(path, source))
    }

    /// Removes the files of a view whose names begin with `prefix`. A writer calls it before it writes the whole set again.
    ///
    /// # Errors
    /// Returns an error if a name is invalid or the storage fails.
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
    /// Returns an error if the storage fails.
    pub fn names(&self, view: &str, day: NaiveDate) -> Result<Vec<String>, Error> {
        let folder = self.view(view)?.join(partition::folder(day));
        let paths = self.files(&folder)?;
        let name = |path: &Path| Some(path.filename()?.strip_suffix(".parquet")?.to_owned());
        Ok(paths.iter().filter_map(name).collect())
    }

    /// The days for which a view has rows, in order; empty for a view without files.
    ///
    /// # Errors
    /// Returns an error if the storage fails.
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

    pub(crate) fn files(&self, folder: &Path) -> Result<Vec<Path>, Error> {
        let listed = self.storage.list(Some(folder)).map_ok(|meta| meta.location);
        let mut paths: Vec<Path> = self
            .runtime
            .block_on(listed.try_collect())
            .map_err(|source| storage(folder, source))?;
        paths.retain(|path| path.extension() == Some("parquet"));
        paths.sort();
        Ok(paths)
    }

    pub(crate) fn view(&self, view: &str) -> Result<Path, Error> {
        check_name(view)?;
        Ok(self.root.clone().join(view))
    }
}

fn file(folder: &Path, day: NaiveDate, name: &str) -> Path {
    let folder = folder.clone().join(partition::folder(day));
    folder.join(format!("{name}.parquet"))
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
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
