//! The products of the shop: groups (`category_l1`), categories (`category_l2`), styles and colours. Also how a category's sales vary by
//! device, hour, weekend and season.

/// Names of the groups; the index is `category_l1`.
pub const GROUPS: [&str; 9] = [
    "Tops",
    "Bottoms",
    "Dresses",
    "Outerwear",
    "Shoes",
    "Bags",
    "Accessories",
    "Sportswear",
    "Nightwear",
];

/// Groups that complete an outfit with the group of the same index. A session may continue there when it leaves a category.
pub(crate) const OUTFITS: [&[usize]; 9] = [
    &[1, 3],
    &[0, 4],
    &[4, 5, 6],
    &[4, 6],
    &[1, 2, 7],
    &[2, 6],
    &[2, 3, 5],
    &[4, 7],
    &[8, 0],
];

/// Gender of the customers of a product; [`Gender::code`] is the column `item_gender`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gender {
    /// 0
    Women,
    /// 1
    Men,
    /// 2
    Unisex,
}

impl Gender {
    /// 0 women, 1 men, 2 unisex.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The word in a title.
    pub const fn name(self) -> &'static str {
        ["Women's", "Men's", "Unisex"][self as usize]
    }
}

/// The style of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For every day.
    Casual,
    /// For the office.
    Classic,
    /// Without ornament.
    Minimal,
    /// For training.
    Sporty,
    /// For the holidays.
    Bohemian,
    /// For the evening.
    Glamorous,
    /// For the city.
    Streetwear,
    /// For the hills.
    Outdoor,
}

pub(crate) const STYLES: usize = 8;

impl Style {
    pub(crate) const fn name(self) -> &'static str {
        [
            "casual",
            "classic",
            "minimal",
            "sporty",
            "bohemian",
            "glamorous",
            "streetwear",
            "outdoor",
        ][self as usize]
    }
}

/// Colours that match each other; users prefer a palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// Black, white, grey, navy.
    Neutral,
    /// Strong colours.
    Bright,
    /// Light colours.
    Pastel,
    /// Colours of wood and leaves.
    Earth,
}

pub(crate) const PALETTES: usize = 4;

/// A colour of products.
#[derive(Debug)]
pub struct Colour {
    /// Its name.
    pub name: &'static str,
    /// `#rrggbb`
    pub rgb: &'static str,
    /// Its palette.
    pub palette: Palette,
}

const fn colour(name: &'static str, rgb: &'static str, palette: Palette) -> Colour {
    Colour { name, rgb, palette }
}

/// All colours.
pub static COLOURS: [Colour; 16] = [
    colour("black", "#26262b", Palette::Neutral),
    colour("white", "#f7f6f2", Palette::Neutral),
    colour("grey", "#8f949b", Palette::Neutral),
    colour("navy", "#24365f", Palette::Neutral),
    colour("red", "#c8232c", Palette::Bright),
    colour("cobalt blue", "#1f57d6", Palette::Bright),
    colour("yellow", "#f3c316", Palette::Bright),
    colour("emerald green", "#0d8f5b", Palette::Bright),
    colour("blush pink", "#f2bcc4", Palette::Pastel),
    colour("mint", "#b4e3cd", Palette::Pastel),
    colour("lavender", "#c9b9e8", Palette::Pastel),
    colour("sky blue", "#a9d3f0", Palette::Pastel),
    colour("camel", "#c19a6b", Palette::Earth),
    colour("olive", "#6f7434", Palette::Earth),
    colour("rust", "#a8491f", Palette::Earth),
    colour("chocolate brown", "#5b3a29", Palette::Earth),
];

/// A kind of product.
#[derive(Debug)]
pub struct Category {
    /// Plural name: the text column `category_l2_name`.
    pub name: &'static str,
    /// Singular name, as in a title.
    pub one: &'static str,
    /// Index in [`GROUPS`]: the column `category_l1`.
    pub group: usize,
    /// The only gender of its items; `None`: items for women, for men and unisex ones.
    pub gender: Option<Gender>,
    /// Logarithm of its base sales.
    pub(crate) base: f32,
    /// Median price in euros.
    pub(crate) price: f32,
    /// Additional utility on mobile, desktop and tablet.
    pub(crate) device: [f32; 3],
    /// Hour (UTC) of its best sales, and the additional utility at this hour.
    pub(crate) hour: (f32, f32),
    /// Additional utility on Saturday and Sunday.
    pub(crate) weekend: f32,
    /// Additional utility after four weeks of the season (autumn begins).
    pub(crate) season: f32,
    pub(crate) styles: &'static [Style],
    pub(crate) materials: &'static [&'static str],
    /// The drawing, an SVG.
    pub(crate) shape: &'static str,
}

use Gender::{Men, Women};
use Style::{Bohemian, Casual, Classic, Glamorous, Minimal, Outdoor, Sporty, Streetwear};

