//! Titles and descriptions of items. Every sentence states a property of the item, in varying words.

use chacha20::ChaCha8Rng;
use rand::RngExt;

use crate::catalogue::Item;
use crate::random::{Purpose, stream};
use crate::taxonomy::{CATEGORIES, COLOURS, GROUPS, Gender, Palette, Style};

/// Invented names of product lines.
const LINES: [&str; 24] = [
    "Alder", "Brea", "Corin", "Dune", "Elba", "Fenna", "Garda", "Hollis", "Isla", "Juno",
    "Kestrel", "Lund", "Mira", "Nessa", "Orla", "Pax", "Quill", "Rowan", "Sable", "Tarn", "Una",
    "Vesper", "Wren", "Yarrow",
];

/// A title such as `Fenna women's navy wool coat`.
pub(crate) fn title(item: &Item, seed: u64) -> String {
    let mut rng = stream(seed, Purpose::Texts, item.id as u64, 0);
    let line = one_of(&mut rng, &LINES);
    let kind = CATEGORIES[item.category].one;
    let kind = kind.strip_prefix("pair of ").unwrap_or(kind);
    let gender = match CATEGORIES[item.category].gender {
        None => format!("{} ", item.gender.name().to_lowercase()),
        // "Women's blouse" would be redundant.
        Some(_) => String::new(),
    };
    let colour = item.colour().name;
    format!("{line} {gender}{colour} {} {kind}", item.material)
}

/// A description of three to five sentences.
pub(crate) fn description(item: &Item, seed: u64) -> String {
    let mut rng = stream(seed, Purpose::Texts, item.id as u64, 1);
    let rng = &mut rng;
    let category = &CATEGORIES[item.category];
    let (style, material, colour) = (item.style.name(), item.material, item.colour().name);
    let a_kind = format!("{} {style} {}", article(style), category.one);
    let opening = match rng.random_range(0..5) {
        0 => format!("{} in {colour} {material}.", capital(&a_kind)),
        1 => format!("Meet {a_kind} made of {material}, in {colour}."),
        2 => format!(
            "This {style} {} comes in {colour} and is made of {material}.",
            category.one
        ),
        3 => format!(
            "{} {}: {a_kind} for {}.",
            capital(colour),
            material,
            whom(item.gender)
        ),
        _ => format!(
            "We made this {} of {material} in {colour} and kept the look {style}.",
            category.one
        ),
    };
    let mut sentences = vec![opening];
    let occasions = if GROUPS[category.group] == "Nightwear" {
        &AT_NIGHT
    } else {
        occasions(item.style)
    };
    let (first, second) = two_of(rng, occasions);
    sentences.push(match rng.random_range(0..4) {
        0 => format!("Wear it for {first} or {second}."),
        1 => format!("It is at home at {first} as much as at {second}."),
        2 => format!("Made with {first} in mind, and good for {second} too."),
        _ => format!("Our customers choose it for {first}."),
    });
    sentences.push(one_of(rng, detail(category.group)).to_owned());
    if rng.random_bool(0.6) {
        let accent = COLOURS[item.accent].name;
        let mood = mood(item.colour().palette);
        sentences.push(match rng.random_range(0..3) {
            0 => format!("Details in {accent} set off the {mood} {colour}."),
            1 => format!("The {colour} is {mood}, with a touch of {accent}."),
            _ => format!("A {mood} palette: {colour} with {accent}."),
        });
    }
    let deviation = item.price_deviation();
    if deviation < -0.7 {
        sentences.push(
            one_of(
                rng,
                &[
                    "A small price for something you will wear often.",
                    "Great value for every day.",
                    "An affordable basic.",
                ],
            )
            .to_owned(),
        );
    } else if deviation > 0.7 {
        sentences.push(
            one_of(
                rng,
                &[
                    "A premium piece, finished by hand.",
                    "Luxurious quality that lasts for years.",
                    "An investment in fine craftsmanship.",
                ],
            )
            .to_owned(),
        );
    } else if rng.random_bool(0.5) {
        sentences.push(format!("Designed for {}.", whom(item.gender)));
    }
    sentences.join(" ")
}

