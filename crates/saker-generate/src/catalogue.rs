//! The items: their attributes, their launches and their base popularity.

use chacha20::ChaCha8Rng;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};

use crate::random::{Purpose, draw, stream};
use crate::settings::Settings;
use crate::taxonomy::{CATEGORIES, COLOURS, Colour, Gender, Style};

/// An item of the shop.
#[derive(Clone, Debug)]
pub struct Item {
    /// Raw id. Ids have gaps and do not start at 0.
    pub id: i32,
    /// Index in [`CATEGORIES`]: the column `category_l2`.
    pub category: usize,
    /// Gender of the item's customers.
    pub gender: Gender,
    /// The style.
    pub style: Style,
    /// Main colour, an index in [`COLOURS`].
    pub colour: usize,
    /// Second colour.
    pub accent: usize,
    /// The material.
    pub material: &'static str,
    /// Price in euros.
    pub price: f32,
    /// First day on which the item can be bought, as an index of the shop's days; 0 or less: from the first day.
    pub launch: i32,
    /// Logarithm of its popularity within its category.
    pub(crate) popularity: f32,
}

impl Item {
    /// Its main colour.
    pub fn colour(&self) -> &'static Colour {
        &COLOURS[self.colour]
    }

    /// Logarithm of the price relative to the category's median, in deviations.
    pub(crate) fn price_deviation(&self) -> f32 {
        (self.price / CATEGORIES[self.category].price).ln() / PRICE_DEVIATION
    }
}

/// Deviation of log prices within a category.
const PRICE_DEVIATION: f32 = 0.4;
/// Exponent of the popularity of an item by its rank r in its category: (r + 2)^-0.9 for r = 0, 1, …
const POPULARITY_EXPONENT: f32 = 0.9;
/// Share of items that are launched after the first day.
const LATE: f64 = 0.1;
/// Smallest item id, and the interval in which each id lies.
const FIRST_ID: i32 = 20_011;
const ID_STEP: i32 = 7;

/// All items, in the order of their ids.
pub(crate) fn items(settings: &Settings) -> Vec<Item> {
    let mut rng = stream(settings.seed, Purpose::Items, 0, 0);
    // Every category gets a share of the items by the square root of its sales, and at least one if there are enough.
    let room: Vec<f64> = CATEGORIES
        .iter()
        .map(|category| f64::from(category.base / 2.0).exp())
        .collect();
    let mut categories: Vec<usize> = (0..settings.items)
        .map(|index| {
            if index < CATEGORIES.len() {
                index
            } else {
                draw(&mut rng, &room)
            }
        })
        .collect();
    categories.shuffle(&mut rng);
    let mut sizes = vec![0_usize; CATEGORIES.len()];
    for &category in &categories {
        sizes[category] += 1;
    }
    let mut ranks: Vec<Vec<usize>> = sizes
        .iter()
        .map(|&size| {
            let mut ranks: Vec<usize> = (0..size).collect();
            ranks.shuffle(&mut rng);
            ranks
        })
        .collect();
    let mut items: Vec<Item> = categories
        .iter()
        .enumerate()
        .map(|(index, &category)| {
            let rank = ranks[category].pop().unwrap_or_default();
            item(index, category, rank, settings, &mut rng)
        })
        .collect();
    // The most popular item of a category exists from the first day, so no category is ever empty.
    for category in 0..CATEGORIES.len() {
        let first = items
            .iter_mut()
            .filter(|item| item.category == category)
            .max_by(|a, b| a.popularity.total_cmp(&b.popularity));
        if let Some(first) = first {
            first.launch = first.launch.min(0);
        }
    }
    items
}

fn item(
    index: usize,
    category: usize,
    rank: usize,
    settings: &Settings,
    rng: &mut ChaCha8Rng,
) -> Item {
    let kind = &CATEGORIES[category];
    let gender = kind.gender.unwrap_or_else(|| {
        let genders = [Gender::Women, Gender::Men, Gender::Unisex];
        genders[draw(rng, &[0.45, 0.38, 0.17])]
    });
    let colour = rng.random_range(0..COLOURS.len());
    let accent = (colour + rng.random_range(1..COLOURS.len())) % COLOURS.len();
    let deviation: f32 = StandardNormal.sample(rng);
    let price = kind.price * (PRICE_DEVIATION * deviation.clamp(-2.5, 2.5)).exp();
    let launch = if settings.days > 1 && rng.random_bool(LATE) {
        rng.random_range(1..settings.days as i32)
    } else {
        -rng.random_range(0..400)
    };
    Item {
        id: FIRST_ID + ID_STEP * index as i32 + rng.random_range(0..ID_STEP),
        category,
        gender,
        style: kind.styles[rng.random_range(0..kind.styles.len())],
        colour,
        accent,
        material: kind.materials[rng.random_range(0..kind.materials.len())],
        price: price.round().max(3.0) - 0.05,
        launch,
        popularity: -POPULARITY_EXPONENT * (rank as f32 + 2.0).ln(),
    }
}

/// The index of an item id.
pub(crate) fn index(items: &[Item], id: i32) -> Option<usize> {
    let index = usize::try_from(id.checked_sub(FIRST_ID)?.div_euclid(ID_STEP)).ok()?;
    items.get(index).filter(|item| item.id == id)?;
    Some(index)
}
