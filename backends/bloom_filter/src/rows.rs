//! Splits the candidates into one row per user. This module does not depend on Triton.

use std::iter;

/// Splits the candidates of `users` users into rows of equal length, one per user.
///
/// # Errors
/// Returns an error message if the number of candidates is not a multiple of `users`.
pub(crate) fn rows_of(
    users: usize,
    candidates: &[i64],
) -> Result<impl Iterator<Item = &[i64]>, String> {
    let count = candidates.len();
    let length = match count.checked_rem(users) {
        Some(0) => count / users,
        None if count == 0 => 0,
        _ => {
            return Err(format!(
                "{count} candidates cannot be rows of equal length for {users} users; accepted: a multiple of the \
                 number of users"
            ));
        }
    };
    // Without candidates, each user's row is empty.
    let rows = candidates.chunks_exact(length.max(1));
    Ok(rows.chain(iter::repeat(&[][..])).take(users))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_must_be_of_equal_length() {
        let rows = |users, candidates: &[i64]| {
            rows_of(users, candidates).map(|rows| rows.map(<[i64]>::to_vec).collect::<Vec<_>>())
        };
        assert_eq!(
            rows(2, &[1, 2, 3, 4, 5, 6]),
            Ok(vec![vec![1, 2, 3], vec![4, 5, 6]])
        );
        assert_eq!(rows(3, &[]), Ok(vec![Vec::new(); 3]));
        assert_eq!(rows(0, &[]), Ok(Vec::new()));
        assert!(rows(2, &[0; 5]).unwrap_err().contains("5 candidates"));
        assert!(rows(0, &[0; 5]).is_err());
    }
}
