//! The mask of missing user data: what an answer lacks because a store was down, late or unreadable. Steps that read a store have it as an
//! output, [`tensor::DEGRADED`](crate::tensor::DEGRADED); the later step has it as an input too.

/// The user's features are unknown, so the user was treated as new.
pub const USER_FEATURES: i32 = 1;
/// The user's seen items are unknown, so none were removed.
pub const SEEN_ITEMS: i32 = 2;
