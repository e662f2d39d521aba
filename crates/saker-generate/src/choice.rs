//! The model of choice: a nested logit. A user first chooses a category, then one of its items.
//!
//! Only this module combines a user, a context and an item. Sessions are drawn from its probabilities, and [`crate::Shop::preference`]
//! returns them.

use std::ops::Range;

use chacha20::ChaCha8Rng;
use rand::RngExt;

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
/// Utility lost for a category of the other gender, for such an item, and for a unisex item.
const OTHER_GENDER: f32 = 2.5;
const OTHER_GENDER_ITEM: f32 = 2.2;
const UNISEX_ITEM: f32 = 0.2;
/// Share of the price sensitivity that applies between categories, per unit of log price over `USUAL_PRICE` euros.
const PRICE_OF_CATEGORY: f32 = 0.25;
const USUAL_PRICE: f32 = 55.0;
/// Change of the price sensitivity on phones, desktops and tablets.
const PRICE_BY_DEVICE: [f32; 3] = [0.3, -0.3, 0.0];
const PRICE_IN_THE_EVENING: f32 = -0.2;

/// Number of items from which on draws use rejection: reading every item of a category for each draw would take most of the time.
const LARGE: usize = 10_000;

/// Time and device of a visit.
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

/// The attributes of an item that the choice within its category reads.
struct Traits {
    style: u8,
    palette: u8,
    gender: Gender,
    price: f32,
}

/// The model's tables.
pub(crate) struct Choice {
    /// Items by category, then index; `starts[c]..starts[c + 1]` are those of category c. A "column" below is an index in this list.
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
    /// For each category, the data of draws by rejection; `None` for small categories.
    large: Vec<Option<Large>>,
}

/// A category of [`LARGE`] items or more.
struct Large {
    /// Running sums of e^drift: f64 [days, items of the category].
    sums: Vec<f64>,
    /// The largest absolute price deviation.
    price: f32,
}

impl Choice {
    pub(crate) fn new(settings: &Settings, items: &[Item]) -> Self {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&index| (items[index].category, index));
        let starts: Vec<usize> = (0..=CATEGORIES.len())
            .map(|category| order.partition_point(|&index| items[index].category < category))
            .collect();
        let traits: Vec<Traits> = order
            .iter()
            .map(|&index| Traits {
                style: items[index].style as u8,
                palette: items[index].colour().palette as u8,
                gender: items[index].gender,
                price: items[index].price_deviation(),
            })
            .collect();
        let drift = drift::items(settings, items, &order);
        let large = starts
            .windows(2)
            .map(|span| {
                let columns = span[0]..span[1];
                (columns.len() >= LARGE).then(|| Large::new(&drift, &traits, columns))
            })
            .collect();
        Self {
            large,
            traits,
            drift,
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

    /// Draws an item of a large category from the distribution of [`Choice::within`], without computing it. Returns `None` for a small
    /// category.
    ///
    /// It proposes an item by drift alone. It accepts by the user's part of the utility, relative to the maximum of this part. `factor` is a
    /// further weight of each column, 0 to 1.
    pub(crate) fn draw_large(
        &self,
        rng: &mut ChaCha8Rng,
        (user, context): (&User, Context),
        category: usize,
        factor: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let large = self.large[category].as_ref()?;
        let first = self.starts[category];
        let count = self.starts[category + 1] - first;
        let sums = &large.sums[context.day * count..][..count];
        let most = |tastes: &[f32]| tastes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let bound = most(&user.styles)
            + most(&user.palettes)
            + price_sensitivity(user, context).abs() * large.price;
        loop {
            let at = rng.random::<f64>() * sums[count - 1];
            let column = first + sums.partition_point(|&sum| sum <= at).min(count - 1);
            let share = f64::from(self.taste(user, context, column) - bound).exp();
            if rng.random::<f64>() < share * factor(column) {
                return Some(column);
            }
        }
    }

    /// The part of an item's utility that depends on the user.
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

    /// Likeness of two items of a category, 0 to 3: one each for same style, same palette, and prices within half a deviation.
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

impl Large {
    fn new(drift: &[f32], traits: &[Traits], columns: Range<usize>) -> Self {
        let mut sums = Vec::with_capacity(drift.len() / traits.len() * columns.len());
        for day in drift.chunks_exact(traits.len()) {
            let mut sum = 0.0;
            sums.extend(day[columns.clone()].iter().map(|&drift| {
                sum += f64::from(drift).exp();
                sum
            }));
        }
        let prices = traits[columns].iter().map(|item| item.price.abs());
        Self {
            sums,
            price: prices.fold(0.0, f32::max),
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

/// Directions of the categories in the space of a user's own taste, spread by the golden angle so that all differ.
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
    use crate::catalogue;
    use crate::random::{Purpose, stream};
    use crate::settings::Scale;

    #[test]
    fn the_weekend_is_saturday_and_sunday() {
        // 1970-01-01 was a Thursday.
        let week: Vec<bool> = (0..7).map(is_weekend).collect();
        assert_eq!(week, [false, false, true, true, false, false, false]);
    }

    #[test]
    fn a_draw_by_rejection_has_the_probabilities_of_a_large_category() {
        let mut settings = Settings::new(Scale::Small);
        (settings.items, settings.users, settings.days) = (400_000, 100, 2);
        let items = catalogue::items(&settings);
        let choice = Choice::new(&settings, &items);
        let user = &population::users(&settings)[7];
        let context = Context::new(&settings, 0, settings.midnight(1) + 20 * 3600);
        let category = (0..CATEGORIES.len())
            .max_by_key(|&category| choice.starts[category + 1] - choice.starts[category])
            .unwrap_or_default();
        let first = choice.starts[category];
        let mut exact = Vec::new();
        choice.within(user, context, category, &mut exact);
        assert!(exact.len() >= LARGE);

        // Compares means of the items' attributes (rank, gender, style, price): the expectation and that of the draws.
        let about = |column: usize| {
            let item = &choice.traits[column];
            [
                f64::from(u8::from(items[choice.order[column]].popularity > -4.0)),
                f64::from(u8::from(differs(user.gender, item.gender))),
                f64::from(user.styles[usize::from(item.style)]),
                f64::from(item.price),
            ]
        };
        let mut expected = [0.0; 4];
        for (place, probability) in exact.iter().enumerate() {
            for (sum, value) in expected.iter_mut().zip(about(first + place)) {
                *sum += probability * value;
            }
        }
        const DRAWS: usize = 40_000;
        let mut rng = stream(1, Purpose::Visits, 0, 0);
        let mut found = [0.0; 4];
        for _ in 0..DRAWS {
            let column = choice.draw_large(&mut rng, (user, context), category, |_| 1.0);
            for (sum, value) in found
                .iter_mut()
                .zip(about(column.expect("a large category")))
            {
                *sum += value / DRAWS as f64;
            }
        }
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.02, "{found}, {expected}");
        }
    }
}
