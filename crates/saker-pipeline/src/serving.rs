//! `[retrieval]`, `[ranking]`, `[store]` and `[serving]`: the settings of the request path.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[retrieval]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retrieval {
    /// Candidates per user. Default 300.
    pub topk: usize,
    /// FAISS index factory string, such as `Flat`, `IVF64,Flat` or `HNSW32`. Default `Flat`.
    pub index: String,
    /// The metric of similarity. Default `inner_product`.
    pub metric: Metric,
    /// FAISS parameters of a search, such as `nprobe=8` or `efSearch=64`. Default none.
    pub search_parameters: String,
    /// Threads of one search. Default 1.
    pub threads: usize,
}

impl Default for Retrieval {
    fn default() -> Self {
        Self {
            topk: 300,
            index: "Flat".to_owned(),
            metric: Metric::InnerProduct,
            search_parameters: String::new(),
            threads: 1,
        }
    }
}

/// Distance of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Largest inner product first: cosine similarity where the towers normalise.
    InnerProduct,
    /// Smallest squared Euclidean distance first.
    L2,
}

/// `[ranking]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ranking {
    /// Recommended items per user. Default 10.
    pub topk: usize,
    /// Samples the items with probability proportional to exp(20 · score) instead of taking the best ones. Default false.
    pub diversity: bool,
}

impl Default for Ranking {
    fn default() -> Self {
        Self {
            topk: 10,
            diversity: false,
        }
    }
}

/// `[store]`: Valkey or Redis. The address of Triton's models is `redis_url` unless a deployment's assembly replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `redis://` or `rediss://` address without a database. Default `redis://127.0.0.1:6379`.
    pub redis_url: String,
    /// Feast project, part of every key of the online store. Default `my_feast_repo`.
    pub feast_project: String,
    /// Feast's entity key serialization version, 2 or 3. Default 3.
    pub entity_key_serialization: u8,
    /// Feast's type of the users' ids in the online store. Default: the type of the stored users, or INT32 if the store has no users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_type: Option<EntityType>,
    /// Feast's type of the items' ids in the online store, with the same default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_entity_type: Option<EntityType>,
    /// Feature view of the users. Default `user_features`.
    pub user_view: String,
    /// Feature view of the items. Default `item_features`.
    pub item_view: String,
    /// The history of feature values: a folder, `file://…` or `s3://bucket/prefix`. Default: `offline/` of the pipeline's state folder.
    pub offline: Option<String>,
    /// How users are looked up. Default `online`.
    pub user_lookup: LookupMode,
    /// How items are looked up. Default `cached`.
    pub item_lookup: LookupMode,
    /// Longest wait for the store in one step, in milliseconds. After it, the step uses the defaults. Default 20.
    pub deadline_ms: u64,
    /// Seconds between two reads of a cached view; 0 reads once. Default 300.
    pub refresh_seconds: u64,
    /// `[store.bloom]`: seen items.
    pub bloom: Bloom,
    /// User column with the category whose popular items fill a short answer first. Default: globally popular items fill it.
    pub popularity_category: Option<String>,
    /// Item columns counted in `trending:cat_l1:*` and `trending:cat_l2:*`, at most two, in that order. Default none.
    pub trending_categories: Vec<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            redis_url: "redis://127.0.0.1:6379".to_owned(),
            feast_project: "my_feast_repo".to_owned(),
            entity_key_serialization: 3,
            entity_type: None,
            item_entity_type: None,
            user_view: "user_features".to_owned(),
            item_view: "item_features".to_owned(),
            offline: None,
            user_lookup: LookupMode::Online,
            item_lookup: LookupMode::Cached,
            deadline_ms: 20,
            refresh_seconds: 300,
            bloom: Bloom::default(),
            popularity_category: None,
            trending_categories: Vec::new(),
        }
    }
}

/// Feast's type of an entity's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EntityType {
    /// INT32
    Int32,
    /// INT64, the default of pandas.
    Int64,
    /// STRING: the id as decimal text.
    String,
}

impl EntityType {
    /// The value of the backends' parameter `ENTITY_TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::String => "STRING",
        }
    }
}

/// How `feature_lookup` reads a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupMode {
    /// One round trip per batch.
    Online,
    /// The whole view in memory, refreshed in the background.
    Cached,
}

impl LookupMode {
    /// The value of the backend's parameter `MODE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Cached => "cached",
        }
    }
}

/// `[store.bloom]`: the Bloom filters of seen items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bloom {
    /// `auto` uses the server's Bloom module if it exists, `server` requires the module, `plain` does not use it. Default `auto`.
    pub mode: String,
    /// Number of items for which a user's filter is sized. Default 1000.
    pub capacity: u32,
    /// False positive rate at that size: the share of unseen items that the filter reports as seen. Default 0.001.
    pub error_rate: f64,
    /// Whether `saker materialize` records each user's training interactions as seen. Default false: event writers record them.
    pub from_training: bool,
}

impl Default for Bloom {
    fn default() -> Self {
        Self {
            mode: "auto".to_owned(),
            capacity: 1000,
            error_rate: 0.001,
            from_training: false,
        }
    }
}

/// `[serving]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serving {
    /// Instances of every model that `[serving.instances]` does not name. Default 1.
    pub instance_count: usize,
    /// `[serving.instances]`: instances by model name, such as `dlrm_ranking = 2`.
    pub instances: BTreeMap<String, usize>,
    /// Threads of one ONNX Runtime session. Default 1.
    pub onnxruntime_threads: usize,
    /// Maximum number of users per request. Default 256.
    pub max_users: usize,
    /// Whether a release has the fused ensemble in addition to the 14 steps. It needs a ranker that `saker train` exported. Default true.
    pub fused: bool,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            instance_count: 1,
            instances: BTreeMap::new(),
            onnxruntime_threads: 1,
            max_users: 256,
            fused: true,
        }
    }
}
