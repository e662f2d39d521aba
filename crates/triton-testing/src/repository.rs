//! A model repository in a temporary folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A model repository that is removed on drop.
///
/// ```
/// use triton_testing::repository::Repository;
///
/// # fn main() -> anyhow::Result<()> {
/// let repository = Repository::new()?;
/// repository.model("double", "backend: \"scale\"")?.write("double/1/table.bin", &[1, 2, 3])?;
/// assert!(repository.path().join("double/config.pbtxt").is_file());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    /// An empty repository.
    ///
    /// # Errors
    /// Returns an error if the temporary folder cannot be made.
    pub fn new() -> Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new()
                .prefix("triton-models-")
                .tempdir()?,
        })
    }

    /// The repository's root, for `--model-repository`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes `<model>/config.pbtxt` and an empty version folder `<model>/1`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn model(&self, model: &str, config: &str) -> Result<&Self> {
        fs::create_dir_all(self.path().join(model).join("1"))?;
        self.write(&format!("{model}/config.pbtxt"), config.as_bytes())
    }

    /// Writes a file at a path relative to the root; folders are made as needed.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, place: &str, content: &[u8]) -> Result<&Self> {
        let path = self.prepared(place)?;
        fs::write(&path, content).with_context(|| format!("cannot write '{}'", path.display()))?;
        Ok(self)
    }

    /// Copies a file, or a folder with all that it holds, to a path relative to the root.
    ///
    /// # Errors
    /// Returns an error if the source cannot be read or the copy not written.
    pub fn copy(&self, source: &Path, place: &str) -> Result<&Self> {
        copy(source, &self.prepared(place)?)?;
        Ok(self)
    }

    fn prepared(&self, place: &str) -> Result<PathBuf> {
        let path = self.path().join(place);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(path)
    }
}

/// Copies a file, or a folder with all that it holds.
///
/// # Errors
/// Returns an error if the source cannot be read or the copy not written.
pub fn copy(source: &Path, target: &Path) -> Result<()> {
    let failed = || format!("cannot copy '{}'", source.display());
    if source.is_dir() {
        fs::create_dir_all(target)?;
        for entry in fs::read_dir(source).with_context(failed)? {
            let entry = entry?;
            copy(&entry.path(), &target.join(entry.file_name()))?;
        }
    } else {
        fs::copy(source, target).with_context(failed)?;
    }
    Ok(())
}
