//! Where a release comes from: the training events' window, and what `saker evaluate` measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The part of the manifest that the training run leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The events it was trained on.
    pub data: Option<Window>,
    /// What was learned since, by `saker finetune`, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finetuned: Vec<Value>,
    /// `models/metrics.json`, where it was written after the models.
    pub metrics: Option<Value>,
    /// Notes of whoever assembled it, such as the run of a pipeline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// First and last event that was learned from; how many there are in the training part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Unix seconds of the first.
    pub first: i64,
    /// Unix seconds of the last.
    pub last: i64,
    /// How many there are.
    pub interactions: u64,
}