const PHONE: [f32; 3] = [1.0, -0.8, -0.4];
const DESK: [f32; 3] = [-0.8, 1.0, -0.2];
const COUCH: [f32; 3] = [-0.5, -0.4, 1.1];
const ANY: [f32; 3] = [0.0, 0.0, 0.0];
const JERSEY: &[&str] = &["cotton", "organic cotton", "jersey", "linen blend"];
const WOVEN: &[&str] = &["cotton", "linen", "poplin", "viscose"];
const FINE: &[&str] = &["silk", "viscose", "satin", "chiffon"];
const KNIT: &[&str] = &["wool", "merino", "cashmere", "cotton knit"];
const DENIM: &[&str] = &["denim", "stretch denim", "raw denim"];
const SUITING: &[&str] = &["wool", "tweed", "cotton twill", "linen"];
const SHELL: &[&str] = &["nylon", "waxed cotton", "down", "fleece"];
const LEATHER: &[&str] = &["leather", "suede", "vegan leather"];
const TECHNICAL: &[&str] = &["polyester", "elastane", "recycled nylon", "mesh"];
const CANVAS: &[&str] = &["canvas", "nylon", "leather", "recycled polyester"];
const SLEEP: &[&str] = &["flannel", "cotton", "satin", "terry"];
const METAL: &[&str] = &["steel", "titanium", "acetate", "brass"];
const JEWELS: &[&str] = &["silver", "gold-plated brass", "pearl", "resin"];

/// Fills the fields of a [`Category`] from a line of the table below.
macro_rules! categories {
    ($($file:literal, $name:literal, $one:literal, $group:literal, $gender:expr, $base:literal, $price:literal,
       $device:ident, $hour:expr, $weekend:expr, $season:expr, $styles:expr, $materials:ident;)*) => {
        &[$(Category {
            name: $name,
            one: $one,
            group: $group,
            gender: $gender,
            base: $base,
            price: $price,
            device: $device,
            hour: $hour,
            weekend: $weekend,
            season: $season,
            styles: &$styles,
            materials: $materials,
            shape: include_str!(concat!("../shapes/", $file, ".svg")),
        }),*]
    };
}

