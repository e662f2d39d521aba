//! Converts FAISS's result to the candidates of one request, as pure functions.

use saker_index::NO_NEIGHBOUR;

/// An id type that an output may have.
pub trait Id: Copy {
    /// Converts the id to this type; `None` if it is too large.
    fn from_index(id: i64) -> Option<Self>;
}

impl Id for i32 {
    fn from_index(id: i64) -> Option<Self> {
        id.try_into().ok()
    }
}

impl Id for i64 {
    fn from_index(id: i64) -> Option<Self> {
        Some(id)
    }
}

/// Number of candidates per row. For one query, this is the number found. For several queries, all places are kept, so that the rows have
/// equal length; -1 pads a short row.
pub fn kept(found: &[i64], queries: usize) -> usize {
    match queries {
        1 => found
            .iter()
            .position(|id| *id == NO_NEIGHBOUR)
            .unwrap_or(found.len()),
        0 => 0,
        _ => found.len() / queries,
    }
}

/// Copies ids to an output.
///
/// # Errors
///
/// Returns the first id that does not fit the output's type.
pub fn copy<T: Id>(found: &[i64], output: &mut [T]) -> Result<(), i64> {
    for (to, id) in output.iter_mut().zip(found) {
        *to = T::from_index(*id).ok_or(*id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_what_there_is_and_several_get_padding() {
        assert_eq!(kept(&[4, 5, -1, -1], 1), 2);
        assert_eq!(kept(&[4, 5], 1), 2);
        assert_eq!(kept(&[-1, -1], 1), 0);
        assert_eq!(kept(&[4, -1, 5, 6], 2), 2);
        assert_eq!(kept(&[], 0), 0);
        assert_eq!(kept(&[], 1), 0);
    }

    #[test]
    fn ids_that_do_not_fit_are_named() {
        let mut narrow = [0i32; 2];
        copy(&[i64::from(i32::MAX), -1], &mut narrow).unwrap();
        assert_eq!(narrow, [i32::MAX, -1]);
        let large = i64::from(i32::MAX) + 1;
        assert_eq!(copy(&[1, large], &mut narrow), Err(large));
        let mut wide = [0i64; 2];
        copy(&[1, large], &mut wide).unwrap();
        assert_eq!(wide, [1, large]);
    }
}
