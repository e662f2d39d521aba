//! The chronological split of each user's events.

use saker_pipeline::Split;

/// The names of the parts, as column `split` holds them.
pub const PARTS: [&str; 3] = ["train", "validation", "test"];

/// The part (index in [`PARTS`]) of each of a user's `events` events, oldest first.
///
/// floor(n · share) of them are test and validation; where both shares are positive and there are three events or more, at
/// least one each, so that every such user is measured. A user with fewer is trained on only.
pub(super) fn parts(events: usize, split: Split) -> impl Iterator<Item = usize> {
    let count = |share: f64| {
        let least = usize::from(share > 0.0 && events >= 3);
        ((events as f64 * share).floor() as usize).max(least)
    };
    let (validation, test) = (count(split.validation), count(split.test));
    (0..events).map(move |event| {
        if event + test >= events {
            2
        } else if event + test + validation >= events {
            1
        } else {
            0
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(events: usize, split: Split) -> [usize; 3] {
        let mut counts = [0; 3];
        parts(events, split).for_each(|part| counts[part] += 1);
        counts
    }

    #[test]
    fn the_last_tenth_is_test_and_the_tenth_before_validation() {
        let split = Split {
            test: 0.1,
            validation: 0.1,
        };
        assert_eq!(counts(20, split), [16, 2, 2]);
        assert_eq!(counts(29, split), [25, 2, 2]);
        assert_eq!(counts(5, split), [3, 1, 1]);
        assert_eq!(counts(2, split), [2, 0, 0]);
        assert_eq!(counts(0, split), [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn parts_follow_each_other(events in 0usize..500, test in 0.0..0.5f64, validation in 0.0..0.49f64) {
            let split = Split { test, validation };
            let parts: Vec<usize> = parts(events, split).collect();
            prop_assert_eq!(parts.len(), events);
            prop_assert!(parts.is_sorted(), "later events are in later parts");
            let [train, validation, test] = counts(events, split);
            prop_assert_eq!(train + validation + test, events);
            prop_assert!(events < 3 || train > 0);
            prop_assert!(test as f64 <= (events as f64 * split.test).max(1.0));
            prop_assert!(validation as f64 <= (events as f64 * split.validation).max(1.0));
        }
    }
}
