//! Skipping a step whose inputs have not changed since it last succeeded.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::assemble::files::hex;
use crate::files;
use crate::layout::Layout;

/// A hash over all that a step reads: files, tables of the definition, and the version of `saker`.
pub struct Fingerprint {
    hash: Sha256,
}

impl Default for Fingerprint {
    fn default() -> Self {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        Self { hash }
    }
}

impl Fingerprint {
    /// Adds a table of the definition.
    ///
    /// # Errors
    /// Never for a definition; the value has no JSON otherwise.
    pub fn value(mut self, value: &impl Serialize) -> Result<Self> {
        self.hash
            .update(serde_json::to_vec(value).context("a definition as JSON")?);
        self.hash.update([0]);
        Ok(self)
    }

    /// Adds a file's content; of a folder, its files' names and contents.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        self.add(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            let mut entries = fs::read_dir(path)?
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()?;
            entries.sort();
            return entries.iter().try_for_each(|entry| {
                let name = entry.file_name().unwrap_or_default();
                self.hash.update(name.as_encoded_bytes());
                self.hash.update([0]);
                self.add(entry)
            });
        }
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                length => self.hash.update(&buffer[..length]),
            }
        }
        self.hash.update([0]);
        Ok(())
    }

    /// The hash, as hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// Whether `step` last succeeded on the same inputs and all it made is still there.
pub fn is_current(layout: &Layout, step: &str, fingerprint: &str, made: &[&Path]) -> bool {
    let recorded = fs::read_to_string(layout.stamp(step)).ok();
    let recorded = recorded.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    recorded.is_some_and(|stamp| stamp["fingerprint"] == fingerprint)
        && made.iter().all(|path| path.exists())
}

/// Forgets that `step` has ever succeeded: what it made was replaced.
///
/// # Errors
/// The disk does not let it.
pub fn forget(layout: &Layout, step: &str) -> Result<()> {
    files::remove(&layout.stamp(step))
}

/// Notes that `step` has succeeded on these inputs.
///
/// # Errors
/// The disk does not take it.
pub fn record(layout: &Layout, step: &str, fingerprint: &str) -> Result<()> {
    let path = layout.stamp(step);
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(
            &path,
            format!(
                "{:#}\n",
                serde_json::json!({ "step": step, "fingerprint": fingerprint })
            ),
        )
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
