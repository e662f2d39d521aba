//! Derives a column from a user's events: the most frequent category of the recent items.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::serving_log::Row;

/// A user's most frequent category at each moment. It equals the value that serving recomputes after every event
/// (`saker_store::recent::top_category`), so that training and serving use the same values.
///
/// Items count once, at their latest time, as in `user:{id}:recent_items`.
pub(crate) struct Recent<'a> {
    seconds: i32,
    /// Values that serving wrote for this user: user, Unix seconds, value, oldest first.
    served: &'a [Row],
    /// Item, its latest time, its category.
    items: Vec<(i32, i32, i32)>,
    /// The second of the latest events, which do not count before the second is over.
    now: Option<i32>,
    value: Option<i32>,
    /// The latest item, its time, and the value before the first of its consecutive events.
    offered: Option<(i32, i32, Option<i32>)>,
}

/// A visit ends after half an hour without events, the convention of web analytics.
const VISIT_SECONDS: i32 = 30 * 60;

impl<'a> Recent<'a> {
    /// A user without events; an item is recent for `seconds`. If serving wrote values, they take precedence over values computed from the
    /// events.
    pub(crate) fn new(seconds: i32, served: &'a [Row]) -> Self {
        Self {
            seconds,
            served,
            items: Vec::new(),
            now: None,
            value: None,
            offered: None,
        }
    }

    /// The value at `time`, after all events of earlier seconds. Events of the same second do not count, because their order is unknown. Times
    /// must not decrease.
    pub(crate) fn before(&mut self, time: i32) -> Option<i32> {
        if self.now.is_some_and(|now| now < time) {
            self.settle();
        }
        match self.served.partition_point(|&(_, at, _)| at < time) {
            0 => self.value,
            written => Some(self.served[written - 1].2),
        }
    }

    /// The value when `item` was offered to the user, who has an event with it at `time`: the value [`before`](Self::before) the first of the
    /// visit's consecutive events with this item. Otherwise a view would reveal the click that follows it.
    pub(crate) fn before_offer(&mut self, time: i32, item: i32) -> Option<i32> {
        let value = match self.offered {
            Some((last, at, value)) if last == item && time - at <= VISIT_SECONDS => value,
            _ => self.before(time),
        };
        self.offered = Some((item, time, value));
        value
    }

    /// Adds an event with `item` of `category`.
    pub(crate) fn add(&mut self, time: i32, item: i32, category: Option<i32>) {
        if self.now.is_some_and(|now| now < time) {
            self.settle();
        }
        self.now = Some(time);
        if let Some(category) = category {
            self.items.retain(|(other, _, _)| *other != item);
            self.items.push((item, time, category));
        }
    }

    /// The value after all events.
    pub(crate) fn latest(mut self) -> Option<i32> {
        self.settle();
        self.value
    }

    fn settle(&mut self) {
        let Some(now) = self.now.take() else { return };
        let since = i64::from(now) - i64::from(self.seconds);
        self.items.retain(|(_, time, _)| i64::from(*time) >= since);
        // Few items and fewer categories: counting by comparison beats a hash table.
        let of = |category: i32| self.items.iter().filter(move |item| item.2 == category);
        let top = self
            .items
            .iter()
            .map(|item| item.2)
            .max_by_key(|&category| {
                let latest = of(category).map(|item| item.1).max();
                (of(category).count(), latest, Reverse(category))
            });
        // Without a recent item, the old value stays.
        self.value = top.or(self.value);
    }
}

/// The most frequent value; on a tie, the tied one that comes first. The newest event comes first.
pub(crate) fn most_frequent(values: impl Iterator<Item = i32>) -> Option<i32> {
    let mut counts: HashMap<i32, (usize, usize)> = HashMap::new();
    for (place, value) in values.enumerate() {
        counts.entry(value).or_insert((0, place)).0 += 1;
    }
    counts
        .into_iter()
        .max_by_key(|&(_, (count, first))| (count, Reverse(first)))
        .map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use saker_store::recent::top_category;

    use super::*;

    const DAY: i32 = 24 * 60 * 60;

    #[test]
    fn ties_go_to_the_latest() {
        assert_eq!(most_frequent([3, 5, 5, 3].into_iter()), Some(3));
        assert_eq!(most_frequent([3, 5, 5].into_iter()), Some(5));
        assert_eq!(most_frequent([].into_iter()), None);
    }

    #[test]
    fn an_event_sees_only_what_came_before_its_second() {
        let mut recent = Recent::new(DAY, &[]);
        assert_eq!(recent.before(100), None);
        recent.add(100, 1, Some(7));
        assert_eq!(recent.before(100), None, "the same second");
        recent.add(100, 2, Some(7));
        assert_eq!(recent.before(101), Some(7));
        recent.add(101, 3, None);
        assert_eq!(recent.before(DAY * 3), Some(7), "the old value stays");
        recent.add(DAY * 3, 4, Some(2));
        assert_eq!(recent.latest(), Some(2));
    }

    #[test]
    fn a_view_does_not_tell_of_the_click_that_follows_it() {
        let mut recent = Recent::new(DAY, &[]);
        let mut meet = |time, item, category| {
            let before = recent.before_offer(time, item);
            recent.add(time, item, Some(category));
            before
        };
        assert_eq!(meet(100, 1, 7), None);
        assert_eq!(meet(105, 1, 7), None, "the click");
        assert_eq!(meet(200, 2, 8), Some(7));
        assert_eq!(meet(210, 2, 8), Some(7));
        assert_eq!(meet(211, 1, 7), Some(8), "another item came between");
        assert_eq!(meet(212 + VISIT_SECONDS, 1, 7), Some(7), "another visit");
    }

    #[test]
    fn what_serving_wrote_stands_from_the_second_after() {
        let mut recent = Recent::new(DAY, &[(1, 105, 3), (1, 300, 4)]);
        recent.add(100, 1, Some(7));
        assert_eq!(recent.before(105), Some(7));
        assert_eq!(recent.before(106), Some(3));
        recent.add(200, 2, Some(8));
        assert_eq!(
            recent.before(300),
            Some(3),
            "not what follows from the events"
        );
        assert_eq!(recent.before(301), Some(4));
    }

    proptest! {
        /// Replays the events through the function that serves.
        #[test]
        fn training_sees_what_serving_saw(
            mut times in proptest::collection::vec(0..4 * DAY, 0..40),
            items in proptest::collection::vec(0..12i32, 40),
        ) {
            times.sort_unstable();
            let category = |item: i64| (item != 5).then_some(item as i32 / 4);
            let mut recent = Recent::new(DAY, &[]);
            let mut stored: BTreeMap<i64, i64> = BTreeMap::new();
            let mut served = None;
            for (start, &time) in times.iter().enumerate() {
                prop_assert_eq!(recent.before(time), served, "event {} at {}", start, time);
                recent.add(time, items[start], category(i64::from(items[start])));
                stored.insert(i64::from(items[start]), i64::from(time) * 1_000_000);
                if times.get(start + 1) == Some(&time) {
                    continue;
                }
                let stored: Vec<(i64, i64)> = stored.iter().map(|(&item, &at)| (item, at)).collect();
                served = top_category(&stored, i64::from(time) * 1_000_000, category).or(served);
            }
            prop_assert_eq!(recent.latest(), served);
        }
    }
}
