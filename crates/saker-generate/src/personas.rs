//! The personas of visitors: their tastes, hours and devices. No table contains a user's persona.

use crate::taxonomy::Style::{
    self, Bohemian, Casual, Classic, Glamorous, Minimal, Outdoor, Sporty, Streetwear,
};

/// A kind of user. Users deviate from their persona, see `population`.
pub(crate) struct Persona {
    pub(crate) name: &'static str,
    /// Share of the users.
    pub(crate) share: f64,
    /// Share of women; one user in twenty does not say.
    pub(crate) women: f64,
    /// Mean and deviation of the age in years.
    pub(crate) age: (f32, f32),
    /// Mean of the price sensitivity: the utility lost per deviation of log price.
    pub(crate) price: f32,
    /// Shares of mobile, desktop and tablet as the main device.
    pub(crate) device: [f64; 3],
    /// Hours (UTC) of most visits on weekdays, and their heights.
    pub(crate) weekdays: &'static [(f64, f64)],
    /// The same on Saturday and Sunday.
    pub(crate) weekends: &'static [(f64, f64)],
    /// Preferred categories, and their additional utility (natural logarithm).
    pub(crate) likes: &'static [(&'static str, f32)],
    pub(crate) styles: &'static [(Style, f32)],
    /// Additional utility of neutral, bright, pastel and earth colours.
    pub(crate) palettes: [f32; 4],
}

