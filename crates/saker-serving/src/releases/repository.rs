//! The files of a model repository that holds releases.
//!
//! ```text
//! repository/
//!   releases.json            which release every version number is, which were promoted, which failed: see [`Index`]
//!   manifest-<version>.json  what the release says of itself: see [`Manifest`]
//!   releases.lock            held by whoever changes the repository
//!   ensemble_model/config.pbtxt   every step pinned to the version that serves; ensemble_fused/ as well
//!   <model>/config.pbtxt     version_policy: the version that serves (while one is promoted, that one too)
//!   <model>/<version>/       a release's artefacts of this model, and release.json
//! ```
//!
//! What serves is what an ensemble's config.pbtxt says and nothing else: one file, replaced by a rename. Whatever else a
//! crash leaves half done, each ensemble of a server that starts on this folder serves one whole release: between the renames of
//! the two ensembles' files they may be two.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use saker_contract::ensemble::{ENSEMBLE, FUSED};
use saker_contract::release::{self, STAMP};
use serde::{Deserialize, Serialize};

use super::Manifest;
use super::edit;
use crate::files::{read_json, remove_folder, sha256, write, write_json};

/// How many promotions are remembered.
const HISTORY: usize = 100;

/// `releases.json`. The backends read `releases` of it, at every load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Index {
    /// 1
    pub format: u32,
    /// The release id of every version number.
    pub releases: BTreeMap<u64, String>,
    /// The version number of the next release; one that was given is never given again.
    #[serde(default)]
    pub next: u64,
    /// Versions in the order of their promotions, the latest last.
    #[serde(default)]
    pub promoted: Vec<u64>,
    /// Why a release could not be promoted, by version.
    #[serde(default)]
    pub failed: BTreeMap<u64, String>,
}

impl Index {
    /// The index of a repository whose only release is this one.
    pub fn new(version: u64, release: &str) -> Self {
        Self {
            format: 1,
            releases: BTreeMap::from([(version, release.to_owned())]),
            next: version + 1,
            promoted: vec![version],
            failed: BTreeMap::new(),
        }
    }

    /// The id of a version, for messages.
    pub fn name(&self, version: u64) -> String {
        match self.releases.get(&version) {
            Some(id) => format!("{id} (version {version})"),
            None => format!("version {version}"),
        }
    }

    /// The version of a release that is named by its id or its number.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub fn find(&self, name: &str) -> Result<u64> {
        let by_id = self.releases.iter().find(|(_, id)| *id == name);
        let by_number = || name.parse().ok();
        let version = by_id.map(|(version, _)| *version).or_else(by_number);
        let known: Vec<String> = self
            .releases
            .keys()
            .map(|version| self.name(*version))
            .collect();
        version
            .filter(|version| self.releases.contains_key(version))
            .with_context(|| format!("there is no release {name}; there are {}", known.join(", ")))
    }

    /// The version of the named release, or the newest one.
    ///
    /// # Errors
    /// There is none.
    pub fn find_or_newest(&self, name: Option<&str>) -> Result<u64> {
        let newest = || self.releases.keys().next_back().copied();
        match name {
            Some(name) => self.find(name),
            None => newest().context("there is no release; run `saker assemble`"),
        }
    }

    /// The release that served before `serving`, where it is still here.
    pub fn before(&self, serving: u64) -> Option<u64> {
        let mut promoted = self.promoted.iter().rev();
        promoted
            .find(|version| **version != serving && self.releases.contains_key(version))
            .copied()
    }

    /// Notes a promotion.
    pub fn note(&mut self, version: u64) {
        self.failed.remove(&version);
        self.promoted.push(version);
        let surplus = self.promoted.len().saturating_sub(HISTORY);
        self.promoted.drain(..surplus);
    }
}

/// A repository that `saker assemble` wrote.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
}

/// Held by whoever changes a repository; given up on drop, and by the system when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "holds the lock")] File);

impl Repository {
    /// The repository at `root`.
    ///
    /// # Errors
    /// There is none.
    pub fn open(root: &Path) -> Result<Self> {
        let repository = Self {
            root: root.to_owned(),
        };
        if !repository.index_path().is_file() {
            bail!("{} holds no release; run `saker assemble`", root.display());
        }
        Ok(repository)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `releases.json`
    ///
    /// # Errors
    /// It cannot be read, or is of another format.
    pub fn index(&self) -> Result<Index> {
        let path = self.index_path();
        let mut index: Index = read_json(&path)?;
        ensure!(
            index.format == 1,
            "{} has format {}; this version reads format 1",
            path.display(),
            index.format
        );
        let last = index.releases.keys().next_back().copied().unwrap_or(0);
        index.next = index.next.max(last + 1);
        Ok(index)
    }

    /// Writes `releases.json`.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn write_index(&self, index: &Index) -> Result<()> {
        write_json(&self.index_path(), index)
    }

