//! The mask of missing user data: what an answer lacks because a store was down, late or unreadable.

/// Name of the tensor: INT32, one mask per user. Steps that read a store have it as an output; the later step has it as an input too.
pub const TENSOR: &str = "degraded";
/// The user's features are unknown, so the user was treated as new.
pub const USER_FEATURES: i32 = 1;
/// The user's seen items are unknown, so none were removed.
pub const SEEN_ITEMS: i32 = 2;
