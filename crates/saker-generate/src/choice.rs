//! The model of choice: a nested logit. A user first chooses a category, then an item of it.
//!
//! This is the one place where a user, a context and an item meet: sessions are drawn from these probabilities, and
//! [`crate::Shop::preference`] reports them.

use crate::catalogue::Item;
use crate::drift;
use crate::population::{self, LATENT, User};
use crate::settings::{SECONDS_A_DAY, Settings};
use crate::taxonomy::{CATEGORIES, Gender};

/// Weights of the context's tables in [`CATEGORIES`].
const DEVICE: f32 = 1.0;
const HOUR: f32 = 1.0;
const WEEKEND: f32 = 0.8;
/// Deviation of the part of a user's taste for categories that the persona does not explain.
const OWN_TASTE: f32 = 0.4;
/// What a category for the other gender costs, and an item.
const OTHER_GENDER: f32 = 2.5;
const OTHER_GENDER_ITEM: f32 = 2.2;
const UNISEX_ITEM: f32 = 0.2;
/// How much of the price sensitivity works between categories, per unit of log price over `USUAL_PRICE` euros.
const PRICE_OF_CATEGORY: f32 = 0.25;
const USUAL_PRICE: f32 = 55.0;
/// What phones add to the price sensitivity and desktops take off; what evenings take off.
const PRICE_BY_DEVICE: [f32; 3] = [0.3, -0.3, 0.0];
const PRICE_IN_THE_EVENING: f32 = -0.2;

/// When and on what a user comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Day of the shop. The model ends with its last day, so a later time counts as that day, an earlier one as day 0.
    pub day: usize,
    /// Hour of the day in UTC, 0 to 23.
    pub hour: usize,
    /// Whether it is a Saturday or Sunday.
    pub weekend: bool,
    /// 0 mobile, 1 desktop, 2 tablet.
    pub device: usize,
}

impl Context {
    pub(crate) fn new(settings: &Settings, device: usize, timestamp: i32) -> Self {
        let unix_day = timestamp.div_euclid(SECONDS_A_DAY);
        let day = (unix_day - settings.first_day.unix_day()).clamp(0, settings.days as i32 - 1);
        Self {
            day: day as usize,
            hour: (timestamp.rem_euclid(SECONDS_A_DAY) / 3600) as usize,
            weekend: is_weekend(unix_day),
            device,
        }
    }

    pub(crate) fn is_evening(self) -> bool {
        self.hour >= 18
    }
}

/// Day 0 of Unix time was a Thursday.
pub(crate) fn is_weekend(unix_day: i32) -> bool {
    (unix_day + 3).rem_euclid(7) >= 5
}

/// What of an item the choice within its category reads.
struct Traits {
    style: u8,
    palette: u8,
    gender: Gender,
    price: f32,
}

/// The model's tables.
pub(crate) struct Choice {
    /// Items by category, then index; `starts[c]..starts[c + 1]` are those of category c. "Column" below is a place here.
    pub(crate) order: Vec<usize>,
    pub(crate) starts: Vec<usize>,
    traits: Vec<Traits>,
    /// f32 [days, items]
    drift: Vec<f32>,
    /// f32 [days, categories]
    season: Vec<f32>,
    /// f32 [personas][categories]
    likes: Vec<Vec<f32>>,
    /// f32 [2 (weekend), 24, 3 (device), categories]
    context: Vec<f32>,
    /// f32 [categories, LATENT], rows of length `OWN_TASTE`
    loadings: Vec<[f32; LATENT]>,
}

