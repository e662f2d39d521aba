//! Generates a fashion shop of any size: tables of users, items and interactions, texts and pictures. The model of behaviour is known, so
//! you can compare a recommender with the best possible answer.
//!
//! The [`Settings`] determine a [`Shop`] completely. [`generate()`] writes its files. [`Shop::preference`] returns the true probability of
//! each item for a user in a context. `docs/retail.md` describes the model and the files.
//!
//! | module | subject |
//! |---|---|
//! | `settings`, `random` | sizes and seed; random streams that do not depend on threads |
//! | `taxonomy`, `personas` | the tables of the model: categories, styles, colours; kinds of users |
//! | `catalogue`, `population`, `drift` | items; users; changes of demand from day to day |
//! | `choice` | the nested logit behind sessions and preferences |
//! | `visits`, `session` | users, hours and devices of visits; the events of a session |
//! | `text`, `picture` | titles and descriptions; drawings |
//! | `tables`, `generate`, `manifest`, `statistics` | Parquet; writing a folder; `generator.json`; counts of the written rows |

mod catalogue;
mod choice;
mod drift;
mod error;
mod generate;
mod manifest;
mod personas;
mod picture;
mod population;
mod random;
mod session;
mod settings;
mod shop;
mod statistics;
mod tables;
mod taxonomy;
mod text;
mod visits;

pub use catalogue::Item;
pub use choice::Context;
pub use error::{Error, Result};
pub use generate::{Pictures, Report, Stage, day_file, generate, is_complete};
pub use manifest::{FILE, Manifest};
pub use picture::SIDE;
pub use population::User;
pub use session::EventType;
pub use settings::{FirstDay, Scale, Settings};
pub use shop::{FirstChoice, Shop};
pub use statistics::{Statistics, statistics};
pub use taxonomy::{CATEGORIES, COLOURS, Category, Colour, GROUPS, Gender, Palette, Style};
