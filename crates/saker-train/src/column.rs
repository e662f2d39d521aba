//! Columns in their narrowest form, so that an interaction table of many millions of rows fits into memory.

use std::collections::HashMap;

/// Codes of a categorical column.
#[derive(Clone, Debug)]
pub enum Codes {
    /// Up to 256 codes.
    U8(Vec<u8>),
    /// Up to 65,536 codes.
    U16(Vec<u16>),
    /// Any codes.
    I32(Vec<i32>),
}

impl Codes {
    /// An empty column with the width that `cardinality` codes need.
    pub fn with_cardinality(cardinality: usize) -> Self {
        match cardinality {
            0..=0x100 => Self::U8(Vec::new()),
            0x101..=0x1_0000 => Self::U16(Vec::new()),
            _ => Self::I32(Vec::new()),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(codes) => codes.len(),
            Self::U16(codes) => codes.len(),
            Self::I32(codes) => codes.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The code of a row.
    ///
    /// # Panics
    /// Panics if the row does not exist.
    pub fn get(&self, row: usize) -> i32 {
        match self {
            Self::U8(codes) => i32::from(codes[row]),
            Self::U16(codes) => i32::from(codes[row]),
            Self::I32(codes) => codes[row],
        }
    }

    /// All codes in the order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = i32> + '_ {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Adds rows. A code that exceeds the width widens the column, so that later checks see the original code.
    pub fn extend(&mut self, more: &[i32]) {
        let fits = |limit: i32| more.iter().all(|&code| (0..=limit).contains(&code));
        match self {
            Self::U8(codes) if fits(0xff) => codes.extend(more.iter().map(|&code| code as u8)),
            Self::U16(codes) if fits(0xffff) => codes.extend(more.iter().map(|&code| code as u16)),
            Self::I32(codes) => codes.extend_from_slice(more),
            Self::U8(_) | Self::U16(_) => {
                let mut wide: Vec<i32> = self.iter().collect();
                wide.extend_from_slice(more);
                *self = Self::I32(wide);
            }
        }
    }

    /// Appends the codes of `rows` to `out`, in their order.
    pub(crate) fn gather(&self, rows: impl Iterator<Item = u32>, out: &mut Vec<i32>) {
        match self {
            Self::U8(codes) => out.extend(rows.map(|row| i32::from(codes[row as usize]))),
            Self::U16(codes) => out.extend(rows.map(|row| i32::from(codes[row as usize]))),
            Self::I32(codes) => out.extend(rows.map(|row| codes[row as usize])),
        }
    }
}

impl From<Vec<i32>> for Codes {
    fn from(codes: Vec<i32>) -> Self {
        let largest = codes.iter().copied().max().unwrap_or(0);
        let mut narrow = Self::with_cardinality(largest.max(0) as usize + 1);
        narrow.extend(&codes);
        narrow
    }
}

impl PartialEq for Codes {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<const ROWS: usize> PartialEq<[i32; ROWS]> for Codes {
    fn eq(&self, other: &[i32; ROWS]) -> bool {
        self.iter().eq(other.iter().copied())
    }
}

/// The numbers of a continuous column. A column with up to 256 distinct numbers (an hour's sine has 24) takes a byte per row.
#[derive(Clone, Debug)]
pub struct Numbers(Form);

#[derive(Clone, Debug)]
enum Form {
    Few {
        places: Vec<u8>,
        distinct: Vec<f32>,
        /// Index of each distinct number, by the number's bits.
        place: HashMap<u32, u8>,
    },
    Many(Vec<f32>),
}

impl Default for Numbers {
    fn default() -> Self {
        Self(Form::Few {
            places: Vec::new(),
            distinct: Vec::new(),
            place: HashMap::new(),
        })
    }
}

impl Numbers {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Few { places, .. } => places.len(),
            Form::Many(values) => values.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of a row.
    ///
    /// # Panics
    /// Panics if the row does not exist.
    pub fn get(&self, row: usize) -> f32 {
        match &self.0 {
            Form::Few {
                places, distinct, ..
            } => distinct[usize::from(places[row])],
            Form::Many(values) => values[row],
        }
    }

    /// All numbers in the order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Adds rows.
    pub fn extend(&mut self, more: &[f32]) {
        for (done, &value) in more.iter().enumerate() {
            match &mut self.0 {
                Form::Few {
                    places,
                    distinct,
                    place,
                } => {
                    let known = place.get(&value.to_bits()).copied();
                    let known = known.or_else(|| {
                        let next = u8::try_from(distinct.len()).ok()?;
                        distinct.push(value);
                        place.insert(value.to_bits(), next);
                        Some(next)
                    });
                    if let Some(known) = known {
                        places.push(known);
                        continue;
                    }
                    let mut many: Vec<f32> = self.iter().collect();
                    many.extend_from_slice(&more[done..]);
                    self.0 = Form::Many(many);
                    return;
                }
                Form::Many(values) => {
                    values.extend_from_slice(&more[done..]);
                    return;
                }
            }
        }
    }
}

impl From<Vec<f32>> for Numbers {
    fn from(values: Vec<f32>) -> Self {
        let mut numbers = Self::default();
        numbers.extend(&values);
        numbers
    }
}

impl PartialEq for Numbers {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_take_the_width_that_they_need() {
        assert!(matches!(Codes::from(vec![0, 255]), Codes::U8(_)));
        assert!(matches!(Codes::from(vec![0, 256]), Codes::U16(_)));
        assert!(matches!(Codes::from(vec![65_536]), Codes::I32(_)));
        let mut codes = Codes::with_cardinality(10);
        codes.extend(&[3, 9]);
        codes.extend(&[-1, 300]);
        assert!(codes.iter().eq([3, 9, -1, 300]));
        let mut out = vec![7];
        codes.gather([3, 0].into_iter(), &mut out);
        assert_eq!(out, [7, 300, 3]);
    }

    #[test]
    fn few_numbers_take_a_byte_each() {
        let few: Vec<f32> = (0..1000).map(|row| (row % 256) as f32).collect();
        let mut numbers = Numbers::from(few.clone());
        assert!(matches!(numbers.0, Form::Few { .. }));
        assert!(numbers.iter().eq(few.iter().copied()));
        numbers.extend(&[1.0, 0.5, 2.0]);
        assert!(matches!(numbers.0, Form::Many(_)));
        assert_eq!(numbers.len(), 1003);
        assert!(numbers.iter().skip(1000).eq([1.0, 0.5, 2.0]));
        assert_eq!(numbers.get(999), few[999]);
    }
}
