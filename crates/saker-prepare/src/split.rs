//! Divides the interactions into training, validation and test rows: by each user's order of time, or by days.

use saker_pipeline::Parts;

/// The names of the parts in column `split`.
pub const PARTS: [&str; 3] = ["train", "validation", "test"];

const DAY: i32 = 24 * 60 * 60;

/// The part (index in [`PARTS`]) of each of a user's events. Times are given oldest first; events of one second come in a random order.
/// `latest` is the time of the last event of all users.
///
/// By shares, floor(n · share) of the events are test and validation. If both shares are positive, a user with three or more events has at
/// least one of each, so that every such user is evaluated. All events of a user with fewer are training events.
pub(crate) fn parts(times: &[i32], latest: i32, split: Parts) -> impl Iterator<Item = usize> {
    let events = times.len();
    let (validation, test) = match split {
        Parts::User { test, validation } => {
            let count = |share: f64| {
                let least = usize::from(share > 0.0 && events >= 3);
                ((events as f64 * share).floor() as usize).max(least)
            };
            (count(validation), count(test))
        }
        Parts::Days { test, validation } => {
            let last_day = i64::from(latest.div_euclid(DAY));
            let since = |days: u32| {
                let first = last_day - i64::from(days) + 1;
                let before = times.partition_point(|time| i64::from(time.div_euclid(DAY)) < first);
                events - before
            };
            let test_events = since(test);
            (
                since(test.saturating_add(validation)) - test_events,
                test_events,
            )
        }
    };
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

    fn counts(events: usize, test: f64, validation: f64) -> [usize; 3] {
        let mut counts = [0; 3];
        parts(&vec![0; events], 0, Parts::User { test, validation })
            .for_each(|part| counts[part] += 1);
        counts
    }

    #[test]
    fn the_last_tenth_is_test_and_the_tenth_before_validation() {
        let counts = |events| counts(events, 0.1, 0.1);
        assert_eq!(counts(20), [16, 2, 2]);
        assert_eq!(counts(29), [25, 2, 2]);
        assert_eq!(counts(5), [3, 1, 1]);
        assert_eq!(counts(2), [2, 0, 0]);
        assert_eq!(counts(0), [0, 0, 0]);
    }

    #[test]
    fn days_end_at_midnight_in_utc() {
        let days = |test, validation| Parts::Days { test, validation };
        let of = |times: &[i32], latest, split| parts(times, latest, split).collect::<Vec<_>>();
        let times = [0, DAY - 1, DAY, 2 * DAY - 1, 2 * DAY, 3 * DAY, 4 * DAY];
        assert_eq!(of(&times, 4 * DAY + 5, days(1, 1)), [0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(of(&times, 4 * DAY + 5, days(2, 2)), [0, 0, 1, 1, 1, 2, 2]);
        assert_eq!(of(&times, 4 * DAY + 5, days(0, 1)), [0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(of(&[DAY], 4 * DAY, days(1, 1)), [0], "the last day of all");
        assert_eq!(of(&[4 * DAY], 4 * DAY, days(1, 1)), [2], "a late user");
    }

    proptest! {
        #[test]
        fn parts_follow_each_other(events in 0usize..500, test in 0.0..0.5f64, validation in 0.0..0.49f64) {
            let split = Parts::User { test, validation };
            let parts: Vec<usize> = parts(&vec![0; events], 0, split).collect();
            prop_assert_eq!(parts.len(), events);
            prop_assert!(parts.is_sorted(), "later events are in later parts");
            let [train, validated, tested] = counts(events, test, validation);
            prop_assert_eq!(train + validated + tested, events);
            prop_assert!(events < 3 || train > 0);
            prop_assert!(tested as f64 <= (events as f64 * test).max(1.0));
            prop_assert!(validated as f64 <= (events as f64 * validation).max(1.0));
        }
    }
}
