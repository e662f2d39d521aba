//! Sessions: a first choice from the model, then a walk through related items. Each item has a view, and may have further events.

use chacha20::ChaCha8Rng;
use rand::RngExt;

use crate::choice::{Choice, Context};
use crate::population::User;
use crate::random::draw;
use crate::taxonomy::{CATEGORIES, OUTFITS};

/// A step of the funnel; the names are those of the column `event_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// Saw the item in a list.
    View,
    /// Opened the item's page.
    Click,
    /// Put the item into the cart.
    Cart,
    /// Bought the item.
    Purchase,
}

impl EventType {
    /// All steps, from the top of the funnel to the bottom.
    pub const ALL: [Self; 4] = [Self::View, Self::Click, Self::Cart, Self::Purchase];

    /// `view`, `click`, `cart` or `purchase`.
    pub const fn name(self) -> &'static str {
        ["view", "click", "cart", "purchase"][self as usize]
    }
}

/// A row of a day's table; user and item are indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) timestamp: i32,
    pub(crate) user: u32,
    pub(crate) item: u32,
    pub(crate) session: i64,
    pub(crate) device: u8,
    pub(crate) kind: EventType,
}

/// Probability that a session ends after a choice, and its maximum length in choices.
const END: f64 = 0.28;
const LONGEST: usize = 20;
/// Probabilities that the next choice stays in the category, and that it completes the outfit. Otherwise it is a new draw.
const STAY: f64 = 0.62;
const OUTFIT: f64 = 0.23;
/// A likeness of 0 to 3 multiplies the weight of the next item by e^(0.6 · likeness).
const LIKENESS: f64 = 0.6;
/// Mean seconds between two choices, and between two steps of the funnel.
const PAUSE_SECONDS: f64 = 45.0;
const STEP_SECONDS: f64 = 15.0;
/// Log-odds of each step of the funnel, the weight of the item's appeal, and the effect of each device.
const FUNNEL: [f64; 3] = [-0.4, -1.5, -0.8];
const APPEAL: f64 = 0.35;
const FUNNEL_BY_DEVICE: [[f64; 3]; 3] = [[0.3, -0.3, -0.4], [-0.1, 0.5, 0.6], [0.0, 0.1, 0.0]];

/// Draws sessions, and reuses its buffers between them.
pub(crate) struct Sessions<'a> {
    choice: &'a Choice,
    categories: Vec<f64>,
    within: Vec<f64>,
    next: Vec<f64>,
    /// Factor of an item's weight for each likeness, 0 to 3.
    likeness: [f64; 4],
}

/// The user, the time and the context of a visit.
pub(crate) struct Visit<'a> {
    pub(crate) index: usize,
    pub(crate) user: &'a User,
    pub(crate) context: Context,
    pub(crate) start: i32,
    /// The last second of the day; later events get this time.
    pub(crate) end: i32,
    pub(crate) session: i64,
}

impl<'a> Sessions<'a> {
    pub(crate) fn new(choice: &'a Choice) -> Self {
        Self {
            choice,
            categories: Vec::new(),
            within: Vec::new(),
            next: Vec::new(),
            likeness: std::array::from_fn(|likeness| (LIKENESS * likeness as f64).exp()),
        }
    }

    /// Appends the events of a session.
    pub(crate) fn draw(
        &mut self,
        rng: &mut ChaCha8Rng,
        visit: &Visit<'_>,
        events: &mut Vec<Event>,
    ) {
        let (user, context) = (visit.user, visit.context);
        self.choice.categories(user, context, &mut self.categories);
        let mut category = draw(rng, &self.categories);
        let mut column = self.item(rng, visit, category);
        let mut time = f64::from(visit.start);
        for _ in 0..LONGEST {
            self.funnel(rng, visit, column, &mut time, events);
            if rng.random_bool(END) {
                break;
            }
            time += 2.0 + pause(rng, PAUSE_SECONDS);
            let turn = rng.random::<f64>();
            if turn < STAY {
                column = self.related(rng, visit, category, column);
                continue;
            }
            category = if turn < STAY + OUTFIT {
                self.outfit(rng, category)
            } else {
                draw(rng, &self.categories)
            };
            column = self.item(rng, visit, category);
        }
    }

    /// Draws an item of the category. Unless the category is large, `within` then holds the items' weights.
    fn item(&mut self, rng: &mut ChaCha8Rng, visit: &Visit<'_>, category: usize) -> usize {
        let who = (visit.user, visit.context);
        if let Some(column) = self.choice.draw_large(rng, who, category, |_| 1.0) {
            return column;
        }
        self.choice.within(who.0, who.1, category, &mut self.within);
        self.choice.starts[category] + draw(rng, &self.within)
    }

    /// Draws another item of the category, more likely one that is like the last.
    fn related(
        &mut self,
        rng: &mut ChaCha8Rng,
        visit: &Visit<'_>,
        category: usize,
        last: usize,
    ) -> usize {
        let who = (visit.user, visit.context);
        let large = self.choice.draw_large(rng, who, category, |column| {
            if column == last {
                return 0.0;
            }
            let likeness = self.choice.likeness(last, column);
            self.likeness[usize::from(likeness)] / self.likeness[3]
        });
        if let Some(column) = large {
            return column;
        }
        let first = self.choice.starts[category];
        self.next.clear();
        self.next
            .extend(self.within.iter().enumerate().map(|(place, weight)| {
                if first + place == last {
                    return 0.0;
                }
                let likeness = self.choice.likeness(last, first + place);
                weight * self.likeness[usize::from(likeness)]
            }));
        if self.next.iter().all(|&weight| weight == 0.0) {
            return last;
        }
        first + draw(rng, &self.next)
    }

    /// Draws a category that completes the outfit, by the user's preference among these categories.
    fn outfit(&mut self, rng: &mut ChaCha8Rng, category: usize) -> usize {
        let groups = OUTFITS[CATEGORIES[category].group];
        self.next.clear();
        self.next.extend(
            self.categories
                .iter()
                .zip(CATEGORIES)
                .map(|(weight, other)| {
                    if groups.contains(&other.group) {
                        *weight
                    } else {
                        0.0
                    }
                }),
        );
        if self.next.iter().all(|&weight| weight == 0.0) {
            return category;
        }
        draw(rng, &self.next)
    }

    fn funnel(
        &self,
        rng: &mut ChaCha8Rng,
        visit: &Visit<'_>,
        column: usize,
        time: &mut f64,
        events: &mut Vec<Event>,
    ) {
        let taste = self.choice.taste(visit.user, visit.context, column);
        let appeal = APPEAL * f64::from(taste).clamp(-3.0, 3.0);
        let by_device = FUNNEL_BY_DEVICE[visit.context.device];
        for (step, kind) in EventType::ALL.into_iter().enumerate() {
            if step > 0 {
                let odds = (FUNNEL[step - 1] + by_device[step - 1] + appeal).exp();
                if !rng.random_bool(odds / (1.0 + odds)) {
                    return;
                }
                *time += 1.0 + pause(rng, STEP_SECONDS);
            }
            events.push(Event {
                timestamp: (*time as i32).min(visit.end),
                user: visit.index as u32,
                item: self.choice.order[column] as u32,
                session: visit.session,
                device: visit.context.device as u8,
                kind,
            });
        }
    }
}

/// An exponentially distributed pause.
fn pause(rng: &mut ChaCha8Rng, mean_seconds: f64) -> f64 {
    -mean_seconds * (1.0 - rng.random::<f64>()).ln()
}
