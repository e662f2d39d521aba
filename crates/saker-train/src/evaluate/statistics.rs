//! Standard errors and intervals of means.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// The difference of two methods' means over the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The mean difference.
    pub mean: f64,
    /// Lower end of its 95 % interval, by a paired bootstrap.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Standard error of the mean of independent values: the sample's deviation / √n. `None` for fewer than two.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (count - 1.0) / count).sqrt())
}

/// The mean difference of `values` and `others` by request, with the percentile interval of a bootstrap (Efron 1979). Each round samples
/// requests with replacement, with both methods' values. `None` without requests.
pub fn paired_bootstrap(values: &[f64], others: &[f64]) -> Option<Difference> {
    const SAMPLES: usize = 2000;
    let differences: Vec<f64> = values.iter().zip(others).map(|(a, b)| a - b).collect();
    if differences.is_empty() {
        return None;
    }
    let count = differences.len();
    let mut rng = StdRng::seed_from_u64(1);
    let mut means: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let sum: f64 = (0..count)
                .map(|_| differences[rng.random_range(0..count)])
                .sum();
            sum / count as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Some(Difference {
        mean: differences.iter().sum::<f64>() / count as f64,
        low: means[SAMPLES / 40],
        high: means[SAMPLES - 1 - SAMPLES / 40],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_a_sample() {
        // Deviations of -1.5, -0.5, 0.5 and 1.5: variance 5/3, divided by four values.
        let found = standard_error(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((found - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(standard_error(&[1.0]), None);
    }

    #[test]
    fn a_bootstrap_is_paired() {
        // Requests differ much, but the methods differ by 0.1 in each, so the interval is this one number.
        let others: Vec<f64> = (0..50).map(|request| f64::from(request % 7)).collect();
        let values: Vec<f64> = others.iter().map(|value| value + 0.1).collect();
        let found = paired_bootstrap(&values, &others).unwrap();
        for value in [found.mean, found.low, found.high] {
            assert!((value - 0.1).abs() < 1e-12);
        }
        assert_eq!(paired_bootstrap(&[], &[]), None);
    }

    /// Half of 400 requests differ by 1: mean 0.5, standard error 0.025, so the interval is 0.5 ± 0.049.
    #[test]
    fn the_interval_is_the_normal_one_of_many_requests() {
        let values: Vec<f64> = (0..400).map(|request| f64::from(request % 2)).collect();
        let found = paired_bootstrap(&values, &[0.0; 400]).unwrap();
        assert!((found.mean - 0.5).abs() < 1e-12);
        assert!((found.low - 0.451).abs() < 0.006, "{found:?}");
        assert!((found.high - 0.549).abs() < 0.006, "{found:?}");
    }
}
