//! Changes of demand from day to day: the season of categories, a random walk and bursts of fashion of items, and the novelty of launches.

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

use crate::catalogue::Item;
use crate::random::{Purpose, stream};
use crate::settings::Settings;
use crate::taxonomy::CATEGORIES;

/// Deviation of an item's random walk per day, and the share of the walk that is left after a day.
const STEP: f32 = 0.10;
const MEMORY: f32 = 0.97;
/// Probability that an item comes into fashion on a day. The burst grows for two days and then loses a fifth per day.
const BURST_CHANCE: f64 = 0.005;
const BURST: f32 = 1.7;
const BURST_FADES: f32 = 0.8;
/// Initial utility of a launch, and the days until it has decreased to 1/e.
const NOVELTY: f32 = 1.0;
const NOVELTY_DAYS: f32 = 4.0;
/// The season rises for four weeks and falls for four.
const SEASON_DAYS: f32 = 28.0;

/// Progress of the season on a day: 0 on the first day, 1 after four weeks.
fn season(day: usize) -> f32 {
    (std::f32::consts::FRAC_PI_2 * day as f32 / SEASON_DAYS).sin()
}

/// Utility that the season adds to each category on each day: f32 [days, categories].
pub(crate) fn categories(days: usize) -> Vec<f32> {
    (0..days)
        .flat_map(|day| {
            CATEGORIES
                .iter()
                .map(move |category| category.season * season(day))
        })
        .collect()
}

/// The part of each item's utility on each day that does not depend on the user: f32 [days, items], -∞ before the launch.
/// Column j is item `order[j]`.
pub(crate) fn items(settings: &Settings, items: &[Item], order: &[usize]) -> Vec<f32> {
    let mut table = vec![0.0; settings.days * items.len()];
    for (column, &index) in order.iter().enumerate() {
        let item = &items[index];
        let mut rng = stream(settings.seed, Purpose::Drift, index as u64, 0);
        let (mut walk, mut burst, mut growing) = (0.0_f32, 0.0_f32, 0);
        for day in 0..settings.days {
            if day > 0 {
                let step: f32 = StandardNormal.sample(&mut rng);
                walk = MEMORY * walk + STEP * step;
                burst *= BURST_FADES;
                if rng.random_bool(BURST_CHANCE) {
                    growing = 2;
                }
                if growing > 0 {
                    growing -= 1;
                    burst += BURST / 2.0;
                }
            }
            let age = day as i32 - item.launch;
            table[day * items.len() + column] = if age < 0 {
                f32::NEG_INFINITY
            } else {
                let novelty = NOVELTY * (-(age as f32) / NOVELTY_DAYS).exp();
                item.popularity + walk + burst + novelty
            };
        }
    }
    table
}
