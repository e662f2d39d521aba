//! The exact median of a column, in memory that does not grow with its rows.

use super::accumulator::for_each_number;
use super::counts::Counts;
use crate::error::Error;
use crate::ingest::Ingested;

/// Values kept as they are: 16 MiB of them. A column with fewer is done after one pass.
const KEPT: usize = 1 << 20;
/// Bits of a value that one pass tells apart when there are more.
const DIGIT: u32 = 16;

/// Finds the middle value by passes over the data: each counts the values by their next 16 bits and goes on in the bucket that holds
/// the middle, until that bucket's values can be kept. For the mean of two middle values there may be two buckets.
#[derive(Debug)]
pub(crate) struct Median {
    intervals: Vec<Interval>,
    known: Option<f64>,
}

/// The values whose upper bits are `prefix`, as integers that have the order of the floats.
#[derive(Debug)]
struct Interval {
    prefix: u64,
    /// Number of lower bits, not known yet.
    free: u32,
    /// The ranks looked for among these values; none in the first pass, when the number of values is not known.
    ranks: Vec<u64>,
    count: u64,
    /// Values, each with its number of rows.
    kept: Vec<(u64, u64)>,
    /// Values by their next bits, once there are too many to keep.
    buckets: Vec<u64>,
    found: Vec<u64>,
}

/// What a pass led to.
#[derive(Debug)]
pub(crate) enum Search {
    /// The median; none of no values.
    Found(Option<f64>),
    /// Pass the same values again.
    Again(Median),
}

impl Default for Median {
    fn default() -> Self {
        Self {
            intervals: vec![Interval::new(0, u64::BITS)],
            known: None,
        }
    }
}

impl Median {
    /// A search that is over, while those of other columns go on.
    pub(crate) fn known(median: f64) -> Self {
        Self {
            intervals: Vec::new(),
            known: Some(median),
        }
    }

    /// Takes in the numbers of a column.
    ///
    /// # Errors
    /// The column is not numeric.
    pub(crate) fn update(&mut self, column: &Ingested, counts: Counts<'_>) -> Result<(), Error> {
        for_each_number(column, counts, |x, n| self.add(x, n))
    }

    /// Takes in the value of n rows; NaN is a missing one.
    fn add(&mut self, x: f64, n: u64) {
        if !x.is_nan() {
            let key = to_key(x);
            self.intervals.iter_mut().for_each(|i| i.add(key, n));
        }
    }

    /// Ends a pass.
    pub(crate) fn finish(mut self) -> Search {
        if self.known.is_some() {
            return Search::Found(self.known);
        }
        if let [first] = self.intervals.as_mut_slice()
            && first.ranks.is_empty()
            && first.found.is_empty()
        {
            if first.count == 0 {
                return Search::Found(None);
            }
            // The same rank twice for an odd number of values.
            first.ranks = vec![(first.count - 1) / 2, first.count / 2];
        }
        let next: Vec<Interval> = self
            .intervals
            .into_iter()
            .flat_map(Interval::refine)
            .collect();
        if next.iter().all(|interval| interval.ranks.is_empty()) {
            let middle: Vec<f64> = (next.iter())
                .flat_map(|interval| &interval.found)
                .map(|&key| from_key(key))
                .collect();
            return Search::Found(match middle.as_slice() {
                [lower, upper] if lower == upper => Some(*lower),
                [lower, upper] => Some((lower + upper) / 2.0),
                _ => None,
            });
        }
        Search::Again(Self {
            intervals: next,
            known: None,
        })
    }
}

impl Interval {
    fn new(prefix: u64, free: u32) -> Self {
        Self {
            prefix,
            free,
            ranks: Vec::new(),
            count: 0,
            kept: Vec::new(),
            buckets: Vec::new(),
            found: Vec::new(),
        }
    }

    fn add(&mut self, key: u64, n: u64) {
        if self.free < u64::BITS && (key >> self.free != self.prefix || self.ranks.is_empty()) {
            return;
        }
        self.count += n;
        if self.buckets.is_empty() {
            if self.kept.len() < KEPT {
                self.kept.push((key, n));
                return;
            }
            self.buckets = vec![0; 1 << DIGIT];
            for (kept, n) in std::mem::take(&mut self.kept) {
                self.count_in_bucket(kept, n);
            }
        }
        self.count_in_bucket(key, n);
    }

