//! Ids as the shop uses them, ids as the models use them, and the values among both that are no ids.
//!
//! Tensors hold both as INT32 or INT64, and kernels work on borrowed slices of them. So [`RawId`] and [`Code`] are no wrappers of a number:
//! they name its special values.

/// Ids of users and items as the shop uses them.
#[derive(Clone, Copy, Debug)]
pub enum RawId {}

impl RawId {
    /// No user or no item: a guest, a user that the store lacks, padding of a short row, a neighbour that FAISS did not find. It is never
    /// looked up and never returned as an item. The vocabularies encode it as out-of-vocabulary, or as padding for items.
    pub const NONE: i64 = -1;
    /// [`NONE`](Self::NONE) in a tensor of INT32.
    pub const NONE_INT32: i32 = -1;

    /// Whether an id in an answer is that of an item. All negative ids count as padding.
    #[must_use]
    pub fn is_item(id: impl Into<i64>) -> bool {
        id.into() >= 0
    }
}

/// Values of a feature as a vocabulary numbers them.
#[derive(Clone, Copy, Debug)]
pub enum Code {}

impl Code {
    /// Padding of a short row.
    pub const PADDING: i64 = 0;
    /// A missing value.
    pub const NULL: i64 = 1;
    /// A value that the vocabulary lacks; the first such code, if there are several.
    pub const OOV: i64 = 2;
    /// The first value of a vocabulary with one out-of-vocabulary code.
    pub const FIRST: i64 = 3;
}

/// An integer feature whose value is not known, such as the device type of a request that names none. The vocabularies encode it as
/// out-of-vocabulary.
pub const UNKNOWN: i32 = -1;
