//! Names of the wire contract (docs/contract.md) that the two halves share.

/// The model a client asks.
pub const ENSEMBLE: &str = "ensemble_model";
/// The ensemble's first output: raw item ids, best first.
pub const ORDERED_IDS: &str = "ordered_ids";
/// The ensemble's second output: the score of each.
pub const ORDERED_SCORES: &str = "ordered_scores";
/// The ensemble's third output: the id of the release that answered, one text.
pub const RELEASE: &str = "release";
/// The ensemble's fourth output: what the store did not know, a mask per user.
pub const DEGRADED: &str = "degraded";
/// The model that a client asks in place of the 14 steps' ensemble.
pub const FUSED: &str = "ensemble_fused";
/// Parameters that belong to where the models run and not to what was trained: they stand in config.pbtxt, for all releases
/// alike. All others travel with the release that they were assembled for.
pub const DEPLOYMENT: [&str; 8] = [
    "DEADLINE_MS",
    "MAX_USERS",
    "POPULARITY_URL",
    "REDIS_URL",
    "SEEN_URL",
    "THREADS",
    "inter_op_thread_count",
    "intra_op_thread_count",
];