/// All categories; the index is `category_l2`.
#[rustfmt::skip]
pub static CATEGORIES: &[Category] = categories![
//  drawing            name               one               l1  for          base price  device (hour, lift) weekend season styles                                  materials
    "t-shirts",        "T-shirts",        "t-shirt",         0, None,         0.9,  19.0, PHONE, (13.0, 0.6),  0.2, -0.9, [Casual, Minimal, Streetwear, Sporty],  JERSEY;
    "shirts",          "Shirts",          "shirt",           0, None,         0.4,  45.0, DESK,  (10.0, 1.0), -0.8,  0.0, [Classic, Casual, Minimal],             WOVEN;
    "blouses",         "Blouses",         "blouse",          0, Some(Women),  0.3,  42.0, DESK,  (12.0, 0.8), -0.5,  0.1, [Classic, Bohemian, Minimal],           FINE;
    "sweaters",        "Sweaters",        "sweater",         0, None,         0.4,  59.0, COUCH, (20.0, 0.6),  0.3,  1.2, [Casual, Classic, Minimal],             KNIT;
    "hoodies",         "Hoodies",         "hoodie",          0, None,         0.4,  49.0, PHONE, (22.0, 1.0),  0.4,  0.7, [Streetwear, Casual, Sporty],           JERSEY;
    "jeans",           "Jeans",           "pair of jeans",   1, None,         0.8,  69.0, ANY,   (17.0, 0.6),  0.3,  0.2, [Casual, Streetwear, Classic],          DENIM;
    "trousers",        "Trousers",        "pair of trousers",1, None,         0.2,  59.0, DESK,  (11.0, 1.0), -0.7,  0.2, [Classic, Minimal, Casual],             SUITING;
    "shorts",          "Shorts",          "pair of shorts",  1, None,         0.2,  29.0, PHONE, (15.0, 0.7),  0.4, -1.3, [Casual, Sporty, Bohemian],             WOVEN;
    "skirts",          "Skirts",          "skirt",           1, Some(Women),  0.2,  39.0, PHONE, (19.0, 0.7),  0.1, -0.4, [Bohemian, Classic, Glamorous],         WOVEN;
    "day-dresses",     "Day dresses",     "day dress",       2, Some(Women),  0.6,  55.0, COUCH, (15.0, 0.8),  0.2, -0.5, [Bohemian, Casual, Classic],            WOVEN;
    "evening-dresses", "Evening dresses", "evening dress",   2, Some(Women),  0.2, 119.0, COUCH, (21.0, 1.2),  0.4,  0.5, [Glamorous, Classic, Minimal],          FINE;
    "jumpsuits",       "Jumpsuits",       "jumpsuit",        2, Some(Women), -0.1,  69.0, PHONE, (20.0, 0.8),  0.2, -0.2, [Minimal, Glamorous, Bohemian],         WOVEN;
    "coats",           "Coats",           "coat",            3, None,         0.2, 149.0, DESK,  (14.0, 0.6),  0.2,  1.7, [Classic, Minimal, Glamorous],          SUITING;
    "jackets",         "Jackets",         "jacket",          3, None,         0.4,  99.0, ANY,   (18.0, 0.6),  0.5,  0.9, [Streetwear, Casual, Outdoor],          LEATHER;
    "blazers",         "Blazers",         "blazer",          3, None,         0.0, 129.0, DESK,  ( 9.0, 1.1), -0.9,  0.2, [Classic, Minimal],                     SUITING;
    "parkas",          "Parkas",          "parka",           3, None,        -0.1, 169.0, DESK,  (16.0, 0.7),  0.9,  1.6, [Outdoor, Streetwear],                  SHELL;
    "sneakers",        "Sneakers",        "pair of sneakers",4, None,         0.9,  89.0, PHONE, ( 8.0, 1.0),  0.3,  0.1, [Streetwear, Sporty, Casual],           CANVAS;
    "boots",           "Boots",           "pair of boots",   4, None,         0.2, 129.0, DESK,  (17.0, 0.6),  0.7,  1.4, [Outdoor, Classic, Streetwear],         LEATHER;
    "sandals",         "Sandals",         "pair of sandals", 4, None,         0.0,  39.0, PHONE, (14.0, 0.8),  0.3, -1.5, [Bohemian, Casual, Minimal],            LEATHER;
    "heels",           "Heels",           "pair of heels",   4, Some(Women),  0.1,  79.0, PHONE, (21.0, 1.1),  0.2,  0.0, [Glamorous, Classic],                   LEATHER;
    "loafers",         "Loafers",         "pair of loafers", 4, None,        -0.1,  89.0, DESK,  (10.0, 0.9), -0.6,  0.0, [Classic, Minimal],                     LEATHER;
    "handbags",        "Handbags",        "handbag",         5, Some(Women),  0.4, 110.0, COUCH, (20.0, 0.8),  0.1,  0.1, [Glamorous, Classic, Minimal],          LEATHER;
    "backpacks",       "Backpacks",       "backpack",        5, None,         0.0,  65.0, PHONE, ( 7.0, 1.1), -0.3, -0.3, [Streetwear, Outdoor, Casual],          CANVAS;
    "travel-bags",     "Travel bags",     "travel bag",      5, None,        -0.3, 120.0, DESK,  (12.0, 0.8),  0.3, -0.4, [Outdoor, Classic],                     CANVAS;
    "hats",            "Hats",            "hat",             6, None,        -0.2,  29.0, PHONE, ( 9.0, 0.7),  0.5,  0.4, [Bohemian, Outdoor, Casual],            KNIT;
    "scarves",         "Scarves",         "scarf",           6, None,        -0.1,  32.0, COUCH, (10.0, 0.8), -0.1,  1.4, [Classic, Bohemian, Glamorous],         KNIT;
    "belts",           "Belts",           "belt",            6, None,        -0.4,  35.0, DESK,  (11.0, 0.7), -0.4,  0.0, [Classic, Casual],                      LEATHER;
    "sunglasses",      "Sunglasses",      "pair of sunglasses", 6, None,     0.0,  85.0, PHONE, (12.0, 1.0),  0.5, -1.2, [Glamorous, Streetwear, Minimal],       METAL;
    "watches",         "Watches",         "watch",           6, None,        -0.2, 159.0, DESK,  (22.0, 0.9),  0.1,  0.2, [Minimal, Classic, Sporty],             METAL;
    "earrings",        "Earrings",        "pair of earrings",6, Some(Women),  0.3,  25.0, PHONE, (23.0, 1.2),  0.0,  0.1, [Glamorous, Bohemian, Minimal],         JEWELS;
    "ties",            "Ties",            "tie",             6, Some(Men),   -0.5,  39.0, DESK,  ( 8.0, 1.2), -1.0,  0.0, [Classic, Minimal],                     FINE;
    "running-tops",    "Running tops",    "running top",     7, None,         0.1,  35.0, PHONE, ( 6.0, 1.3),  0.1, -0.2, [Sporty, Minimal],                      TECHNICAL;
    "leggings",        "Leggings",        "pair of leggings",7, None,         0.2,  39.0, PHONE, ( 7.0, 1.1),  0.2,  0.2, [Sporty, Casual],                       TECHNICAL;
    "swimsuits",       "Swimsuits",       "swimsuit",        7, Some(Women), -0.3,  49.0, COUCH, (16.0, 0.8),  0.5, -1.4, [Sporty, Glamorous, Bohemian],          TECHNICAL;
    "pyjamas",         "Pyjamas",         "pair of pyjamas", 8, None,         0.1,  39.0, COUCH, (22.0, 1.3),  0.1,  0.8, [Casual, Classic],                      SLEEP;
    "robes",           "Robes",           "robe",            8, None,        -0.4,  55.0, COUCH, (23.0, 1.1),  0.3,  0.7, [Classic, Casual, Glamorous],           SLEEP;
    "socks",           "Socks",           "pair of socks",   8, None,         0.2,   9.0, PHONE, ( 1.0, 0.6),  0.0,  0.6, [Casual, Sporty, Outdoor],              KNIT;
];
