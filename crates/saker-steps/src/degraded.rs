//! What an answer lacks because a store was down, late or unreadable: a tensor that the ensembles may answer with.

/// The tensor, INT32, a mask per user: an output of the steps that ask a store, and an input of the later one.
pub const TENSOR: &str = "degraded";
/// The user's features are not known: the user was taken for a newcomer.
pub const USER_FEATURES: i32 = 1;
/// What the user has seen is not known: nothing was hidden.
pub const SEEN_ITEMS: i32 = 2;
