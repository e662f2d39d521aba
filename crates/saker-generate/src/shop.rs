//! The shop: its items, its users, its model of behaviour, and the true preferences of this model.

use std::collections::HashSet;
use std::path::Path;

use rand::RngExt;
use rayon::prelude::*;

use crate::catalogue::{self, Item};
use crate::choice::{Choice, Context};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::population::{self, User};
use crate::random::{Purpose, draw, stream};
use crate::session::{Event, Sessions, Visit};
use crate::settings::{SECONDS_A_DAY, Settings};
use crate::text;
use crate::visits::{Visits, devices, quotas};

/// A shop, rebuilt from its [`Settings`] alone.
///
/// # The true preference
/// [`Shop::preference`] is exactly the distribution from which the generator draws the **first item of a session**. Later items of a
/// session depend on the earlier ones:
///
/// - With probability 0.62 the next item is another one of the same category. Its probability there is multiplied by
///   e^(0.6 · likeness) with the last item.
/// - With 0.23 a category that completes the outfit is drawn.
/// - With 0.15 the next item is a new draw from this distribution.
///
/// # Order of the items
/// Arrays over items, f64 `[items]`, are in the order of [`Shop::items`]: ascending ids, as the rows of `items.parquet`.
pub struct Shop {
    settings: Settings,
    items: Vec<Item>,
    users: Vec<User>,
    choice: Choice,
    visits: Visits,
    quotas: Vec<u64>,
}

/// A user's first choice in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstChoice {
    /// Index of the user.
    pub user: usize,
    /// Index of the item.
    pub item: usize,
    /// Time and device.
    pub context: Context,
}

impl Shop {
    /// Builds the shop of these settings.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid.
    pub fn new(settings: &Settings) -> Result<Self> {
        settings.validate()?;
        let items = catalogue::items(settings);
        let users = population::users(settings);
        let visits = Visits::new(settings, &users);
        Ok(Self {
            choice: Choice::new(settings, &items),
            quotas: quotas(settings, &visits),
            settings: settings.clone(),
            items,
            users,
            visits,
        })
    }

