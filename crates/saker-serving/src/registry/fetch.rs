//! Fetches a release of the store into a repository, or its catalogue into a folder.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path as Folder, PathBuf};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};

use super::{Published, Registry};
use crate::files::{create, hex, remove_folder};
use crate::layout::Layout;
use crate::releases::{Repository, install};

/// The result of [`Registry::fetch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The release's version in the repository.
    pub version: u64,
    /// Number of files that were downloaded.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Number of files that the repository had already, from this or another release.
    pub linked: usize,
}

impl Display for Fetched {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        write!(
            f,
            "{} files, {megabytes:.1} MB; {} were there",
            self.files, self.linked
        )
    }
}

impl Registry {
    /// Puts a release into the repository at `root` and compares each file with its SHA-256. A file that another release of the
    /// repository has becomes a hard link to it. See [`install()`](install::install) for `replace`.
    ///
    /// # Errors
    /// Returns an error if a file is damaged or cannot be downloaded or written, and if the release is [`Incompatible`](install::Incompatible).
    pub fn fetch(&self, published: &Published, root: &Folder, replace: bool) -> Result<Fetched> {
        // Read only when a file is to be placed, so not for a release that is installed already.
        let mut known = None;
        let mut fetched = Fetched::default();
        let mut place = |hash: &str, target: &Folder| -> Result<()> {
            let known = known.get_or_insert_with(|| known_files(root));
            if let Some(same) = known.get(hash)
                && fs::hard_link(same, target).is_ok()
            {
                fetched.linked += 1;
                return Ok(());
            }
            fetched.bytes += self.download(hash, target)?;
            fetched.files += 1;
            known.insert(hash.to_owned(), target.to_owned());
            Ok(())
        };
        let (manifest, configs) = (&published.manifest, &published.configs);
        let version = install::install(root, manifest, configs, replace, &mut place)
            .with_context(|| format!("release {} of {}", manifest.release, self.location))?;
        fetched.version = version;
        Ok(fetched)
    }

    /// Downloads a release's catalogue into its own layout below `catalogues`, where a pipeline's commands find it. Removes other catalogues, so
    /// no other program may use that folder.
    ///
    /// # Errors
    /// Returns an error if a file is damaged or cannot be downloaded or written.
    pub fn fetch_catalogue(&self, published: &Published, catalogues: &Folder) -> Result<Layout> {
        let id = &published.manifest.release;
        let layout = Layout::new(catalogues, id);
        let complete = layout.root().join("complete");
        if !complete.exists() {
            remove_folder(layout.root())?;
            for (file, hash) in &published.manifest.catalogue {
                let path = layout.catalogue_file(file);
                create(path.parent().unwrap_or(layout.root()))?;
                self.download(hash, &path)?;
            }
            crate::files::write(&complete, "")?;
        }
        for entry in fs::read_dir(catalogues).into_iter().flatten().flatten() {
            if entry.file_name() != id.as_str() {
                remove_folder(&entry.path())?;
            }
        }
        Ok(layout)
    }

    /// Downloads a file, compares it with its hash, and renames it to its place. Returns its size in bytes.
    fn download(&self, hash: &str, target: &Folder) -> Result<u64> {
        let path = self.file(hash);
        let part = target.with_added_extension("part");
        let unwritable = || format!("cannot write {}", part.display());
        let unreadable = || format!("{}: {path}, for {}", self.location, target.display());
        let mut file = File::create(&part).with_context(unwritable)?;
        let (found, bytes) = self.runtime.block_on(async {
            let found = self.storage.get(&path).await.with_context(unreadable)?;
            let mut stream = found.into_stream();
            let (mut sha, mut bytes) = (Sha256::new(), 0);
            while let Some(piece) = stream.try_next().await.with_context(unreadable)? {
                sha.update(&piece);
                bytes += piece.len() as u64;
                file.write_all(&piece).with_context(unwritable)?;
            }
            anyhow::Ok((hex(&sha.finalize()), bytes))
        })?;
        let damaged = found != hash;
        if damaged {
            let _ = fs::remove_file(&part);
        }
        ensure!(
            !damaged,
            "{}: {path}, for {}, is damaged: its SHA-256 is {found}",
            self.location,
            target.display()
        );
        file.sync_all().with_context(unwritable)?;
        fs::rename(&part, target).with_context(unwritable)?;
        Ok(bytes)
    }
}

/// The artefacts in a repository, by SHA-256.
fn known_files(root: &Folder) -> HashMap<String, PathBuf> {
    let mut known = HashMap::new();
    let Ok(repository) = Repository::open(root) else {
        return known;
    };
    let versions = repository.index().map(|index| index.releases);
    for version in versions.unwrap_or_default().into_keys() {
        let Ok(manifest) = repository.manifest(version) else {
            continue;
        };
        for (name, model) in manifest.models {
            let folder = repository.version_folder(&name, version);
            for (file, hash) in model.files {
                known.insert(hash, folder.join(file));
            }
        }
    }
    known
}
