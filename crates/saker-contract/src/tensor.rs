//! Names of tensors. Features have the names that the pipeline definition gives them.

/// Input: raw user ids, INT32 `[users]`. A definition may name it otherwise.
pub const USER_ID: &str = "user_id";
/// The candidates, raw ids or codes, INT32 `[candidates]`. A definition may name it otherwise.
pub const ITEM_ID: &str = "item_id";
/// Optional input: device types, INT32 `[users]` or `[1]`; 0 mobile, 1 desktop, 2 tablet.
pub const DEVICE_TYPE: &str = "device_type";
/// Optional input: Unix seconds in UTC, INT32 `[users]` or `[1]`.
pub const TIMESTAMP: &str = "timestamp";
/// The user's most frequent category of late, INT32 `[users]`.
pub const TOP_CATEGORY: &str = "top_category";
/// The query tower's output, FP32 `[users, dim]`.
pub const QUERY_VECTOR: &str = "output_1";
/// Raw ids of the retrieved items, INT32 `[users · candidates]`.
pub const CANDIDATE_IDS: &str = "candidate_ids";
/// Raw ids of the candidates that the user has not seen, INT32 `[users · candidates]`.
pub const FILTERED_IDS: &str = "filtered_ids";
/// The ranker's output, a click probability per candidate: FP32 `[users · candidates, 1]`.
pub const SCORE: &str = "click/binary_classification_task";
/// First output: raw item ids, best first, INT32 `[users · items]`.
pub const ORDERED_IDS: &str = "ordered_ids";
/// Second output: the score of each, FP32 `[users · items]`.
pub const ORDERED_SCORES: &str = "ordered_scores";
/// Third output: the id of the release that answered, STRING `[1]`.
pub const RELEASE: &str = "release";
/// Fourth output: what the store did not return, a mask of [`degraded`](crate::degraded) per user, INT32 `[users]`.
pub const DEGRADED: &str = "degraded";