    fn count_in_bucket(&mut self, key: u64, n: u64) {
        // There is a bucket for each value of a digit.
        if let Some(bucket) = self.buckets.get_mut(digit(key, self.free)) {
            *bucket += n;
        }
    }

    /// The intervals that hold the ranks looked for, or what was found there.
    fn refine(mut self) -> Vec<Self> {
        if self.buckets.is_empty() {
            self.kept.sort_unstable();
            for rank in std::mem::take(&mut self.ranks) {
                let mut upto = 0;
                let holds_rank = |&&(_, n): &&(u64, u64)| {
                    upto += n;
                    rank < upto
                };
                self.found
                    .extend(self.kept.iter().find(holds_rank).map(|(key, _)| key));
            }
            self.kept.clear();
            return vec![self];
        }
        let mut parts: Vec<Self> = Vec::new();
        for rank in self.ranks {
            let mut below = 0;
            for (bucket, &count) in self.buckets.iter().enumerate() {
                if rank < below + count {
                    let free = self.free - DIGIT;
                    let prefix = if self.free == u64::BITS {
                        0
                    } else {
                        self.prefix << DIGIT
                    } | bucket as u64;
                    if parts.last().is_none_or(|part| part.prefix != prefix) {
                        parts.push(Self::new(prefix, free));
                    }
                    if let Some(part) = parts.last_mut() {
                        if free == 0 {
                            part.found.push(prefix);
                        } else {
                            part.ranks.push(rank - below);
                        }
                    }
                    break;
                }
                below += count;
            }
        }
        parts
    }
}

fn digit(key: u64, free: u32) -> usize {
    (key >> (free - DIGIT)) as usize & ((1 << DIGIT) - 1)
}

/// An integer with the order of the floats.
fn to_key(x: f64) -> u64 {
    let bits = x.to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

fn from_key(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 {
        key & !(1 << 63)
    } else {
        !key
    })
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Median, Search};

    fn median(values: impl Fn() -> Box<dyn Iterator<Item = f64>>) -> (Option<f64>, usize) {
        let mut search = Median::default();
        for pass in 1.. {
            values().for_each(|x| search.add(x, 1));
            match search.finish() {
                Search::Found(median) => return (median, pass),
                Search::Again(next) => search = next,
            }
        }
        unreachable!("every pass knows 16 bits more")
    }

    #[test]
    fn few_values_take_one_pass() {
        assert_eq!(median(|| Box::new([].into_iter())), (None, 1));
        assert_eq!(
            median(|| Box::new([f64::NAN, 7.0].into_iter())),
            (Some(7.0), 1)
        );
        let values = || {
            Box::new([3.0, -1.0, f64::NAN, 8.0, 4.5].into_iter()) as Box<dyn Iterator<Item = f64>>
        };
        assert_eq!(median(values), (Some(3.75), 1));
    }

    #[test]
    fn a_value_may_stand_for_many_rows() {
        let mut search = Median::default();
        for (x, n) in [(8.0, 2), (-1.0, 3), (5.0, KEPT as u64 * 4)] {
            search.add(x, n);
        }
        assert!(matches!(search.finish(), Search::Found(Some(5.0))));
        let mut search = Median::default();
        for (x, n) in [(8.0, 2), (-1.0, 2)] {
            search.add(x, n);
        }
        assert!(matches!(search.finish(), Search::Found(Some(3.5))));
    }

    #[test]
    fn many_values_take_more_and_no_more_memory() {
        // A walk through 0..n, far from sorted, with negative values too.
        let n = 2 * KEPT as u64 + 10;
        let values = move || {
            let walk = (0..n).map(move |i| (i * 1_000_003 % n) as f64 - 1000.0);
            Box::new(walk) as Box<dyn Iterator<Item = f64>>
        };
        let expected = (n - 1) as f64 / 2.0 - 1000.0;
        assert_eq!(median(values), (Some(expected), 2));
        // All equal: the bits run out.
        let values = move || Box::new((0..n).map(|_| 0.1)) as Box<dyn Iterator<Item = f64>>;
        assert_eq!(median(values), (Some(0.1), 4));
        // The two middle values lie in different buckets.
        let values = move || {
            Box::new((0..n).map(move |i| if i % 2 == 0 { -1e9 } else { 1e-3 * i as f64 }))
                as Box<dyn Iterator<Item = f64>>
        };
        assert_eq!(median(values).0, Some((-1e9 + 1e-3) / 2.0));
    }
}
