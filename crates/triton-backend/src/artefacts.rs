//! The artefacts of a version are the ones that its release names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};

use sha2::{Digest, Sha256};

use crate::{Error, log};

/// Files up to this size are compared before the model loads, larger ones while it serves. A gigabyte took 1.3 to 1.8 s on an AMD
/// EPYC with SHA instructions.
const AT_LOAD: u64 = 1 << 30;
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
    /// Compares `files`, SHA-256 by path in `folder`, up to [`AT_LOAD`] bytes each; starts to compare larger ones.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or is not the one that the release was assembled with.
    pub(crate) fn check(
        model: &str,
        folder: &Path,
        files: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut later: Vec<(PathBuf, String)> = Vec::new();
        let shared = Arc::new(Shared::default());
        for (file, expected) in files {
            let path = folder.join(file);
            let size = path.metadata().map_err(|error| unreadable(&path, &error))?;
            if size.len() > AT_LOAD {
                later.push((path, expected.clone()));
            } else {
                compare(&path, expected, &shared.stop)?;
            }
        }
        if later.is_empty() {
            return Ok(Self::default());
        }
        let (model, seen) = (model.to_owned(), Arc::clone(&shared));
        let background = Builder::new().name("artefacts".to_owned()).spawn(move || {
            for (path, expected) in &later {
                if let Err(error) = compare(path, expected, &seen.stop) {
                    log::error!("model '{model}' answers no more: {error}");
                    let _ = seen.damaged.set(error);
                    return;
                }
            }
        });
        let background = background.map_err(|error| {
            Error::unavailable(format!(
                "no thread to compare large artefacts with: {error}"
            ))
        })?;
        Ok(Self {
            shared,
            background: Some(background),
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

/// Reads the file to its end, or until it is told to stop.
fn compare(path: &Path, expected: &str, stop: &AtomicBool) -> Result<(), Error> {
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
            if found == expected {
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