    fn index_path(&self) -> PathBuf {
        self.root.join(release::INDEX)
    }

    /// What a release says of itself.
    ///
    /// # Errors
    /// The file is missing or damaged, or tells of another release than `releases.json`.
    pub fn manifest(&self, version: u64) -> Result<Manifest> {
        let path = self.manifest_path(version);
        let manifest: Manifest = read_json(&path)?;
        ensure!(
            manifest.format == super::manifest::FORMAT,
            "{} has format {}; this version reads format {}",
            path.display(),
            manifest.format,
            super::manifest::FORMAT
        );
        Ok(manifest)
    }

    /// Writes a release's manifest.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        write_json(&self.manifest_path(manifest.version), manifest)
    }

    fn manifest_path(&self, version: u64) -> PathBuf {
        self.root.join(release::manifest(version))
    }

    /// The folder of a model's version.
    pub fn version_folder(&self, model: &str, version: u64) -> PathBuf {
        self.root.join(model).join(version.to_string())
    }

    /// The text of a model's config.pbtxt.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn config(&self, model: &str) -> Result<String> {
        let path = self.config_path(model);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes a model's config.pbtxt anew where it changes.
    ///
    /// # Errors
    /// The change is not possible, or the disk does not take it.
    pub fn edit(&self, model: &str, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
        let path = self.config_path(model);
        let old = self.config(model)?;
        let new = change(&old).with_context(|| path.display().to_string())?;
        if new == old {
            return Ok(());
        }
        write(&path, new)
    }

    fn config_path(&self, model: &str) -> PathBuf {
        self.root.join(model).join("config.pbtxt")
    }

    /// The ensembles that stand here: the one of 14 steps, and the fused one where releases have it.
    pub fn ensembles(&self) -> Vec<&'static str> {
        let stands = |name: &&str| *name == ENSEMBLE || self.config_path(name).is_file();
        [ENSEMBLE, FUSED].into_iter().filter(stands).collect()
    }

    /// The models of all ensembles' steps.
    ///
    /// # Errors
    /// An ensemble's config.pbtxt cannot be read.
    pub fn models(&self) -> Result<Vec<String>> {
        let mut models = Vec::new();
        for ensemble in self.ensembles() {
            for model in self.steps(ensemble)? {
                if !models.contains(&model) {
                    models.push(model);
                }
            }
        }
        Ok(models)
    }

    /// The models of an ensemble's steps.
    ///
    /// # Errors
    /// Its config.pbtxt cannot be read.
    pub fn steps(&self, ensemble: &str) -> Result<Vec<String>> {
        let models = edit::steps(&self.config(ensemble)?);
        ensure!(
            !models.is_empty(),
            "{} has no steps",
            self.config_path(ensemble).display()
        );
        Ok(models)
    }

    /// The version that serves: the one that the ensemble's steps are pinned to.
    ///
    /// # Errors
    /// The steps mix versions; the message names both.
    pub fn serving(&self) -> Result<u64> {
        self.pinned(ENSEMBLE)
    }

    fn pinned(&self, ensemble: &str) -> Result<u64> {
        edit::pinned(&self.config(ensemble)?)
            .with_context(|| self.config_path(ensemble).display().to_string())
    }

    /// Pins the ensembles' steps to a version: from here on a server that starts serves it. The ensemble of 14 steps, which
    /// says what [serves](Self::serving), comes last.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn pin(&self, version: u64) -> Result<()> {
        for ensemble in self.ensembles().into_iter().rev() {
            self.edit(ensemble, |text| Ok(edit::pin(text, version)))?;
        }
        Ok(())
    }

    /// Says which versions of the steps' models a server loads, beside those that an ensemble is pinned to. Name none that it
    /// cannot: one version that does not load keeps the model's others from loading, too.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn admit(&self, versions: &[u64]) -> Result<()> {
        let mut versions = versions.to_vec();
        for ensemble in self.ensembles() {
            versions.push(self.pinned(ensemble)?);
        }
        versions.sort_unstable();
        versions.dedup();
        for model in self.models()? {
            self.edit(&model, |text| edit::admit(text, &versions))?;
        }
        Ok(())
    }

    /// Keeps others from changing the repository.
    ///
    /// # Errors
    /// Another process changes it now.
    pub fn lock(&self) -> Result<Lock> {
        Self::lock_folder(&self.root)
    }

    /// As [`lock`](Self::lock), of a folder that need not hold a release yet.
    ///
    /// # Errors
    /// Another process changes it now.
    pub fn lock_folder(root: &Path) -> Result<Lock> {
        let path = root.join("releases.lock");
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => bail!(
                "another saker assembles or promotes in {} now; wait until it has ended",
                root.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Checks every artefact of a release against its manifest, and that all are of this release.
    ///
    /// # Errors
    /// The first difference: file, and both hashes or both releases.
    pub fn verify(&self, version: u64) -> Result<()> {
        let release = self.index()?.releases.remove(&version);
        let release = release.with_context(|| format!("there is no version {version}"))?;
        let manifest = self.manifest(version)?;
        ensure!(
            manifest.release == release,
            "{} tells of release {}, releases.json of {release}",
            self.manifest_path(version).display(),
            manifest.release
        );
        for model in self.models()? {
            let folder = self.version_folder(&model, version);
            let stamp = folder.join(STAMP);
            let stamped: serde_json::Value = read_json(&stamp)?;
            ensure!(
                stamped["release"] == release.as_str(),
                "{} is of release {}, but version {version} is release {release}",
                stamp.display(),
                stamped["release"]
            );
            let of_model = manifest
                .models
                .get(&model)
                .with_context(|| format!("the manifest of {release} has no model {model}"))?;
            let files = serde_json::to_value(&of_model.files)?;
            let keys = stamped.as_object().into_iter().flat_map(|keys| keys.keys());
            let known = ["files", "format", "parameters", "release"];
            let said = |key: &str| of_model.parameters.get(key).map(String::as_str);
            let parameters = stamped["parameters"].as_object().into_iter().flatten();
            ensure!(
                stamped["files"] == files
                    && keys.map(String::as_str).all(|key| known.contains(&key))
                    && parameters
                        .into_iter()
                        .all(|(key, value)| value.as_str() == said(key)),
                "{} is damaged: it says something else than the manifest of {release}",
                stamp.display()
            );
            for (file, expected) in &of_model.files {
                let path = folder.join(file);
                let found = sha256(&path)?;
                ensure!(
                    found == *expected,
                    "{} is damaged: its SHA-256 is {found}, the manifest of {release} says {expected}",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// Removes releases, all but the newest `keep` and those in `held`, and what no release owns. Returns the versions that
    /// went.
    ///
    /// # Errors
    /// The disk does not let us.
    pub fn prune(&self, keep: usize, held: &[u64]) -> Result<Vec<u64>> {
        let mut index = self.index()?;
        let newest: BTreeSet<u64> = index.releases.keys().rev().take(keep).copied().collect();
        let stays = |version: &u64| newest.contains(version) || held.contains(version);
        let gone: Vec<u64> = index
            .releases
            .keys()
            .filter(|version| !stays(version))
            .copied()
            .collect();
        if !gone.is_empty() {
            index.releases.retain(|version, _| stays(version));
            index.failed.retain(|version, _| stays(version));
            index.promoted.retain(stays);
            // First, so that a crash leaves folders without a release and no release without its folders.
            self.write_index(&index)?;
        }
        self.sweep(&index)?;
        Ok(gone)
    }

    /// Removes the version folders and manifests that no release owns: a crash left them.
    fn sweep(&self, index: &Index) -> Result<()> {
        let owned = |name: &str| {
            name.parse::<u64>()
                .is_ok_and(|version| index.releases.contains_key(&version))
        };
        for model in self.models()? {
            for name in names(&self.root.join(&model))? {
                let is_version = name.bytes().all(|byte| byte.is_ascii_digit());
                if is_version && !owned(&name) {
                    remove_folder(&self.root.join(&model).join(&name))?;
                }
            }
        }
        for name in names(&self.root)? {
            let version = release::manifest_version(&name);
            if version.is_some_and(|version| !owned(version)) {
                let path = self.root.join(&name);
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let listed = || -> std::io::Result<Vec<String>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    listed().with_context(|| format!("cannot read {}", folder.display()))
}
