//! What a release says of itself.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::Record;

/// The format that is written.
pub const FORMAT: u32 = 1;

/// `<repository>/manifest-<version>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`]
    pub format: u32,
    /// The id that all its artefacts carry.
    pub release: String,
    /// The version number under which it stands in every model's folder.
    pub version: u64,
    /// When it was assembled, Unix seconds.
    pub created: u64,
    /// The version of `saker` that assembled it.
    pub saker: String,
    /// Where it comes from and what was measured on it.
    #[serde(flatten)]
    pub record: Record,
    /// The pipeline definition, a login in the store's address left out.
    pub pipeline: Value,
    /// SHA-256 of the prepared users and items, by their file name in `data/`: what the gateway shows and the updater knows. Empty
    /// in releases of an older saker.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub catalogue: BTreeMap<String, String>,
    /// By model.
    pub models: BTreeMap<String, Model>,
}

/// One model of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// SHA-256 over backend and tensors: releases can stand side by side when it is the same for every model.
    pub interface: String,
    /// The parameters that travel with the release, those of config.pbtxt and its own.
    pub parameters: BTreeMap<String, String>,
    /// SHA-256 of every artefact, by its path in the version folder.
    pub files: BTreeMap<String, String>,
}

/// The Unix seconds of a moment.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
