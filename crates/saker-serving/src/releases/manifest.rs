//! The manifest of a release.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::Record;

/// Format that this version writes.
pub const FORMAT: u32 = 1;

/// `<repository>/manifest-<version>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`]
    pub format: u32,
    /// The id in all its artefacts.
    pub release: String,
    /// Its version number in every model's folder.
    pub version: u64,
    /// Time of the assembly in Unix seconds.
    pub created: u64,
    /// The version of `saker` that assembled it.
    pub saker: String,
    /// Its training data and its metrics.
    #[serde(flatten)]
    pub record: Record,
    /// The pipeline definition, without credentials in the store's address.
    pub pipeline: Value,
    /// SHA-256 of the prepared users and items, by their file name in `data/`. Gateway and updater read these files. Empty
    /// in releases of an older saker.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub catalogue: BTreeMap<String, String>,
    /// The models by name.
    pub models: BTreeMap<String, Model>,
}

/// One model of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// SHA-256 over backend and tensors. Releases can be loaded side by side if it is equal for every model.
    pub interface: String,
    /// The parameters of the release: those of config.pbtxt and those of its own files.
    pub parameters: BTreeMap<String, String>,
    /// SHA-256 of every artefact, by its path in the version folder.
    pub files: BTreeMap<String, String>,
}

/// The Unix seconds of a moment.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
