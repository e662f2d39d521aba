//! Visits: users, hours and devices.

use chacha20::ChaCha8Rng;
use rand::RngExt;

use crate::choice::{Context, is_weekend};
use crate::personas::PERSONAS;
use crate::population::User;
use crate::random::draw;
use crate::settings::Settings;

/// Share of a user's visits on the main device, independent of the persona's shares.
const MAIN_DEVICE: f64 = 0.7;

/// The users by persona, so that one draw and one search find a visitor.
pub(crate) struct Visits {
    first_day: i32,
    /// Users of each persona, in the order of their sign-up.
    members: Vec<Vec<u32>>,
    /// Running sums of their activity.
    activity: Vec<Vec<f64>>,
    /// Number of these users who have signed up by each day: [personas][days].
    signed_up: Vec<Vec<usize>>,
}

impl Visits {
    pub(crate) fn new(settings: &Settings, users: &[User]) -> Self {
        let mut members = vec![Vec::new(); PERSONAS.len()];
        for (index, user) in users.iter().enumerate() {
            members[usize::from(user.persona)].push(index as u32);
        }
        let activity = members
            .iter()
            .map(|members| {
                let mut sum = 0.0;
                members
                    .iter()
                    .map(|&index| {
                        sum += f64::from(users[index as usize].activity);
                        sum
                    })
                    .collect()
            })
            .collect();
        let signed_up = members
            .iter()
            .map(|members| {
                (0..settings.days as i32)
                    .map(|day| {
                        members.partition_point(|&index| users[index as usize].signup <= day)
                    })
                    .collect()
            })
            .collect();
        Self {
            first_day: settings.first_day.unix_day(),
            members,
            activity,
            signed_up,
        }
    }

    fn is_weekend(&self, day: usize) -> bool {
        is_weekend(self.first_day + day as i32)
    }

    /// Visits of each persona in an hour, relative to each other and to other hours.
    pub(crate) fn rates(&self, day: usize, hour: usize) -> Vec<f64> {
        let weekend = self.is_weekend(day);
        PERSONAS
            .iter()
            .enumerate()
            .map(|(index, persona)| {
                let there = self.signed_up[index][day];
                let activity = there
                    .checked_sub(1)
                    .map_or(0.0, |last| self.activity[index][last]);
                activity * persona.visits(hour, weekend)
            })
            .collect()
    }

    /// Draws a visitor of an hour by the personas' `rates`; returns a user index.
    pub(crate) fn visitor(&self, rng: &mut ChaCha8Rng, rates: &[f64], day: usize) -> usize {
        let persona = draw(rng, rates);
        let activity = &self.activity[persona][..self.signed_up[persona][day]];
        let all = activity.last().copied().unwrap_or_default();
        let at = rng.random::<f64>() * all;
        let place = activity.partition_point(|&sum| sum <= at);
        self.members[persona][place.min(activity.len().saturating_sub(1))] as usize
    }

    /// The context of a visit of this user on the device of weight `device`, see [`devices`].
    pub(crate) fn context(&self, day: usize, hour: usize, device: usize) -> Context {
        Context {
            day,
            hour,
            weekend: self.is_weekend(day),
            device,
        }
    }
}

/// Weights of mobile, desktop and tablet for a user in an hour; their sum is not 1.
pub(crate) fn devices(user: &User, hour: usize, weekend: bool) -> [f64; 3] {
    let at_work = (9..17).contains(&hour) && !weekend;
    let by_hour = [
        if at_work { 0.7 } else { 1.2 },
        if at_work { 1.6 } else { 0.7 },
        if hour >= 19 { 1.4 } else { 0.9 },
    ];
    let habits = &PERSONAS[usize::from(user.persona)].device;
    std::array::from_fn(|device| {
        let main = f64::from(u8::from(usize::from(user.main_device) == device));
        (MAIN_DEVICE * main + (1.0 - MAIN_DEVICE) * habits[device]) * by_hour[device]
    })
}

/// Number of rows per hour of all days: shares of `interactions` in proportion to the visits, rounded so that their sum is exact.
pub(crate) fn quotas(settings: &Settings, visits: &Visits) -> Vec<u64> {
    let hours = settings.days * 24;
    let weights: Vec<f64> = (0..hours)
        .map(|hour| visits.rates(hour / 24, hour % 24).iter().sum())
        .collect();
    let all: f64 = weights.iter().sum();
    // Differences of a rounded running sum add up to the exact total.
    let (mut sum, mut before) = (0.0, 0);
    weights
        .iter()
        .enumerate()
        .map(|(hour, weight)| {
            sum += weight;
            let until = if hour + 1 == hours {
                settings.interactions
            } else {
                (sum / all * settings.interactions as f64).round() as u64
            };
            let quota = until.saturating_sub(before);
            before += quota;
            quota
        })
        .collect()
}
