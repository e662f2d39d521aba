//! Spreads the rows of a tensor over the candidates, as pure functions.

/// How the rows of one tensor map to the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The tensor already has one row per candidate.
    AsIs,
    /// Each row is repeated this many times in sequence.
    Each(usize),
}

/// Maps `rows` rows to `candidates` rows of `users` users, who have equal numbers of candidates.
///
/// Returns `None` unless `rows` is `candidates`, `users` or 1.
pub fn spread(rows: usize, candidates: usize, users: usize) -> Option<Spread> {
    if rows == candidates {
        Some(Spread::AsIs)
    } else if rows == users && candidates.is_multiple_of(users) {
        Some(Spread::Each(candidates / users))
    } else if rows == 1 {
        Some(Spread::Each(candidates))
    } else {
        None
    }
}

/// Writes the repeated rows.
///
/// # Shapes
///
/// `output` is `[candidates, width]`, `input` `[rows, width]`.
pub fn repeat<T: Copy>(output: &mut [T], input: &[T], width: usize, spread: Spread) {
    match spread {
        Spread::AsIs => output.copy_from_slice(input),
        Spread::Each(0) => {}
        Spread::Each(times) if width == 1 => {
            for (block, value) in output.chunks_exact_mut(times).zip(input) {
                block.fill(*value);
            }
        }
        Spread::Each(times) => {
            if width == 0 {
                return;
            }
            for (block, row) in output
                .chunks_exact_mut(times * width)
                .zip(input.chunks_exact(width))
            {
                for copy in block.chunks_exact_mut(width) {
                    copy.copy_from_slice(row);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_lengths_spread() {
        // candidates 6 of 2 users
        assert_eq!(spread(6, 6, 2), Some(Spread::AsIs));
        assert_eq!(spread(2, 6, 2), Some(Spread::Each(3)));
        assert_eq!(spread(1, 6, 2), Some(Spread::Each(6)));
        assert_eq!(spread(3, 6, 2), None);
        assert_eq!(spread(0, 6, 2), None);
        // no candidates
        assert_eq!(spread(0, 0, 1), Some(Spread::AsIs));
        assert_eq!(spread(1, 0, 1), Some(Spread::Each(0)));
        assert_eq!(spread(2, 0, 2), Some(Spread::Each(0)));
        assert_eq!(spread(3, 0, 2), None);
        // one candidate
        assert_eq!(spread(1, 1, 1), Some(Spread::AsIs));
        // no users
        assert_eq!(spread(0, 0, 0), Some(Spread::AsIs));
    }

    #[test]
    fn rows_are_repeated_over_their_users_candidates() {
        let mut output = [0; 6];
        repeat(&mut output, &[7, 8], 1, Spread::Each(3));
        assert_eq!(output, [7, 7, 7, 8, 8, 8]);
        let mut output = [0; 8];
        repeat(&mut output, &[1, 2, 3, 4], 2, Spread::Each(2));
        assert_eq!(output, [1, 2, 1, 2, 3, 4, 3, 4]);
        let mut output = [0; 3];
        repeat(&mut output, &[1, 2, 3], 1, Spread::AsIs);
        assert_eq!(output, [1, 2, 3]);
        repeat(&mut [0i32; 0], &[1], 1, Spread::Each(0));
        repeat(&mut [0i32; 0], &[], 0, Spread::Each(3));
    }
}
