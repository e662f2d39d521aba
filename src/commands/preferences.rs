//! The true preferences of a generated shop's user, as `saker generate --preferences` prints them.

use comfy_table::Table;
use saker_generate::{CATEGORIES, Context, GROUPS, Item, Shop, User};
use serde_json::{Value, json};

use super::recommend::{align_right, plain};

/// The items that a user most likely chooses in a context.
pub(super) struct Preferences<'s> {
    pub(super) shop: &'s Shop,
    pub(super) user: &'s User,
    pub(super) context: Context,
    /// Indices of items and their probabilities, the likeliest first.
    pub(super) best: Vec<(usize, f64)>,
}

fn category(item: &Item) -> &'static str {
    CATEGORIES[item.category].name
}

impl Preferences<'_> {
    /// The preferences for `--json`, with the device and the Unix second that were asked for.
    pub(super) fn json(&self, device: i32, timestamp: i32) -> Value {
        let items = self.best.iter().map(|&(index, probability)| {
            let item = &self.shop.items()[index];
            json!({
                "id": item.id,
                "title": self.shop.title(index),
                "category": category(item),
                "price": item.price,
                "probability": probability,
            })
        });
        json!({
            "user": self.user.id,
            "persona": self.user.persona(),
            "device": device,
            "timestamp": timestamp,
            "items": items.collect::<Vec<_>>(),
        })
    }

    /// The user and the context, in one line.
    pub(super) fn heading(&self) -> String {
        let user = self.user;
        format!(
            "user {}: {}, {} years, {}; day {} of {}, {} o'clock UTC",
            user.id,
            user.persona(),
            user.age,
            ["female", "male", "gender unknown"][usize::from(user.gender).min(2)],
            self.context.day,
            self.shop.settings().days,
            self.context.hour
        )
    }

    /// A row for each item.
    pub(super) fn table(&self) -> Table {
        let mut table = plain();
        table.set_header([
            "#",
            "id",
            "title",
            "group",
            "category",
            "price",
            "probability",
        ]);
        for (place, &(index, probability)) in self.best.iter().enumerate() {
            let item = &self.shop.items()[index];
            table.add_row([
                (place + 1).to_string(),
                item.id.to_string(),
                self.shop.title(index),
                GROUPS[CATEGORIES[item.category].group].to_owned(),
                category(item).to_owned(),
                format!("{:.2}", item.price),
                format!("{probability:.5}"),
            ]);
        }
        align_right(&mut table, [0, 1, 5, 6]);
        table
    }
}
