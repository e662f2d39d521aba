//! Releases in an object store, for servers on any number of machines.
//!
//! ```text
//! <root>/
//!   files/<SHA-256>             an artefact; releases share equal files
//!   releases/<release>.json     a release: its manifest, configurations and catalogue, see [`Published`]; written last
//!   moves/<generation>.json     the wanted release, see [`Move`]: the highest generation counts
//!   servers/<server>.json       the state of each server, see [`Report`]
//! ```
//!
//! Only a server's report is changed in place, and only [`Registry::prune`] removes anything. A release is visible once its file in `releases/` exists, which is written after all its
//! other files. The wanted release changes by a new object with the next generation. The storage lets only one writer create it, so one of
//! two concurrent moves is refused.
//!
//! | module | purpose |
//! |---|---|
//! | [`publish`] | uploads a release of a repository |
//! | [`fetch`] | downloads a release into a repository, or its catalogue into a folder |
//! | [`list`] | lists the releases, and where each serves |
//! | [`moves`] | the wanted release |
//! | [`reports`] | the servers' reports |
//! | [`promote`] | moves to a release and waits for the servers |
//! | [`prune`] | removes old releases |

pub mod fetch;
pub mod list;
pub mod moves;
pub mod promote;
pub mod prune;
pub mod publish;
pub mod reports;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use saker_offline::open_storage;
use saker_pipeline::Pipeline;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

pub use moves::{Move, Named, Stage};
pub use reports::{Report, Reported, State};

use crate::files::hex;
use crate::releases::Manifest;

/// Format of the files that this version writes.
const FORMAT: u32 = 1;
/// Time limit for a read or a write of a small object.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store of releases.
pub struct Registry {
    storage: Box<dyn ObjectStore>,
    root: Path,
    location: String,
    // The storage's client is asynchronous; this module's functions block.
    runtime: Runtime,
}

/// `releases/<release>.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Published {
    /// 1
    pub format: u32,
    /// The release's manifest.
    pub manifest: Manifest,
    /// The text of every model's `config.pbtxt`.
    pub configs: BTreeMap<String, String>,
    /// Size of every file in bytes, by SHA-256.
    pub sizes: BTreeMap<String, u64>,
}

impl Published {
    /// The pipeline definition that the release was assembled from.
    ///
    /// # Errors
    /// Returns an error if this version cannot read the definition.
    pub fn pipeline(&self) -> Result<Pipeline> {
        let read = || -> Result<Pipeline> {
            let pipeline: Pipeline = serde_json::from_value(self.manifest.pipeline.clone())?;
            pipeline.validate()?;
            Ok(pipeline)
        };
        read().with_context(|| format!("the definition in release {}", self.manifest.release))
    }
}

impl Registry {
    /// Opens the store at `location`: a folder, `file://` or `s3://bucket/prefix`, with the AWS clients' settings from the
    /// environment.
    ///
    /// # Errors
    /// Returns an error if the address is invalid. A missing bucket is noticed only at the first read or write.
    pub fn open(location: &str) -> Result<Self> {
        Self::with_settings(location, std::env::vars())
    }

