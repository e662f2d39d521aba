//! Decodes codes to raw ids, as pure functions over slices.

use saker_contract::{Code, RawId};

/// A type of codes and raw ids.
pub trait Id: Copy {
    /// The id in 64 bits.
    fn wide(self) -> i64;
    /// The id from 64 bits. The code that fills the table has checked that it fits.
    fn narrow(wide: i64) -> Self;
}

impl Id for i32 {
    fn wide(self) -> i64 {
        i64::from(self)
    }
    fn narrow(wide: i64) -> Self {
        wide as i32
    }
}

impl Id for i64 {
    fn wide(self) -> i64 {
        self
    }
    fn narrow(wide: i64) -> Self {
        wide
    }
}

/// Writes the raw id of each code: `table[code - start]`, or [`RawId::NONE`] for reserved codes and codes beyond the table. All slices are
/// `[rows]`, except `table`.
pub fn decode<T: Id, U: Id>(codes: &[T], table: &[i64], start: u32, ids: &mut [U]) {
    for (id, code) in ids.iter_mut().zip(codes) {
        let position = code.wide().checked_sub(i64::from(start));
        let raw = position
            .and_then(|position| usize::try_from(position).ok())
            .and_then(|position| table.get(position))
            .map_or(RawId::NONE, |&raw| raw);
        *id = U::narrow(raw);
    }
}

/// Copies each value, or writes `zero` in the rows whose code is [`Code::PADDING`]. All slices are `[rows]`.
pub fn pass<T: Id, V: Copy>(codes: &[T], values: &[V], zero: V, out: &mut [V]) {
    for ((out, &value), code) in out.iter_mut().zip(values).zip(codes) {
        *out = if code.wide() == Code::PADDING {
            zero
        } else {
            value
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decodes_what_was_encoded(table in prop::collection::vec(0i64..1 << 40, 0..50), code in any::<i64>(), start in 0u32..20) {
            let mut id = [0i64];
            decode(&[code], &table, start, &mut id);
            let expected = table.iter().enumerate()
                .find(|(position, _)| *position as i128 + i128::from(start) == i128::from(code))
                .map_or(RawId::NONE, |(_, &raw)| raw);
            prop_assert_eq!(id[0], expected);
        }
    }

    #[test]
    fn padding_has_no_score() {
        let mut scores = [0.0f32; 4];
        pass(
            &[0i32, 1, 2, 3],
            &[0.5, 0.6, f32::NAN, 0.8],
            0.0,
            &mut scores,
        );
        assert_eq!(scores[..2], [0.0, 0.6]);
        assert!(scores[2].is_nan());
        assert_eq!(scores[3], 0.8);
    }
}
