//! The record of a release: the time window of its training events, and the metrics of `saker evaluate`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The part of the manifest that the training run writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The training events.
    pub data: Option<Window>,
    /// The events of each `saker finetune` since, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finetuned: Vec<Value>,
    /// `models/metrics.json`, if it is newer than the models.
    pub metrics: Option<Value>,
    /// Labels of the assembly, such as the run of a pipeline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Times of the first and the last training event, and the number of training events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Time of the first event in Unix seconds.
    pub first: i64,
    /// Time of the last event in Unix seconds.
    pub last: i64,
    /// Number of events.
    pub interactions: u64,
}
