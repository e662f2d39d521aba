//! The candidates of retrieval, for the ranker's training.

use saker_pipeline::training::Training;

use crate::data::{ByUser, Dataset, Split};
use crate::evaluate::Held;
use crate::towers::Towers;

/// Retrieved items: of all users for hard negatives, and of the validation part for ranking.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// For each user, at the time of the last training interaction; empty without hard negatives.
    pub(crate) of_users: ByUser,
    /// The requests of the validation part.
    pub(crate) held: Held,
    /// For each held-out request, with the features at its time: later features would reveal the answer.
    pub(crate) of_held: ByUser,
}

impl Candidates {
    /// The `k` best items by these towers.
    pub fn new(towers: &Towers, data: &Dataset, training: &Training, k: usize) -> Self {
        let held = Held::new(data, Split::Validation, training.validation_users);
        // This scores every user with every item, which takes hours for a million of both.
        let of_users = match training.ranker.hard_negatives > 0.0 {
            true => towers.retrieve(data, k),
            false => (0..data.users.rows).map(|_| [0_u32; 0]).collect(),
        };
        Self {
            of_users,
            of_held: towers.retrieve_for(data, &held.users_at(), k),
            held,
        }
    }
}