    /// Like [`open`](Self::open), with these settings of the AWS clients.
    ///
    /// # Errors
    /// Returns an error as [`open`](Self::open) does.
    pub fn with_settings(
        location: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let (storage, root) = open_storage(location, settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no thread for the store of releases")?;
        Ok(Self {
            storage,
            root,
            location: location.to_owned(),
            runtime,
        })
    }

    /// The store's address.
    pub fn location(&self) -> &str {
        &self.location
    }

    fn path(&self, parts: &[&str]) -> Path {
        let join = |path: Path, part: &&str| path.join(*part);
        parts.iter().fold(self.root.clone(), join)
    }

    fn release_path(&self, id: &str) -> Path {
        self.path(&["releases", &format!("{id}.json")])
    }

    fn file(&self, hash: &str) -> Path {
        self.path(&["files", hash])
    }

    /// The ids of all releases, oldest first.
    ///
    /// # Errors
    /// Returns an error if the storage does not answer.
    pub fn releases(&self) -> Result<Vec<String>> {
        let mut found = self.list("releases")?;
        found.sort_by_key(|meta| (meta.last_modified, meta.location.to_string()));
        let name =
            |meta: &ObjectMeta| Some(meta.location.filename()?.strip_suffix(".json")?.into());
        Ok(found.iter().filter_map(name).collect())
    }

    /// Reads a release. Returns it with the SHA-256 of its file, which must equal the expected hash, if one is given.
    ///
    /// # Errors
    /// Returns an error if the release is missing, is damaged or has another format, or if the storage does not answer.
    pub fn release(&self, id: &str, hash: Option<&str>) -> Result<(Published, String)> {
        check_name(id)?;
        let path = self.release_path(id);
        let Some(bytes) = self.read(&path)? else {
            let known = self.releases()?;
            let known = match &known[..] {
                [] => "nothing is published there".to_owned(),
                known => format!("there are {}", known.join(", ")),
            };
            bail!("{} has no release {id}; {known}", self.location);
        };
        let found = hex(&Sha256::digest(&bytes));
        let at = || format!("{}/{path}", self.location);
        if let Some(expected) = hash {
            ensure!(
                found == expected,
                "{} is damaged: its SHA-256 is {found}; {expected} was promoted",
                at()
            );
        }
        let published: Published =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", at()))?;
        ensure!(
            published.format == FORMAT,
            "{} has format {}; this version reads format {FORMAT}",
            at(),
            published.format
        );
        ensure!(
            published.manifest.release == id,
            "{} tells of release {}",
            at(),
            published.manifest.release
        );
        Ok((published, found))
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        self.list_after(folder, None)
    }

    fn list_after(&self, folder: &str, after: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let prefix = self.path(&[folder]);
        self.wait(&prefix, async {
            match after {
                Some(after) => {
                    let listed = self.storage.list_with_offset(Some(&prefix), after);
                    listed.try_collect().await
                }
                None => self.storage.list(Some(&prefix)).try_collect().await,
            }
        })
    }

    /// The content of an object, if it exists.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        self.wait(path, async {
            let found = match self.storage.get(path).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                found => found?,
            };
            Ok(Some(found.bytes().await?.to_vec()))
        })
    }

    fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let Some(bytes) = self.read(path)? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&bytes);
        value.with_context(|| format!("{}/{path} is damaged", self.location))
    }

    /// Writes an object. Returns `false` if it must not exist but does.
    fn write(&self, path: &Path, content: Vec<u8>, mode: PutMode) -> Result<bool> {
        self.wait(path, async {
            let options = PutOptions::from(mode);
            let put = self
                .storage
                .put_opts(path, PutPayload::from(content), options);
            match put.await {
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                put => put.map(|_| true),
            }
        })
    }

    fn modified(&self, path: &Path) -> Result<DateTime<Utc>> {
        self.wait(path, async {
            Ok(self.storage.head(path).await?.last_modified)
        })
    }

    /// Removes an object if it exists.
    fn delete(&self, path: &Path) -> Result<()> {
        self.wait(path, async {
            match self.storage.delete(path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }

    /// Runs a small operation within its time limit.
    fn wait<T>(
        &self,
        path: &Path,
        operation: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let done = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, operation).await });
        let done = done.with_context(|| {
            let seconds = PATIENCE.as_secs();
            format!(
                "{}: no answer within {seconds} s about {path}",
                self.location
            )
        })?;
        done.with_context(|| format!("{}: {path}", self.location))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).context("as JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// Checks a name of a release or a server, because it becomes the name of an object.
fn check_name(name: &str) -> Result<()> {
    let accepted = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ensure!(
        !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(accepted)
            && !name.starts_with('.'),
        "'{name}' cannot name a release or a server; accepted: letters, digits, '-', '_' and '.', not first"
    );
    Ok(())
}
