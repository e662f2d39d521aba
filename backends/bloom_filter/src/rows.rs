//! The candidates of each user as rows of their own, apart from Triton.

/// Splits the candidates of `users` users into rows of equal length.
///
/// # Errors
/// What is wrong, when they do not divide evenly.
pub(crate) fn row_length(users: usize, candidates: usize) -> Result<usize, String> {
    match candidates.checked_rem(users) {
        Some(0) => Ok(candidates / users),
        None if candidates == 0 => Ok(0),
        _ => Err(format!(
            "{candidates} candidates cannot be rows of equal length for {users} users; accepted: a multiple of the \
             number of users"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_must_be_of_equal_length() {
        assert_eq!(row_length(2, 6), Ok(3));
        assert_eq!(row_length(3, 0), Ok(0));
        assert_eq!(row_length(0, 0), Ok(0));
        assert!(row_length(2, 5).unwrap_err().contains("5 candidates"));
        assert!(row_length(0, 5).is_err());
    }
}
