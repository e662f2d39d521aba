//! Ranking and classification metrics, as pure functions.
//!
//! Relevance is binary: the items of a user's held-out interactions, given in ascending order.

/// The `k` items with the largest scores among those kept, best first; ties by item row.
pub fn top_k(scores: &[f32], k: usize, keep: impl Fn(usize) -> bool) -> Vec<u32> {
    let mut items: Vec<u32> = (0..scores.len() as u32)
        .filter(|&item| keep(item as usize))
        .collect();
    let order = |a: &u32, b: &u32| {
        scores[*b as usize]
            .total_cmp(&scores[*a as usize])
            .then(a.cmp(b))
    };
    if k < items.len() {
        items.select_nth_unstable_by(k, order);
        items.truncate(k);
    }
    items.sort_unstable_by(order);
    items
}

/// Share of the relevant items that are among the first `k` of the list. 0 without relevant items.
pub fn recall(ranked: &[u32], relevant: &[u32], k: usize) -> f64 {
    if relevant.is_empty() {
        return 0.0;
    }
    hits(ranked, relevant, k) as f64 / relevant.len() as f64
}

/// Normalised discounted cumulative gain (Järvelin & Kekäläinen 2002) of the first `k`, gain 1 for a relevant item,
/// discount log2(place + 1), divided by that of the best possible list.
pub fn ndcg(ranked: &[u32], relevant: &[u32], k: usize) -> f64 {
    let discount = |place: usize| 1.0 / ((place + 2) as f64).log2();
    let ideal: f64 = (0..relevant.len().min(k)).map(discount).sum();
    if ideal == 0.0 {
        return 0.0;
    }
    let gained: f64 = ranked
        .iter()
        .take(k)
        .enumerate()
        .filter(|(_, item)| relevant.binary_search(item).is_ok())
        .map(|(place, _)| discount(place))
        .sum();
    gained / ideal
}

/// 1 if any of the first `k` items is relevant, otherwise 0.
pub fn hit(ranked: &[u32], relevant: &[u32], k: usize) -> f64 {
    f64::from(u8::from(hits(ranked, relevant, k) > 0))
}

fn hits(ranked: &[u32], relevant: &[u32], k: usize) -> usize {
    ranked
        .iter()
        .take(k)
        .filter(|item| relevant.binary_search(item).is_ok())
        .count()
}

/// Area under the ROC curve: the share of (positive, negative) pairs in which the positive scores higher. Ties count half (Mann & Whitney
/// 1947). `None` if one of the classes is missing.
pub fn auc(scored: &[(f32, bool)]) -> Option<f64> {
    let mut sorted: Vec<&(f32, bool)> = scored.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scored.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scored.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let (mut wins, mut below) = (0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let up = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let down = tied.len() as f64 - up;
        wins += up * (below + down / 2.0);
        below += down;
    }
    Some(wins / (positives * negatives))
}

/// Mean negative log-likelihood in nats of probabilities against outcomes; probabilities are kept 1e-7 away from 0 and 1.
/// `None` for no rows.
pub fn log_loss(scored: &[(f32, bool)]) -> Option<f64> {
    if scored.is_empty() {
        return None;
    }
    let total: f64 = scored
        .iter()
        .map(|&(probability, positive)| {
            let p = f64::from(probability).clamp(1e-7, 1.0 - 1e-7);
            -if positive { p.ln() } else { (1.0 - p).ln() }
        })
        .sum();
    Some(total / scored.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_measured() {
        let relevant = [1, 2, 3, 4];
        let ranked = [9, 1, 8, 2];
        assert_eq!(recall(&ranked, &relevant, 2), 0.25);
        assert_eq!(recall(&ranked, &relevant, 10), 0.5);
        assert_eq!(hit(&ranked, &relevant, 1), 0.0);
        assert_eq!(hit(&ranked, &relevant, 2), 1.0);
        let gained = 1.0 / 3f64.log2() + 1.0 / 5f64.log2();
        let ideal = 1.0 + 1.0 / 3f64.log2() + 0.5 + 1.0 / 5f64.log2();
        assert!((ndcg(&ranked, &relevant, 10) - gained / ideal).abs() < 1e-12);
        assert_eq!(ndcg(&[2, 1], &[1, 2], 10), 1.0);
        assert_eq!(ndcg(&ranked, &[], 10), 0.0);
        assert_eq!(recall(&ranked, &[], 10), 0.0);
    }

    #[test]
    fn auc_counts_ties_half() {
        assert_eq!(auc(&[(0.9, true), (0.1, false)]), Some(1.0));
        assert_eq!(auc(&[(0.5, true), (0.5, false)]), Some(0.5));
        assert_eq!(
            auc(&[(0.3, true), (0.5, false), (0.7, true), (0.3, false)]),
            Some(0.625)
        );
        assert_eq!(auc(&[(0.3, true)]), None);
    }

    #[test]
    fn log_loss_of_certainty_is_finite() {
        assert!((log_loss(&[(0.5, true), (0.5, false)]).unwrap() - 2f64.ln()).abs() < 1e-12);
        assert!(log_loss(&[(1.0, false)]).unwrap() < 17.0);
        assert_eq!(log_loss(&[]), None);
    }
}
