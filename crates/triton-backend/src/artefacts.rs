//! Checks that the files of a version are the artefacts that its release names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle, available_parallelism};

use sha2::{Digest, Sha256};

use crate::{Error, log};

/// The smallest files, up to this number of bytes in total, are checked before the model loads; the others are checked while it serves. A
/// core of an AMD EPYC with SHA instructions takes 1.3 to 1.8 s per gigabyte.
const AT_LOAD: u64 = 1 << 30;
/// Maximum size of a file that is checked before the model loads. A single file cannot be split between threads.
const LARGE: u64 = AT_LOAD / 2;
/// Maximum number of threads that check files before the model loads.
const THREADS: usize = 4;
/// Number of bytes per read.
const BLOCK: usize = 1 << 20;

/// State of the check of a version's artefacts. Dropping it ends the check in the background.
#[derive(Debug, Default)]
pub(crate) struct Artefacts {
    shared: Arc<Shared>,
    background: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    damaged: OnceLock<Error>,
    stop: AtomicBool,
}

impl Artefacts {
    /// Checks `files` (SHA-256 by path) in `folder`. The smallest are checked at once, at most [`AT_LOAD`] bytes; the check of the others
    /// starts in the background.
    ///
    /// # Errors
    /// Returns an error if a file is missing, unreadable, or differs from the file with which the release was assembled.
    pub(crate) fn check(
        model: &str,
        folder: &Path,
        files: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut sized = Vec::with_capacity(files.len());
        for (file, sha256) in files {
            let path = folder.join(file);
            let data = path.metadata().map_err(|error| unreadable(&path, &error))?;
            let sha256 = sha256.clone();
            sized.push((data.len(), Artefact { path, sha256 }));
        }
        sized.sort_by_key(|(bytes, _)| *bytes);
        let mut before = 0;
        let at_load = sized.partition_point(|(bytes, _)| {
            before += bytes;
            *bytes <= LARGE && before <= AT_LOAD
        });
        let later = sized.split_off(at_load);
        let shared = Arc::new(Shared::default());
        compare_all(&sized, &shared.stop)?;
        if later.is_empty() {
            return Ok(Self::default());
        }
        let (model, seen) = (model.to_owned(), Arc::clone(&shared));
        let background = Builder::new().name("artefacts".to_owned()).spawn(move || {
            for (_, artefact) in &later {
                if let Err(error) = artefact.compare(&seen.stop) {
                    log::error!("model '{model}' refuses all further requests: {error}");
                    let _ = seen.damaged.set(error);
                    return;
                }
            }
        });
        Ok(Self {
            shared,
            background: Some(background.map_err(|error| no_thread(&error))?),
        })
    }

    /// Checks that the model may answer.
    ///
    /// # Errors
    /// Returns an error if the check in the background has found a damaged file.
    pub(crate) fn intact(&self) -> Result<(), Error> {
        match self.shared.damaged.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl Drop for Artefacts {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // The library may be unloaded after its last model: none of its threads may run then.
        if let Some(background) = self.background.take() {
            let _ = background.join();
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let what = match error.kind() {
        ErrorKind::NotFound => "is missing; release.json names it".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    Error::unavailable(format!("{} {what}", path.display()))
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::unavailable(format!("no thread to compare artefacts with: {error}"))
}

/// Checks files on as many threads as there are cores, at most [`THREADS`].
fn compare_all(files: &[(u64, Artefact)], stop: &AtomicBool) -> Result<(), Error> {
    let cores = available_parallelism().map_or(1, usize::from);
    let (next, first) = (AtomicUsize::new(0), OnceLock::new());
    let work = || {
        while let Some((_, artefact)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = artefact.compare(stop) {
                stop.store(true, Ordering::Relaxed);
                let _ = first.set(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..cores.min(THREADS).min(files.len()) {
            let spawned = Builder::new().spawn_scoped(scope, work);
            spawned.map_err(|error| no_thread(&error))?;
        }
        work();
        Ok(())
    })?;
    first.into_inner().map_or(Ok(()), Err)
}

/// A file of a version, and its expected SHA-256.
struct Artefact {
    path: PathBuf,
    sha256: String,
}

impl Artefact {
    /// Reads the file to its end, or until `stop` is set.
    fn compare(&self, stop: &AtomicBool) -> Result<(), Error> {
        let (path, expected) = (&self.path, &self.sha256);
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let (mut hash, mut block) = (Sha256::new(), vec![0; BLOCK]);
        while !stop.load(Ordering::Relaxed) {
            let read = match file.read(&mut block) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(path, &error)),
            };
            let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else {
                let mut found = String::new();
                for byte in hash.finalize() {
                    let _ = write!(found, "{byte:02x}");
                }
                if found == *expected {
                    return Ok(());
                }
                return Err(Error::unavailable(format!(
                    "{} is damaged: its SHA-256 is {found}, but release.json has {expected}; assemble or promote the release again",
                    path.display()
                )));
            };
            hash.update(bytes);
        }
        Ok(())
    }
}
