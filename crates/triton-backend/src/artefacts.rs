//! The artefacts of a version are the ones that its release names.

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

/// The smallest files, up to so many bytes in all, are compared before the model loads; the others while it serves. A core of an AMD
/// EPYC with SHA instructions takes 1.3 to 1.8 s for a gigabyte.
const AT_LOAD: u64 = 1 << 30;
/// The largest file that is compared before the model loads: no thread can share it with another.
const LARGE: u64 = AT_LOAD / 2;
/// How many threads compare files before the model loads.
const THREADS: usize = 4;
/// How much is read at once.
const BLOCK: usize = 1 << 20;

/// What is known of a version's artefacts. The comparison in the background ends with this.
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
    /// Compares `files`, SHA-256 by path in `folder`: the smallest at once, [`AT_LOAD`] bytes at most; starts to compare the others.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or is not the one that the release was assembled with.
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
                    log::error!("model '{model}' answers no more: {error}");
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

    /// Whether the model may answer.
    ///
    /// # Errors
    /// The comparison in the background has found a damaged file.
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
        // The library may be unloaded after its last model: no thread of it may run then.
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

/// Compares files on as many threads as there are cores, [`THREADS`] at most.
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

/// A file of a version, and what it must be.
struct Artefact {
    path: PathBuf,
    sha256: String,
}

impl Artefact {
    /// Reads the file to its end, or until it is told to stop.
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
                    "{} is damaged: its SHA-256 is {found}, release.json says {expected}; assemble or promote the release again",
                    path.display()
                )));
            };
            hash.update(bytes);
        }
        Ok(())
    }
}
