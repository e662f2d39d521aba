//! The ranker as a classifier: held-out positives against sampled negatives.

use rand::SeedableRng;
use rand::rngs::StdRng;
use saker_pipeline::training::Training;
use serde::{Deserialize, Serialize};

use super::Held;
use crate::data::{ByUser, Dataset, Split};
use crate::metrics::{auc, log_loss};
use crate::ranker::{Ranker, Request};
use crate::sampling::Negatives;

/// How well the ranker separates held-out positives from negatives sampled as in training, and how well its probabilities are calibrated
/// for that mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Area under the ROC curve over all rows together.
    pub auc: f64,
    /// Mean negative log-likelihood, in nats.
    pub log_loss: f64,
    /// Log loss of a constant prediction of the base rate, in nats.
    pub base_log_loss: f64,
    /// Share b of positives among the rows. For another base rate q, multiply the odds p / (1 - p) of a probability by q / (1 - q)
    /// and divide them by b / (1 - b).
    pub base_rate: f64,
    /// Rows: positives and negatives.
    pub rows: usize,
    /// Expected calibration error (Naeini et al. 2015): the distance between mean probability and share of positives, as a mean over
    /// the bins, weighted by rows.
    pub calibration_error: f64,
    /// Bins of equal size, in the order of probability.
    pub bins: Vec<Bin>,
}

/// Rows of similar probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Mean of the probabilities.
    pub probability: f64,
    /// Share of positives.
    pub positives: f64,
    /// Number of rows.
    pub rows: usize,
}

const BINS: usize = 15;
/// Maximum number of positives per user, which bounds each user's weight.
const PER_USER: usize = 10;

/// Measures the ranker on the positives of `held`, each at its own moment.
///
/// # Shapes
/// - `candidates`: what retrieval returned for each case
pub(super) fn classify(
    ranker: &Ranker,
    data: &Dataset,
    held: &Held,
    split: Split,
    candidates: &ByUser,
    training: &Training,
) -> Option<Classification> {
    let schedule = &training.ranker;
    let met: ByUser = held
        .cases
        .iter()
        .map(|case| [case.seen.as_slice(), &case.relevant].concat())
        .collect();
    let negatives = Negatives::new(data, candidates, met, schedule.hard_negatives);
    let mut rng = StdRng::seed_from_u64(training.seed);
    let positives = data.positives(split);
    let (mut requests, mut labels): (Vec<Request>, Vec<bool>) = (Vec::new(), Vec::new());
    for (place, case) in held.cases.iter().enumerate() {
        let rows = positives.of(case.user as usize).iter();
        let rows = rows.map(|&row| (row, data.interactions.item[row as usize]));
        let relevant = rows.filter(|&(_, item)| case.is_relevant(item));
        for (moment, item) in relevant.take(PER_USER) {
            requests.push((case.user, moment, item));
            labels.push(true);
            for _ in 0..schedule.negatives {
                if let Some(item) = negatives.draw(place as u32, false, &mut rng) {
                    requests.push((case.user, moment, item));
                    labels.push(false);
                }
            }
        }
    }
    let scores = ranker.scores(data, &requests);
    let mut scored: Vec<(f32, bool)> = scores.into_iter().zip(labels).collect();
    let rows = scored.len();
    let base_rate = scored.iter().filter(|row| row.1).count() as f64 / rows.max(1) as f64;
    let base: Vec<(f32, bool)> = scored.iter().map(|row| (base_rate as f32, row.1)).collect();
    let (auc, log_loss, base_log_loss) = (auc(&scored)?, log_loss(&scored)?, log_loss(&base)?);
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bins = bins(&scored);
    let error = |bin: &Bin| bin.rows as f64 * (bin.probability - bin.positives).abs();
    Some(Classification {
        auc,
        log_loss,
        base_log_loss,
        base_rate,
        rows,
        calibration_error: bins.iter().map(error).sum::<f64>() / rows as f64,
        bins,
    })
}

/// Bins of rows in the order of their probability.
fn bins(sorted: &[(f32, bool)]) -> Vec<Bin> {
    let size = sorted.len().div_ceil(BINS).max(1);
    let bin = |rows: &[(f32, bool)]| {
        let count = rows.len() as f64;
        Bin {
            probability: rows.iter().map(|row| f64::from(row.0)).sum::<f64>() / count,
            positives: rows.iter().filter(|row| row.1).count() as f64 / count,
            rows: rows.len(),
        }
    };
    sorted.chunks(size).map(bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_equal_numbers_of_rows() {
        let rows: Vec<(f32, bool)> = (0..300)
            .map(|row| (row as f32 / 300.0, row % 4 == 0))
            .collect();
        let bins = bins(&rows);
        assert_eq!(bins.len(), BINS);
        assert!(
            bins.iter()
                .all(|bin| bin.rows == 20 && bin.positives == 0.25)
        );
        assert!((bins[0].probability - 9.5 / 300.0).abs() < 1e-6);
        assert!(super::bins(&[]).is_empty());
    }
}