impl Choice {
    pub(crate) fn new(settings: &Settings, items: &[Item]) -> Self {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&index| (items[index].category, index));
        let starts = (0..=CATEGORIES.len())
            .map(|category| order.partition_point(|&index| items[index].category < category))
            .collect();
        let traits = order
            .iter()
            .map(|&index| Traits {
                style: items[index].style as u8,
                palette: items[index].colour().palette as u8,
                gender: items[index].gender,
                price: items[index].price_deviation(),
            })
            .collect();
        Self {
            traits,
            drift: drift::items(settings, items, &order),
            season: drift::categories(settings.days),
            likes: population::likes(),
            context: context_table(),
            loadings: loadings(),
            order,
            starts,
        }
    }

    /// The probability of each category: f64 [categories].
    pub(crate) fn categories(&self, user: &User, context: Context, out: &mut Vec<f64>) {
        let count = CATEGORIES.len();
        let likes = &self.likes[usize::from(user.persona)];
        let season = &self.season[context.day * count..][..count];
        let row = (usize::from(context.weekend) * 24 + context.hour) * 3 + context.device;
        let lean = &self.context[row * count..][..count];
        let price = PRICE_OF_CATEGORY * price_sensitivity(user, context);
        out.clear();
        out.extend((0..count).map(|index| {
            if self.starts[index] == self.starts[index + 1] {
                return 0.0;
            }
            let category = &CATEGORIES[index];
            let own: f32 = self.loadings[index]
                .iter()
                .zip(&user.latent)
                .map(|(loading, latent)| loading * latent)
                .sum();
            let gender = match category.gender {
                Some(gender) if differs(user.gender, gender) => OTHER_GENDER,
                _ => 0.0,
            };
            let expensive = (category.price / USUAL_PRICE).ln();
            let utility = category.base + likes[index] + own + season[index] + lean[index]
                - gender
                - price * expensive;
            f64::from(utility).exp()
        }));
        normalise(out);
    }

    /// The probability of each item of a category, given that it is chosen: f64 [starts[c + 1] - starts[c]].
    pub(crate) fn within(
        &self,
        user: &User,
        context: Context,
        category: usize,
        out: &mut Vec<f64>,
    ) {
        let columns = self.starts[category]..self.starts[category + 1];
        let drift = &self.drift[context.day * self.order.len()..][columns.clone()];
        out.clear();
        out.extend(
            columns
                .zip(drift)
                .map(|(column, drift)| f64::from(drift + self.taste(user, context, column)).exp()),
        );
        normalise(out);
    }

    /// What of an item's utility depends on the user.
    pub(crate) fn taste(&self, user: &User, context: Context, column: usize) -> f32 {
        let item = &self.traits[column];
        let gender = match item.gender {
            Gender::Unisex => UNISEX_ITEM,
            gender if differs(user.gender, gender) => OTHER_GENDER_ITEM,
            _ => 0.0,
        };
        user.styles[usize::from(item.style)] + user.palettes[usize::from(item.palette)]
            - price_sensitivity(user, context) * item.price
            - gender
    }

    /// How alike two items of a category are, 0 to 3: same style, same palette, prices within half a deviation.
    pub(crate) fn likeness(&self, a: usize, b: usize) -> u8 {
        let (a, b) = (&self.traits[a], &self.traits[b]);
        u8::from(a.style == b.style)
            + u8::from(a.palette == b.palette)
            + u8::from((a.price - b.price).abs() < 0.5)
    }

    /// The probability of every item: f64 [items], in the order of the item ids.
    pub(crate) fn items(&self, user: &User, context: Context, out: &mut [f64]) {
        let mut categories = Vec::with_capacity(CATEGORIES.len());
        let mut within = Vec::new();
        self.categories(user, context, &mut categories);
        for (category, share) in categories.into_iter().enumerate() {
            self.within(user, context, category, &mut within);
            let indices = &self.order[self.starts[category]..self.starts[category + 1]];
            for (&index, probability) in indices.iter().zip(&within) {
                out[index] = share * probability;
            }
        }
    }
}

fn differs(user: u8, item: Gender) -> bool {
    user != 2 && i32::from(user) != item.code()
}

fn price_sensitivity(user: &User, context: Context) -> f32 {
    let evening = if context.is_evening() {
        PRICE_IN_THE_EVENING
    } else {
        0.0
    };
    user.price + PRICE_BY_DEVICE[context.device] + evening
}

fn context_table() -> Vec<f32> {
    let mut table = Vec::with_capacity(2 * 24 * 3 * CATEGORIES.len());
    for weekend in [-2.0 / 7.0, 5.0 / 7.0] {
        for hour in 0..24 {
            for device in 0..3 {
                table.extend(CATEGORIES.iter().map(|category| {
                    let (peak, lift) = category.hour;
                    let turn = std::f32::consts::TAU * (hour as f32 + 0.5 - peak) / 24.0;
                    DEVICE * category.device[device]
                        + HOUR * lift * turn.cos()
                        + WEEKEND * category.weekend * weekend
                }));
            }
        }
    }
    table
}

/// Directions of the own taste, spread by the golden angle so that no two categories share one.
fn loadings() -> Vec<[f32; LATENT]> {
    let golden = std::f32::consts::TAU * 0.381_966;
    (0..CATEGORIES.len())
        .map(|index| {
            let mut loading = [0.0; LATENT];
            for (place, value) in loading.iter_mut().enumerate() {
                let turn = golden * (index * (place / 2 + 1)) as f32;
                let wave = if place % 2 == 0 {
                    turn.sin()
                } else {
                    turn.cos()
                };
                *value = OWN_TASTE * wave / (LATENT as f32 / 2.0).sqrt();
            }
            loading
        })
        .collect()
}

fn normalise(weights: &mut [f64]) {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        for weight in weights {
            *weight /= sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weekend_is_saturday_and_sunday() {
        // 1970-01-01 was a Thursday.
        let week: Vec<bool> = (0..7).map(is_weekend).collect();
        assert_eq!(week, [false, false, true, true, false, false, false]);
    }
}
