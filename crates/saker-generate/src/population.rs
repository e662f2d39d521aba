//! The users: their visible attributes (age, gender) and their hidden ones (persona, tastes, main device).

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use crate::personas::PERSONAS;
use crate::random::{Purpose, USER_BLOCK, draw, stream};
use crate::settings::Settings;
use crate::taxonomy::{CATEGORIES, PALETTES, STYLES};

/// Dimension of the hidden taste for categories.
pub(crate) const LATENT: usize = 4;

/// A user of the shop.
#[derive(Clone, Debug)]
pub struct User {
    /// Raw id. Ids have gaps and do not start at 0.
    pub id: i32,
    /// Years.
    pub age: u8,
    /// 0 female, 1 male, 2 unknown.
    pub gender: u8,
    /// First day on which the user can visit, as an index of the shop's days; 0 or less: from the first day.
    pub signup: i32,
    pub(crate) persona: u8,
    /// 0 mobile, 1 desktop, 2 tablet.
    pub(crate) main_device: u8,
    pub(crate) price: f32,
    pub(crate) styles: [f32; STYLES],
    pub(crate) palettes: [f32; PALETTES],
    pub(crate) latent: [f32; LATENT],
    /// Frequency of the user's visits, relative to others.
    pub(crate) activity: f32,
}

impl User {
    /// Name of the user's persona, which no table contains.
    pub fn persona(&self) -> &'static str {
        PERSONAS[usize::from(self.persona)].name
    }
}

/// Share of users who sign up after the first day.
const LATE: f64 = 0.12;
/// Exponent of the activity of a user by rank r among n: (r + n/200)^-0.7.
const ACTIVITY_EXPONENT: f32 = 0.7;
/// Deviation of a user's tastes from the persona's.
const STYLE_DEVIATION: f32 = 0.3;
const PALETTE_DEVIATION: f32 = 0.25;
const PRICE_DEVIATION: f32 = 0.2;
/// Smallest user id, and the interval in which each id lies.
const FIRST_ID: i32 = 1_000_003;
const ID_STEP: i32 = 3;

/// All users, in the order of their ids, which is also the order of their sign-up.
pub(crate) fn users(settings: &Settings) -> Vec<User> {
    let late = if settings.days > 1 {
        (settings.users as f64 * LATE).round() as usize
    } else {
        0
    };
    let shares: Vec<f64> = PERSONAS.iter().map(|persona| persona.share).collect();
    let mut users = Vec::with_capacity(settings.users);
    let user = |index: usize, rng: &mut chacha20::ChaCha8Rng| {
        let persona_index = draw(rng, &shares);
        let persona = &PERSONAS[persona_index];
        let mut normal = || -> f32 { StandardNormal.sample(rng) };
        let age = (persona.age.0 + persona.age.1 * normal()).clamp(16.0, 88.0) as u8;
        let price = persona.price + PRICE_DEVIATION * normal();
        let mut styles = [0.0; STYLES];
        styles.fill_with(|| STYLE_DEVIATION * normal());
        for &(style, liking) in persona.styles {
            styles[style as usize] += liking;
        }
        let mut palettes = persona.palettes;
        for palette in &mut palettes {
            *palette += PALETTE_DEVIATION * normal();
        }
        let mut latent = [0.0; LATENT];
        latent.fill_with(&mut normal);
        let gender = if rng.random_bool(0.05) {
            2
        } else {
            u8::from(!rng.random_bool(persona.women))
        };
        // Each user's rank is drawn independently, so a block of users does not depend on other blocks.
        let rank = rng.random::<f32>() * settings.users as f32;
        let existing = settings.users - late;
        let signup = if index < existing {
            // The oldest accounts come first, spread over two years.
            -(((existing - 1 - index) as f64 / existing as f64 * 730.0) as i32)
        } else {
            1 + ((index - existing) * (settings.days - 1) / late) as i32
        };
        User {
            id: FIRST_ID + ID_STEP * index as i32 + rng.random_range(0..ID_STEP),
            age,
            gender,
            signup,
            persona: persona_index as u8,
            main_device: draw(rng, &persona.device) as u8,
            price,
            styles,
            palettes,
            latent,
            activity: (rank + settings.users as f32 / 200.0).powf(-ACTIVITY_EXPONENT),
        }
    };
    (0..settings.users.div_ceil(USER_BLOCK))
        .into_par_iter()
        .map(|block| {
            let mut rng = stream(settings.seed, Purpose::Users, block as u64, 0);
            let indices = block * USER_BLOCK..settings.users.min((block + 1) * USER_BLOCK);
            indices
                .map(|index| user(index, &mut rng))
                .collect::<Vec<_>>()
        })
        .collect_into_vec(&mut users);
    users.into_iter().flatten().collect()
}

/// The index of a user id.
pub(crate) fn index(users: &[User], id: i32) -> Option<usize> {
    let index = usize::try_from(id.checked_sub(FIRST_ID)?.div_euclid(ID_STEP)).ok()?;
    users.get(index).filter(|user| user.id == id)?;
    Some(index)
}

/// Utility that each persona adds to each category: [personas][categories].
pub(crate) fn likes() -> Vec<Vec<f32>> {
    let likes = |persona: &crate::personas::Persona| {
        CATEGORIES
            .iter()
            .map(|category| {
                persona
                    .likes
                    .iter()
                    .find(|(name, _)| *name == category.name)
                    .map_or(0.0, |(_, liking)| *liking)
            })
            .collect()
    };
    PERSONAS.iter().map(likes).collect()
}
