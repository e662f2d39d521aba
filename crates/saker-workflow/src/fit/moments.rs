//! Running sums of a column.

use super::accumulator::for_each_number;
use super::counts::Counts;
use crate::error::Error;
use crate::ingest::Ingested;

/// A sum in twice the precision of f64 (Dekker 1971), so that it does not depend on how the terms were grouped, but for results within
/// about 1e-32 of the middle between two f64.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    /// Adds x · n, with the rounding error of the product and of the sum.
    fn add(&mut self, x: f64, n: u64) {
        let n = n as f64;
        let product = x * n;
        let error = if n == 1.0 {
            0.0
        } else {
            x.mul_add(n, -product)
        };
        let sum = self.high + product;
        if !sum.is_finite() {
            *self = Self {
                high: sum,
                low: 0.0,
            };
            return;
        }
        let back = sum - self.high;
        let lost = (self.high - (sum - back)) + (product - back);
        let low = self.low + lost + error;
        self.high = sum + low;
        self.low = low - (self.high - sum);
    }
}

/// Running count, sum, sum of squares and extremes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    pub(crate) count: u64,
    sum: Sum,
    squares: Sum,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            count: 0,
            sum: Sum::default(),
            squares: Sum::default(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Moments {
    /// Takes in the numbers of a column.
    ///
    /// # Errors
    /// The column is not numeric.
    pub(crate) fn update(&mut self, column: &Ingested, counts: Counts<'_>) -> Result<(), Error> {
        for_each_number(column, counts, |x, n| self.add(x, n))
    }

    /// Takes in the value of n rows; NaN is a missing one.
    pub(crate) fn add(&mut self, x: f64, n: u64) {
        if x.is_nan() {
            return;
        }
        self.count += n;
        self.sum.add(x, n);
        self.squares.add(x * x, n);
        self.min = self.min.min(x);
        self.max = self.max.max(x);
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum.high
    }

    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum() / self.count as f64)
    }

    /// One delta degree of freedom; NaN for a single value.
    pub(crate) fn variance(&self) -> f64 {
        let n = self.count as f64;
        if self.count < 2 {
            return f64::NAN;
        }
        ((self.squares.high - self.sum() * self.sum() / n) / (n - 1.0)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Moments;

    #[test]
    fn sums_do_not_depend_on_the_order_or_on_counts() {
        let values = [0.1, 1e15, -3.7, 2.5e-9, 0.1, -1e15, 7.0 / 3.0, 0.1];
        let [mut forth, mut back, mut counted] = [Moments::default(); 3];
        values.iter().for_each(|&x| forth.add(x, 1));
        values.iter().rev().for_each(|&x| back.add(x, 1));
        counted.add(0.1, 3);
        for x in [1e15, -3.7, 2.5e-9, -1e15, 7.0 / 3.0] {
            counted.add(x, 1);
        }
        for other in [back, counted] {
            assert_eq!(other.sum(), forth.sum());
            assert_eq!(other.variance(), forth.variance());
        }
        assert!((forth.sum() - (0.3 - 3.7 + 2.5e-9 + 7.0 / 3.0)).abs() < 1e-14);
    }

    #[test]
    fn infinities_stay() {
        let mut moments = Moments::default();
        for x in [1.0, f64::NEG_INFINITY, 2.0] {
            moments.add(x, 2);
        }
        assert_eq!(moments.sum(), f64::NEG_INFINITY);
        moments.add(f64::INFINITY, 1);
        assert!(moments.sum().is_nan());
    }
}
