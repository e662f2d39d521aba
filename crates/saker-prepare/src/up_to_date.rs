//! Skips a step whose inputs have not changed since its last success.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use saker_serving::files;
use saker_serving::files::hex;
use saker_serving::layout::Layout;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A hash over all inputs of a step: files, tables of the definition, and the code that does the step.
pub struct Fingerprint {
    hash: Sha256,
}

impl Fingerprint {
    /// The fingerprint of the code alone. `code` is the hash over the sources of the program that does the step. The program's version is
    /// not enough, because it stays the same when the code changes.
    pub fn of_code(code: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(code);
        Self { hash }
    }

    /// Adds a table of the definition.
    ///
    /// # Errors
    /// Returns an error if the value cannot be written as JSON; a definition always can.
    pub fn value(mut self, value: &impl Serialize) -> Result<Self> {
        self.hash
            .update(serde_json::to_vec(value).context("a definition as JSON")?);
        self.hash.update([0]);
        Ok(self)
    }

    /// Adds a file's content, or the names and contents of a folder's files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
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

/// Whether the last success of `step` had the same inputs, and all its outputs still exist.
pub fn is_current(layout: &Layout, step: &str, fingerprint: &str, made: &[&Path]) -> bool {
    let recorded = fs::read_to_string(layout.stamp(step)).ok();
    let recorded = recorded.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    recorded.is_some_and(|stamp| stamp["fingerprint"] == fingerprint)
        && made.iter().all(|path| path.exists())
}

/// Does a step's work without a record of an earlier success, and records this one. A step that fails in the middle may have replaced some
/// of its outputs: with the earlier inputs it must run again.
///
/// # Errors
/// What `work` returns, or the record cannot be written.
pub fn renew<T>(
    layout: &Layout,
    step: &str,
    fingerprint: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    forget(layout, step)?;
    let done = work()?;
    record(layout, step, fingerprint)?;
    Ok(done)
}

/// Removes the record of `step`'s last success, because its outputs are about to be replaced.
///
/// # Errors
/// Returns an error if the file cannot be removed.
pub fn forget(layout: &Layout, step: &str) -> Result<()> {
    files::remove(&layout.stamp(step))
}

/// Records that `step` has succeeded with these inputs.
///
/// # Errors
/// Returns an error if the file cannot be written.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_failed_is_not_current() {
        let scratch = tempfile::tempdir().unwrap();
        let layout = Layout::new(scratch.path(), "shop");
        let made = scratch.path().join("made");
        fs::write(&made, "1").unwrap();
        let is_current = |fingerprint| is_current(&layout, "step", fingerprint, &[&made]);
        renew(&layout, "step", "one", || Ok(())).unwrap();
        assert!(is_current("one") && !is_current("two"));
        let failed: Result<()> = renew(&layout, "step", "two", || anyhow::bail!("no"));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert!(
            !is_current("two") && !is_current("one"),
            "what was made may be of both"
        );
        renew(&layout, "step", "one", || Ok(())).unwrap();
        assert!(is_current("one"));
    }
}
