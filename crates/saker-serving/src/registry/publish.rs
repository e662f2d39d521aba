//! Publishes a release of a repository in the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path as Folder, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object_store::{ObjectStoreExt, PutMode, WriteMultipart};
use saker_store::address::in_environment;
use sha2::{Digest, Sha256};

use super::{FORMAT, Published, Registry, check_name, json};
use crate::files::hex;
use crate::layout::Layout;
use crate::releases::{Repository, edit};

/// Size in bytes of a read, and of one part of an upload.
const PART: usize = 8 << 20;
/// Number of parts that are uploaded concurrently.
const PARTS: usize = 4;

/// The result of [`Registry::publish`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Number of files of the release.
    pub files: usize,
    /// Number of files that were uploaded, because the store did not have them.
    pub new_files: usize,
    /// Their bytes.
    pub new_bytes: u64,
}

/// A configuration that reads the stores' addresses from the environment. The addresses of the assembling machine are useless on others.
fn without_addresses(config: &str) -> String {
    let mut text = config.to_owned();
    for (key, value) in edit::parameters(config) {
        if !key.ends_with("_URL") || !value.contains("://") {
            continue;
        }
        let database = value
            .rsplit_once('/')
            .and_then(|(_, last)| last.parse::<u32>().ok());
        text = edit::set_parameter(&text, &key, &in_environment(database.unwrap_or(0)));
    }
    text
}

impl Registry {
    /// Writes a release of a repository and its catalogue into the store. Existing files are not written again. The release becomes visible at
    /// the end. `on` receives the number of completed bytes and the total.
    ///
    /// # Errors
    /// Returns an error if a file is not the one that was assembled, if the store has another release with this id, or if a write fails.
    pub fn publish(
        &self,
        repository: &Repository,
        version: u64,
        layout: &Layout,
        on: &mut dyn FnMut(u64, u64),
    ) -> Result<Uploaded> {
        repository.verify(version)?;
        let manifest = repository.manifest(version)?;
        check_name(&manifest.release)?;
        ensure!(
            !manifest.catalogue.is_empty(),
            "release {} has no catalogue in its manifest; run `saker assemble` again",
            manifest.release
        );
        let mut paths: BTreeMap<&str, PathBuf> = BTreeMap::new();
        let mut configs = BTreeMap::new();
        for (name, model) in &manifest.models {
            configs.insert(name.clone(), without_addresses(&repository.config(name)?));
            let folder = repository.version_folder(name, version);
            for (file, hash) in &model.files {
                paths.insert(hash, folder.join(file));
            }
        }
        for (file, hash) in &manifest.catalogue {
            paths.insert(hash, layout.catalogue_file(file));
        }
        let mut sizes = BTreeMap::new();
        for (hash, path) in &paths {
            let meta = std::fs::metadata(path);
            let meta = meta.with_context(|| format!("cannot read {}", path.display()))?;
            sizes.insert((*hash).to_owned(), meta.len());
        }
        let total = sizes.values().sum();
        let (mut done, mut uploaded) = (0, Uploaded::default());
        for (hash, path) in &paths {
            let size = sizes[*hash];
            uploaded.files += 1;
            if !self.has(hash, size)? {
                self.upload(hash, path)?;
                uploaded.new_files += 1;
                uploaded.new_bytes += size;
            }
            done += size;
            on(done, total);
        }
        let id = manifest.release.clone();
        let published = Published {
            format: FORMAT,
            manifest: manifest.clone(),
            configs,
            sizes,
        };
        let text = json(&published)?;
        let path = self.release_path(&id);
        if !self.write(&path, text.clone(), PutMode::Create)? {
            let same = self.read(&path)?.is_some_and(|there| same(&there, &text));
            if !same {
                bail!(
                    "{} holds another release of the id {id}; assemble again for a new id",
                    self.location
                );
            }
        }
        // A prune may have removed a file between the look and the release that uses it.
        for (hash, path) in &paths {
            if !self.has(hash, published.sizes[*hash])? {
                self.upload(hash, path)?;
            }
        }
        Ok(uploaded)
    }

    fn has(&self, hash: &str, size: u64) -> Result<bool> {
        let path = self.file(hash);
        self.wait(&path, async {
            match self.storage.head(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                found => Ok(found?.size == size),
            }
        })
    }

    /// Uploads a file in parts, and completes the upload only if the hash is right. Before that, the object does not exist.
    fn upload(&self, hash: &str, source: &Folder) -> Result<()> {
        let path = self.file(hash);
        let unreadable = || format!("cannot read {}", source.display());
        let mut file = File::open(source).with_context(unreadable)?;
        let refused = || format!("{}: {path}", self.location);
        self.runtime.block_on(async {
            let upload = self.storage.put_multipart(&path).await;
            let mut upload =
                WriteMultipart::new_with_chunk_size(upload.with_context(refused)?, PART);
            let (mut sha, mut part) = (Sha256::new(), vec![0; PART]);
            let read = loop {
                let read = match file.read(&mut part) {
                    Ok(0) => break Ok(()),
                    Ok(read) => read,
                    Err(error) => break Err(error),
                };
                let (read, _) = part.split_at(read);
                sha.update(read);
                if let Err(error) = upload.wait_for_capacity(PARTS).await {
                    return Err(error).with_context(refused);
                }
                upload.write(read);
            };
            let found = hex(&sha.finalize());
            if read.is_err() || found != hash {
                // The bucket's rule for incomplete uploads removes the remaining parts.
                let _ = upload.abort().await;
                read.with_context(unreadable)?;
                bail!(
                    "{} is not the file that was assembled: its SHA-256 is {found}, the manifest says {hash}; run `saker \
                     assemble` again",
                    source.display()
                );
            }
            upload.finish().await.with_context(refused)?;
            Ok(())
        })
    }
}

/// Whether two texts describe the same release. They may differ in the version, which is that of the publishing repository, and in the
/// configurations, which depend on the machine.
fn same(one: &[u8], other: &[u8]) -> bool {
    let parse = |text: &[u8]| serde_json::from_slice::<Published>(text).ok();
    let (Some(one), Some(other)) = (parse(one), parse(other)) else {
        return false;
    };
    let models = |published: &Published| published.manifest.models.clone();
    one.manifest.created == other.manifest.created
        && models(&one) == models(&other)
        && one.manifest.catalogue == other.manifest.catalogue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_machine_stay_on_it() {
        let line = |key: &str, value: &str| edit::parameter(key, value) + "\n";
        let given = [
            ("REDIS_URL", "redis://127.0.0.1:6379/0"),
            ("SEEN_URL", "rediss://cache.shop:6380/1"),
            ("POPULARITY_URL", "redis://127.0.0.1:6379/3"),
            ("OTHER_URL", "redis://127.0.0.1:6379"),
            ("MODE", "redis://is-no-address/5"),
        ];
        let text: String = given.iter().map(|(key, value)| line(key, value)).collect();
        let expected = [
            ("REDIS_URL", "env:SAKER_REDIS_URL#0"),
            ("SEEN_URL", "env:SAKER_SEEN_URL,SAKER_REDIS_URL#1"),
            (
                "POPULARITY_URL",
                "env:SAKER_POPULARITY_URL,SAKER_REDIS_URL#3",
            ),
            ("OTHER_URL", "env:SAKER_REDIS_URL#0"),
            ("MODE", "redis://is-no-address/5"),
        ];
        let expected: String = expected
            .iter()
            .map(|(key, value)| line(key, value))
            .collect();
        assert_eq!(without_addresses(&text), expected);
        assert_eq!(without_addresses(&expected), expected);
    }
}