pub(crate) static PERSONAS: [Persona; 11] = [
    Persona {
        name: "student",
        share: 0.15,
        women: 0.55,
        age: (21.0, 2.5),
        price: 1.1,
        device: [0.84, 0.10, 0.06],
        weekdays: &[(13.0, 0.5), (22.0, 1.2)],
        weekends: &[(14.0, 0.8), (22.0, 1.0)],
        likes: &[
            ("Hoodies", 1.8),
            ("Sneakers", 1.5),
            ("T-shirts", 1.2),
            ("Jeans", 1.0),
            ("Backpacks", 1.6),
        ],
        styles: &[(Streetwear, 1.1), (Casual, 0.7)],
        palettes: [0.5, 0.3, -0.2, -0.3],
    },
    Persona {
        name: "office professional",
        share: 0.12,
        women: 0.85,
        age: (34.0, 6.0),
        price: 0.3,
        device: [0.30, 0.62, 0.08],
        weekdays: &[(9.0, 0.8), (12.5, 1.4), (20.0, 0.4)],
        weekends: &[(11.0, 0.6), (20.0, 0.4)],
        likes: &[
            ("Blazers", 1.7),
            ("Blouses", 1.8),
            ("Trousers", 1.5),
            ("Handbags", 1.2),
            ("Heels", 1.0),
            ("Shirts", 0.8),
        ],
        styles: &[(Classic, 1.0), (Minimal, 0.9)],
        palettes: [0.8, -0.3, 0.1, 0.0],
    },
    Persona {
        name: "businessman",
        share: 0.08,
        women: 0.05,
        age: (43.0, 8.0),
        price: 0.1,
        device: [0.25, 0.68, 0.07],
        weekdays: &[(8.0, 1.0), (13.0, 1.0), (18.0, 0.5)],
        weekends: &[(10.0, 0.4)],
        likes: &[
            ("Shirts", 1.9),
            ("Ties", 2.4),
            ("Blazers", 1.6),
            ("Loafers", 1.9),
            ("Watches", 1.5),
            ("Trousers", 1.3),
            ("Belts", 1.4),
        ],
        styles: &[(Classic, 1.2), (Minimal, 0.4)],
        palettes: [0.9, -0.5, -0.3, 0.3],
    },
    Persona {
        name: "parent",
        share: 0.13,
        women: 0.60,
        age: (38.0, 5.0),
        price: 0.9,
        device: [0.40, 0.15, 0.45],
        weekdays: &[(6.5, 0.4), (20.5, 1.6)],
        weekends: &[(9.0, 0.8), (20.5, 1.0)],
        likes: &[
            ("Pyjamas", 1.8),
            ("Sweaters", 1.3),
            ("Socks", 1.6),
            ("Jackets", 0.9),
            ("Robes", 1.4),
            ("Leggings", 0.7),
        ],
        styles: &[(Casual, 1.1), (Outdoor, 0.3)],
        palettes: [0.1, 0.1, 0.4, 0.2],
    },
    Persona {
        name: "runner",
        share: 0.09,
        women: 0.50,
        age: (29.0, 7.0),
        price: 0.4,
        device: [0.75, 0.18, 0.07],
        weekdays: &[(6.5, 1.6), (18.5, 0.8)],
        weekends: &[(8.0, 1.6), (17.0, 0.6)],
        likes: &[
            ("Running tops", 2.4),
            ("Leggings", 2.0),
            ("Sneakers", 1.4),
            ("Shorts", 1.4),
            ("Swimsuits", 1.2),
            ("Socks", 0.9),
        ],
        styles: &[(Sporty, 1.5)],
        palettes: [0.1, 0.8, -0.1, -0.4],
    },
    Persona {
        name: "hiker",
        share: 0.08,
        women: 0.42,
        age: (41.0, 10.0),
        price: 0.2,
        device: [0.25, 0.65, 0.10],
        weekdays: &[(17.5, 0.9), (21.0, 0.5)],
        weekends: &[(9.0, 1.0), (17.0, 1.6)],
        likes: &[
            ("Parkas", 2.3),
            ("Boots", 1.8),
            ("Backpacks", 1.6),
            ("Jackets", 1.3),
            ("Hats", 1.4),
            ("Travel bags", 1.2),
        ],
        styles: &[(Outdoor, 1.6)],
        palettes: [0.0, -0.2, -0.5, 1.0],
    },
    Persona {
        name: "party-goer",
        share: 0.10,
        women: 0.85,
        age: (25.0, 4.0),
        price: 0.7,
        device: [0.82, 0.08, 0.10],
        weekdays: &[(18.0, 0.5), (22.5, 1.4)],
        weekends: &[(15.0, 0.8), (19.0, 1.2), (23.0, 0.6)],
        likes: &[
            ("Evening dresses", 1.9),
            ("Heels", 1.9),
            ("Earrings", 1.7),
            ("Skirts", 1.2),
            ("Jumpsuits", 1.4),
            ("Sunglasses", 0.7),
        ],
        styles: &[(Glamorous, 1.5)],
        palettes: [0.1, 0.9, 0.0, -0.5],
    },
    Persona {
        name: "classic",
        share: 0.08,
        women: 0.80,
        age: (61.0, 8.0),
        price: 0.4,
        device: [0.15, 0.25, 0.60],
        weekdays: &[(10.0, 1.4), (15.0, 1.2)],
        weekends: &[(10.0, 0.6), (15.0, 0.6)],
        likes: &[
            ("Scarves", 2.0),
            ("Coats", 1.5),
            ("Day dresses", 1.4),
            ("Robes", 1.5),
            ("Blouses", 0.9),
            ("Sweaters", 0.9),
        ],
        styles: &[(Classic, 1.3), (Bohemian, 0.2)],
        palettes: [0.2, -0.5, 0.9, 0.3],
    },
    Persona {
        name: "bargain hunter",
        share: 0.08,
        women: 0.50,
        age: (45.0, 12.0),
        price: 1.9,
        device: [0.50, 0.40, 0.10],
        weekdays: &[(7.0, 0.8), (13.0, 0.6), (21.0, 0.6)],
        weekends: &[(9.0, 1.0), (21.0, 0.6)],
        likes: &[
            ("Socks", 1.6),
            ("T-shirts", 1.2),
            ("Belts", 1.4),
            ("Scarves", 0.9),
            ("Shorts", 0.9),
            ("Hats", 1.1),
        ],
        styles: &[(Casual, 0.6)],
        palettes: [0.0, 0.2, 0.1, 0.2],
    },
    Persona {
        name: "traveller",
        share: 0.05,
        women: 0.60,
        age: (33.0, 8.0),
        price: 0.4,
        device: [0.60, 0.25, 0.15],
        weekdays: &[(8.0, 1.0), (18.0, 1.0)],
        weekends: &[(12.0, 1.2)],
        likes: &[
            ("Travel bags", 2.3),
            ("Sandals", 1.9),
            ("Sunglasses", 1.4),
            ("Swimsuits", 1.6),
            ("Hats", 1.2),
            ("Shorts", 1.0),
        ],
        styles: &[(Bohemian, 1.5)],
        palettes: [-0.3, 0.3, 0.2, 0.6],
    },
    Persona {
        name: "trendsetter",
        share: 0.04,
        women: 0.45,
        age: (27.0, 5.0),
        price: -0.3,
        device: [0.78, 0.17, 0.05],
        weekdays: &[(12.0, 0.6), (21.0, 1.2)],
        weekends: &[(13.0, 0.9), (21.0, 0.9)],
        likes: &[
            ("Sunglasses", 1.7),
            ("Jackets", 1.7),
            ("Watches", 1.4),
            ("Sneakers", 1.2),
            ("Jumpsuits", 1.0),
            ("Coats", 0.9),
        ],
        styles: &[(Minimal, 1.0), (Streetwear, 1.0)],
        palettes: [1.0, 0.0, -0.3, 0.0],
    },
];

/// Deviation in hours of the normal bumps around the hours of most visits.
const BUMP_HOURS: f64 = 1.6;
/// Rate of visits at any hour, in addition to the bumps.
const ALWAYS: f64 = 0.06;

impl Persona {
    /// Visits in an hour of the day, 0 to 23, relative to other hours and personas.
    pub(crate) fn visits(&self, hour: usize, weekend: bool) -> f64 {
        let bumps = if weekend {
            self.weekends
        } else {
            self.weekdays
        };
        let at = |&(peak, height): &(f64, f64)| {
            let apart = (hour as f64 + 0.5 - peak).abs();
            let apart = apart.min(24.0 - apart);
            height * (-0.5 * (apart / BUMP_HOURS).powi(2)).exp()
        };
        ALWAYS + bumps.iter().map(at).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::taxonomy::CATEGORIES;

    #[test]
    fn the_tables_are_consistent() {
        let close = |sum: f64| (sum - 1.0).abs() < 1e-9;
        assert!(close(PERSONAS.iter().map(|persona| persona.share).sum()));
        for persona in &PERSONAS {
            assert!(close(persona.device.iter().sum()), "{}", persona.name);
            for (name, _) in persona.likes {
                let known = CATEGORIES.iter().any(|category| category.name == *name);
                assert!(known, "{name}");
            }
        }
    }
}
