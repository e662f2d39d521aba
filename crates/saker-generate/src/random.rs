//! Random streams: one per piece of work, so that the result does not depend on the distribution over threads.

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// The purpose of a stream. Streams of different purposes are independent.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Items = 1,
    Drift = 2,
    Users = 3,
    Visits = 4,
    Texts = 5,
    Average = 6,
}

/// Users of one stream of [`Purpose::Users`].
pub(crate) const USER_BLOCK: usize = 4096;

/// The stream of a seed for a purpose and up to two numbers (such as day and hour).
///
/// It is ChaCha with 8 rounds, whose output is standardised, unlike that of `rand`'s `StdRng`.
pub(crate) fn stream(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Draws an index with probability proportional to its weight. Weights must be at least 0, and one must be positive.
pub(crate) fn draw(rng: &mut ChaCha8Rng, weights: &[f64]) -> usize {
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    let mut last = 0;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            last = index;
            if left < weight {
                return index;
            }
            left -= weight;
        }
    }
    // Rounding errors may leave a remainder after the last weight.
    last
}