    /// Rebuilds the shop of a folder from its `generator.json`.
    ///
    /// # Errors
    /// Returns an error if the folder has no such file, or one of another version of the model.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::new(&Manifest::read(folder)?.settings)
    }

    /// The settings from which the shop was built.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All items, by ascending id.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// All users, by ascending id.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// The index in [`Shop::items`] of an item id.
    pub fn item_index(&self, id: i32) -> Option<usize> {
        catalogue::index(&self.items, id)
    }

    /// The index in [`Shop::users`] of a user id.
    pub fn user_index(&self, id: i32) -> Option<usize> {
        population::index(&self.users, id)
    }

    /// The title of the item of this index, such as `Fenna women's navy wool coat`.
    ///
    /// # Panics
    /// Panics if `item` is not an index of [`Shop::items`].
    pub fn title(&self, item: usize) -> String {
        text::title(&self.items[item], self.settings.seed)
    }

    /// The description of the item of this index: three to five sentences.
    ///
    /// # Panics
    /// Panics if `item` is not an index of [`Shop::items`].
    pub fn description(&self, item: usize) -> String {
        text::description(&self.items[item], self.settings.seed)
    }

    /// The context of a request: `device` 0 mobile, 1 desktop, 2 tablet; `timestamp` in Unix seconds, UTC. `None` for any
    /// other device.
    pub fn context(&self, device: i32, timestamp: i32) -> Option<Context> {
        let device = usize::try_from(device).ok().filter(|&device| device < 3)?;
        Some(Context::new(&self.settings, device, timestamp))
    }

    /// The true preference: for each item, the probability that the user of this index chooses it first in a session in this context. It is
    /// 0 for an item before its launch. `out` is f64 `[items]` and sums to 1.
    ///
    /// The call takes about 30 µs with 2,465 items.
    ///
    /// # Panics
    /// Panics if `user` is not an index of [`Shop::users`], or if `out` is shorter than [`Shop::items`].
    pub fn preference_into(&self, user: usize, context: Context, out: &mut [f64]) {
        self.choice.items(&self.users[user], context, out);
    }

    /// Like [`Shop::preference_into`], as a new f64 `[items]`.
    ///
    /// # Panics
    /// Panics if `user` is not an index of [`Shop::users`].
    pub fn preference(&self, user: usize, context: Context) -> Vec<f64> {
        let mut out = vec![0.0; self.items.len()];
        self.preference_into(user, context, &mut out);
        out
    }

    /// The `count` items that a user most likely chooses first in a context, the likeliest first: their indices and probabilities.
    ///
    /// # Panics
    /// Panics if `user` is not an index of [`Shop::users`].
    pub fn favourites(&self, user: usize, context: Context, count: usize) -> Vec<(usize, f64)> {
        let mut items: Vec<(usize, f64)> = self
            .preference(user, context)
            .into_iter()
            .enumerate()
            .collect();
        items.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        items.truncate(count);
        items
    }

    /// The best estimate for an unknown user, of whom only the context is known: the mean of the true preferences over the users who visit
    /// in this context. It is f64 `[items]`, estimated from `sample` users. Equal arguments give the same sample.
    pub fn context_preference(&self, context: Context, sample: usize) -> Vec<f64> {
        let key = (context.day * 24 + context.hour) as u64;
        let seed = self.settings.seed;
        let mut rng = stream(seed, Purpose::Average, key, context.device as u64);
        let rates = self.visits.rates(context.day, context.hour);
        let visitors: Vec<(usize, f64)> = (0..sample.max(1))
            .map(|_| {
                let user = self.visits.visitor(&mut rng, &rates, context.day);
                let weights = devices(&self.users[user], context.hour, context.weekend);
                let all: f64 = weights.iter().sum();
                (user, weights[context.device] / all)
            })
            .collect();
        let all: f64 = visitors.iter().map(|(_, weight)| weight).sum();
        // Sum in blocks of fixed size, so that the result does not depend on the number of threads.
        let sums: Vec<Vec<f64>> = visitors
            .par_chunks(256)
            .map(|visitors| {
                let mut sum = vec![0.0; self.items.len()];
                let mut one = vec![0.0; self.items.len()];
                for &(user, weight) in visitors {
                    self.preference_into(user, context, &mut one);
                    for (sum, probability) in sum.iter_mut().zip(&one) {
                        *sum += weight / all * probability;
                    }
                }
                sum
            })
            .collect();
        let mut mean = vec![0.0; self.items.len()];
        for sum in sums {
            for (mean, part) in mean.iter_mut().zip(sum) {
                *mean += part;
            }
        }
        mean
    }

    /// Rows of a day.
    pub fn rows(&self, day: usize) -> u64 {
        self.quotas[day * 24..(day + 1) * 24].iter().sum()
    }

    /// The first choice of every session of a day, in the order of time. Each is a draw from [`Shop::preference`].
    pub fn first_choices(&self, day: usize) -> Vec<FirstChoice> {
        let mut seen = HashSet::new();
        let mut first = self.events(day);
        first.retain(|event| seen.insert(event.session));
        let choice = |event: Event| FirstChoice {
            user: event.user as usize,
            item: event.item as usize,
            context: Context::new(&self.settings, usize::from(event.device), event.timestamp),
        };
        first.into_iter().map(choice).collect()
    }

    /// All events of a day in the order of time, then of session.
    pub(crate) fn events(&self, day: usize) -> Vec<Event> {
        let hours: Vec<Vec<Event>> = (0..24)
            .into_par_iter()
            .map(|hour| self.events_of_hour(day, hour))
            .collect();
        let mut events = hours.concat();
        // Stable: the events of a session stay in their order within a second.
        events.par_sort_by_key(|event| (event.timestamp, event.session));
        events
    }

    /// The sessions that begin in an hour. Their rows fill the hour's quota; the last session is cut at the quota.
    fn events_of_hour(&self, day: usize, hour: usize) -> Vec<Event> {
        let number = (day * 24 + hour) as u64;
        let quota = self.quotas[day * 24 + hour] as usize;
        let mut rng = stream(self.settings.seed, Purpose::Visits, number, 0);
        let rates = self.visits.rates(day, hour);
        let midnight = self.settings.midnight(day);
        let mut sessions = Sessions::new(&self.choice);
        let mut events = Vec::with_capacity(quota + 64);
        let mut session = (number as i64) << 32;
        while events.len() < quota {
            let index = self.visits.visitor(&mut rng, &rates, day);
            let user = &self.users[index];
            let weekend = self.visits.context(day, hour, 0).weekend;
            let device = draw(&mut rng, &devices(user, hour, weekend));
            session += 1;
            let visit = Visit {
                index,
                user,
                context: self.visits.context(day, hour, device),
                start: midnight + hour as i32 * 3600 + rng.random_range(0..3600),
                end: midnight + SECONDS_A_DAY - 1,
                session,
            };
            sessions.draw(&mut rng, &visit, &mut events);
        }
        events.truncate(quota);
        events
    }
}
