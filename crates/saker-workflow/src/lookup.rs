//! From a value to its row in a fitted table, in constant time and without trusting the value.

use rustc_hash::FxHashMap;

/// Row of an absent key.
pub(crate) const ABSENT: u32 = u32::MAX;

/// The distinct values of one key column, in table order; `None` is null.
#[derive(Debug, Clone, PartialEq)]
pub enum Keys {
    /// Integers of any width.
    Int(Vec<Option<i64>>),
    /// Strings.
    String(Vec<Option<String>>),
}

impl Keys {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(keys) => keys.len(),
            Self::String(keys) => keys.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The index of one column's distinct values.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// Integers close enough together for a table: `rows[value - first]`.
    Dense {
        first: i64,
        rows: Vec<u32>,
        null: u32,
    },
    /// Integers far apart.
    Sparse {
        rows: FxHashMap<i64, u32>,
        null: u32,
    },
    /// Strings.
    String {
        rows: FxHashMap<Box<[u8]>, u32>,
        null: u32,
    },
}

/// Table slots granted whatever the number of keys, and beyond them per key: at most 32 bytes a key, as a hash map would take.
const DENSE_MINIMUM: u64 = 1 << 16;
const DENSE_PER_KEY: u64 = 8;

impl Lookup {
    fn ints(pairs: &[(Option<i64>, u32)]) -> Self {
        let null = null_row(pairs);
        let values = || pairs.iter().filter_map(|&(key, row)| Some((key?, row)));
        let first = values().map(|(key, _)| key).min().unwrap_or(0);
        let last = values().map(|(key, _)| key).max().unwrap_or(0);
        let span = last.abs_diff(first);
        if span < DENSE_MINIMUM.max(DENSE_PER_KEY * pairs.len() as u64) {
            let mut rows = vec![ABSENT; span as usize + 1];
            for (key, row) in values() {
                if let Some(slot) = rows.get_mut(key.abs_diff(first) as usize) {
                    *slot = row;
                }
            }
            Self::Dense { first, rows, null }
        } else {
            Self::Sparse {
                rows: values().collect(),
                null,
            }
        }
    }

    fn strings(pairs: Vec<(Option<&str>, u32)>) -> Self {
        let null = null_row(&pairs);
        let rows = pairs
            .into_iter()
            .filter_map(|(key, row)| Some((key?.as_bytes().into(), row)))
            .collect();
        Self::String { rows, null }
    }

    /// Row of an integer, or [`ABSENT`].
    #[inline]
    pub(crate) fn int(&self, value: i64) -> u32 {
        match self {
            Self::Dense { first, rows, .. } => {
                // One unsigned comparison refuses what is too small and what is too large.
                let offset = (value as u64).wrapping_sub(*first as u64);
                match usize::try_from(offset).ok().and_then(|o| rows.get(o)) {
                    Some(&row) => row,
                    None => ABSENT,
                }
            }
            Self::Sparse { rows, .. } => rows.get(&value).copied().unwrap_or(ABSENT),
            Self::String { .. } => ABSENT,
        }
    }

    /// Row of a float by its whole part, as NVTabular casts it to the vocabulary's type; NaN is null.
    #[inline]
    pub(crate) fn float(&self, value: f64) -> u32 {
        if value.is_nan() {
            self.null()
        } else if (-9.3e18..9.2e18).contains(&value) {
            self.int(value as i64)
        } else {
            ABSENT
        }
    }

    /// Row of a string, or [`ABSENT`].
    #[inline]
    pub(crate) fn bytes(&self, value: &[u8]) -> u32 {
        match self {
            Self::String { rows, .. } => rows.get(value).copied().unwrap_or(ABSENT),
            _ => ABSENT,
        }
    }

    /// Row of null, or [`ABSENT`].
    #[inline]
    pub(crate) fn null(&self) -> u32 {
        match self {
            Self::Dense { null, .. } | Self::Sparse { null, .. } | Self::String { null, .. } => {
                *null
            }
        }
    }

    pub(crate) fn is_string(&self) -> bool {
        matches!(self, Self::String { .. })
    }
}

fn null_row<T>(pairs: &[(Option<T>, u32)]) -> u32 {
    pairs
        .iter()
        .find(|(key, _)| key.is_none())
        .map_or(ABSENT, |&(_, row)| row)
}

/// From the values of one or more key columns to the table's row.
#[derive(Debug, Clone)]
pub(crate) struct KeyIndex {
    /// One column: gives the row itself. Several: gives the value's number among the column's distinct values.
    pub(crate) columns: Vec<Lookup>,
    /// Several columns: from their numbers, as digits, to the row.
    pub(crate) combinations: Option<Combinations>,
}

#[derive(Debug, Clone)]
pub(crate) struct Combinations {
    /// Distinct values of each column.
    pub(crate) radix: Vec<u128>,
    pub(crate) rows: FxHashMap<u128, u32>,
}

impl KeyIndex {
    pub(crate) fn new(columns: &[&Keys]) -> Self {
        if let [keys] = columns {
            let rows = 0..keys.len() as u32;
            return Self {
                columns: vec![match keys {
                    Keys::Int(keys) => {
                        Lookup::ints(&keys.iter().copied().zip(rows).collect::<Vec<_>>())
                    }
                    Keys::String(keys) => {
                        Lookup::strings(keys.iter().map(Option::as_deref).zip(rows).collect())
                    }
                }],
                combinations: None,
            };
        }
        let mut combined: Vec<u128> = vec![0; columns.first().map_or(0, |keys| keys.len())];
        let mut radix = Vec::with_capacity(columns.len());
        let mut lookups = Vec::with_capacity(columns.len());
        for keys in columns {
            let (lookup, numbers, distinct) = match keys {
                Keys::Int(keys) => {
                    let (pairs, numbers) = number(keys.iter().copied());
                    (Lookup::ints(&pairs), numbers, pairs.len())
                }
                Keys::String(keys) => {
                    let (pairs, numbers) = number(keys.iter().map(Option::as_deref));
                    let distinct = pairs.len();
                    (Lookup::strings(pairs), numbers, distinct)
                }
            };
            for (digits, number) in combined.iter_mut().zip(numbers) {
                *digits = digits
                    .wrapping_mul(distinct as u128)
                    .wrapping_add(u128::from(number));
            }
            radix.push(distinct as u128);
            lookups.push(lookup);
        }
        Self {
            columns: lookups,
            combinations: Some(Combinations {
                radix,
                rows: combined.into_iter().zip(0..).collect(),
            }),
        }
    }
}

/// Numbers distinct values in order of appearance.
#[allow(clippy::type_complexity)]
fn number<T: Eq + std::hash::Hash + Copy>(
    keys: impl Iterator<Item = Option<T>>,
) -> (Vec<(Option<T>, u32)>, Vec<u32>) {
    let mut seen: FxHashMap<Option<T>, u32> = FxHashMap::default();
    let mut pairs = Vec::new();
    let numbers = keys
        .map(|key| {
            *seen.entry(key).or_insert_with(|| {
                let number = pairs.len() as u32;
                pairs.push((key, number));
                number
            })
        })
        .collect();
    (pairs, numbers)
}