fn one_of<'t>(rng: &mut ChaCha8Rng, texts: &[&'t str]) -> &'t str {
    texts[rng.random_range(0..texts.len())]
}

fn two_of<'t>(rng: &mut ChaCha8Rng, texts: &[&'t str]) -> (&'t str, &'t str) {
    let first = rng.random_range(0..texts.len());
    let second = (first + rng.random_range(1..texts.len())) % texts.len();
    (texts[first], texts[second])
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

fn whom(gender: Gender) -> &'static str {
    match gender {
        Gender::Women => "women",
        Gender::Men => "men",
        Gender::Unisex => "everyone",
    }
}

fn mood(palette: Palette) -> &'static str {
    match palette {
        Palette::Neutral => "quiet",
        Palette::Bright => "vivid",
        Palette::Pastel => "soft",
        Palette::Earth => "warm",
    }
}

/// Occasions for nightwear of any style.
const AT_NIGHT: [&str; 4] = [
    "slow Sunday mornings",
    "movie nights on the sofa",
    "cold bedrooms",
    "long winter evenings",
];

fn occasions(style: Style) -> &'static [&'static str] {
    match style {
        Style::Casual => &[
            "lazy weekends",
            "coffee with friends",
            "errands in town",
            "days off",
        ],
        Style::Classic => &[
            "the office",
            "business meetings",
            "family dinners",
            "job interviews",
        ],
        Style::Minimal => &[
            "gallery openings",
            "the studio",
            "city breaks",
            "a working lunch",
        ],
        Style::Sporty => &[
            "morning runs",
            "the gym",
            "yoga classes",
            "interval training",
        ],
        Style::Bohemian => &[
            "beach holidays",
            "summer festivals",
            "garden parties",
            "the flea market",
        ],
        Style::Glamorous => &["cocktail parties", "weddings", "nights out", "the opera"],
        Style::Streetwear => &[
            "concerts",
            "the skate park",
            "late nights in the city",
            "campus days",
        ],
        Style::Outdoor => &[
            "mountain hikes",
            "camping trips",
            "walks in the rain",
            "cabin weekends",
        ],
    }
}

fn detail(group: usize) -> &'static [&'static str] {
    match group {
        0 => &[
            "The sleeves are set in for an easy fit.",
            "A relaxed cut that layers well under a jacket.",
            "The collar keeps its shape after many washes.",
            "Slim through the body, with room at the shoulders.",
        ],
        1 => &[
            "The waist sits high and the leg falls straight.",
            "Four pockets and a sturdy zip.",
            "Cut to sit on the hip, with a little stretch.",
            "The hem is easy to shorten.",
        ],
        2 => &[
            "The skirt swings when you walk.",
            "A fitted waist and a hidden zip at the back.",
            "Lined throughout, with pockets in the side seams.",
            "It falls just below the knee.",
        ],
        3 => &[
            "Fully lined, with two inside pockets.",
            "Keeps out wind and cold.",
            "Roomy enough for a thick sweater underneath.",
            "Buttons of horn and a vent at the back.",
        ],
        4 => &[
            "The cushioned sole carries you all day.",
            "The insole is soft and can be taken out.",
            "A rubber sole that grips on wet pavement.",
            "Runs true to size and softens with wear.",
        ],
        5 => &[
            "A padded compartment takes a laptop.",
            "The strap is adjustable and can be taken off.",
            "Three inside pockets keep things in order.",
            "The zip runs smoothly around the whole opening.",
        ],
        6 => &[
            "It comes in a gift box.",
            "The finishing touch to a simple outfit.",
            "Light enough to forget that you wear it.",
            "It goes with almost everything.",
        ],
        7 => &[
            "Wicks moisture and dries in no time.",
            "Flat seams prevent chafing.",
            "A reflective stripe keeps you visible in the dark.",
            "Four-way stretch moves with you.",
        ],
        _ => &[
            "Soft on the skin from the first night.",
            "Warm without being heavy.",
            "Brushed inside for cold evenings.",
            "Machine washable and quick to dry.",
        ],
    }
}
