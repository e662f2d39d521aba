//! Items and users as the gateway returns them. The parts that are equal in every answer are serialised once, at the start.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value, json};

/// Maximum number of users kept for the storefront's list.
const SHOWN_USERS: usize = 1000;

/// An item of the shop, as the caller of [`DisplayCatalogue::new`] describes it.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// Raw item id.
    pub id: i32,
    /// Title, if the item has one.
    pub title: Option<String>,
    /// Value in each of the category columns, in their order.
    pub categories: Vec<i32>,
    /// Price, if the item has one.
    pub price: Option<f32>,
    /// Path of the picture, if the item has one.
    pub picture: Option<PathBuf>,
    /// All known features, by column.
    pub known: Map<String, Value>,
}

/// A category column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Name of the column.
    pub name: String,
    /// Display names, by value. A value without a name is shown as a number.
    pub names: Vec<String>,
}

impl Column {
    fn name_of(&self, value: i32) -> String {
        let name = usize::try_from(value)
            .ok()
            .and_then(|value| self.names.get(value));
        name.cloned().unwrap_or_else(|| value.to_string())
    }
}

/// The display name of a code; a value without a name stays as it is.
fn named(names: &[String], value: Value) -> Value {
    let code = value.as_u64().and_then(|code| usize::try_from(code).ok());
    match code.and_then(|code| names.get(code)) {
        Some(name) => name.as_str().into(),
        None => value,
    }
}

/// The stored form of an item.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: i32,
    pub(crate) title: Option<Box<str>>,
    pub(crate) picture: Option<Box<std::path::Path>>,
    /// `"title":…,"categories":…,"price":…,"picture":…`
    pub(crate) shown: Box<str>,
    /// All known features, as a JSON object.
    pub(crate) known: Box<str>,
}

/// The shop's items and users.
#[derive(Debug, Default)]
pub struct DisplayCatalogue {
    columns: Vec<Column>,
    items: Vec<Kept>,
    place_of: FxHashMap<i32, u32>,
    /// The items of each category, by column and value.
    members: BTreeMap<(usize, i32), Vec<u32>>,
    users: Vec<(i32, Box<str>)>,
    known_users: FxHashSet<i32>,
    /// Display names of the values of users' columns.
    user_names: BTreeMap<String, Vec<String>>,
}

impl DisplayCatalogue {
    /// Builds a catalogue. `items` holds a value for each column of `columns`. An evenly spread sample of the users is kept with their
    /// `features`, for the storefront's list.
    pub fn new(
        columns: Vec<Column>,
        items: impl IntoIterator<Item = Item>,
        users: impl IntoIterator<Item = i32>,
        features: impl Fn(i32) -> Map<String, Value>,
    ) -> Self {
        let mut catalogue = Self {
            columns,
            known_users: users.into_iter().collect(),
            ..Self::default()
        };
        for item in items {
            catalogue.add(item);
        }
        let mut users: Vec<i32> = catalogue.known_users.iter().copied().collect();
        users.sort_unstable();
        let step = users.len().div_ceil(SHOWN_USERS).max(1);
        let shown = users.into_iter().step_by(step);
        catalogue.users = shown
            .map(|id| (id, Value::Object(features(id)).to_string().into()))
            .collect();
        catalogue
    }

    /// Gives the display names of users' columns, by value: what the store holds as a code is shown by its name.
    #[must_use]
    pub fn with_user_names(mut self, names: BTreeMap<String, Vec<String>>) -> Self {
        self.user_names = names;
        self
    }

    /// A user's stored features as people read them.
    pub(crate) fn named(&self, features: Map<String, Value>) -> Map<String, Value> {
        let features = features.into_iter().map(|(column, value)| {
            let value = match self.user_names.get(&column) {
                Some(names) => named(names, value),
                None => value,
            };
            (column, value)
        });
        features.collect()
    }

    fn add(&mut self, item: Item) {
        let Ok(place) = u32::try_from(self.items.len()) else {
            return;
        };
        let mut categories = Map::new();
        for (index, (column, &value)) in self.columns.iter().zip(&item.categories).enumerate() {
            categories.insert(column.name.clone(), column.name_of(value).into());
            self.members.entry((index, value)).or_default().push(place);
        }
        let picture = item.picture.as_ref().map(|file| picture_url(item.id, file));
        let shown = shown(item.title.as_deref(), categories, item.price, picture);
        self.place_of.insert(item.id, place);
        self.items.push(Kept {
            id: item.id,
            title: item.title.map(Into::into),
            picture: item.picture.map(Into::into),
            shown: shown.into(),
            known: Value::Object(item.known).to_string().into(),
        });
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the catalogue has no items, for example because this machine has no prepared data.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn item(&self, id: i32) -> Option<&Kept> {
        self.items.get(*self.place_of.get(&id)? as usize)
    }

    pub(crate) fn title(&self, id: i32) -> Option<&str> {
        self.item(id)?.title.as_deref()
    }

    /// The first items, used when no popularity data exists.
    pub(crate) fn first(&self, count: usize) -> impl Iterator<Item = i32> {
        self.items.iter().take(count).map(|item| item.id)
    }

    /// Index of the category column with this name.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub(crate) fn column_names(&self) -> Vec<&str> {
        self.columns
            .iter()
            .map(|column| column.name.as_str())
            .collect()
    }

    /// The items of a category; `None` if the category does not exist.
    pub(crate) fn members(&self, column: usize, value: i32) -> Option<impl Iterator<Item = i32>> {
        let places = self.members.get(&(column, value))?;
        Some(
            places
                .iter()
                .filter_map(|&place| Some(self.items.get(place as usize)?.id)),
        )
    }

    /// All categories as JSON, those with the most items first.
    pub(crate) fn categories(&self) -> Value {
        let mut all: Vec<_> = self.members.iter().collect();
        all.sort_by_key(|((column, value), places)| (Reverse(places.len()), *column, *value));
        all.into_iter()
            .filter_map(|((column, value), places)| {
                let column = self.columns.get(*column)?;
                Some(json!({
                    "column": column.name,
                    "value": value,
                    "name": column.name_of(*value),
                    "items": places.len(),
                }))
            })
            .collect()
    }

    pub(crate) fn knows_user(&self, id: i32) -> bool {
        self.known_users.contains(&id)
    }

    /// Up to `count` users, each with its features as JSON.
    pub(crate) fn users(&self, count: usize) -> impl Iterator<Item = (i32, &str)> {
        let step = (self.users.len() / count.max(1)).max(1);
        let spread = self.users.iter().step_by(step).take(count);
        spread.map(|(id, features)| (*id, features.as_ref()))
    }

    /// Appends items with their scores to `out`, as a JSON array.
    pub(crate) fn write_all(&self, items: impl IntoIterator<Item = (i32, f32)>, out: &mut String) {
        out.push('[');
        for (place, (id, score)) in items.into_iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            self.write(id, score, out);
        }
        out.push(']');
    }

    /// Appends one item with its score to `out`.
    fn write(&self, id: i32, score: f32, out: &mut String) {
        use std::fmt::Write;
        let _ = write!(out, "{{\"id\":{id},\"score\":");
        match score.is_finite() {
            true => drop(write!(out, "{score}")),
            // JSON has no representation for NaN and infinity.
            false => out.push_str("null"),
        }
        out.push(',');
        match self.item(id) {
            Some(item) => out.push_str(&item.shown),
            // The item belongs to a newer release than the catalogue.
            None => out.push_str(r#""title":null,"categories":{},"price":null,"picture":null"#),
        }
        out.push('}');
    }
}

fn picture_url(id: i32, file: &std::path::Path) -> String {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => format!("/pictures/{id}.{extension}"),
        None => format!("/pictures/{id}"),
    }
}

fn shown(
    title: Option<&str>,
    categories: Map<String, Value>,
    price: Option<f32>,
    picture: Option<String>,
) -> String {
    // The price is written with its shortest f32 digits. A conversion to f64 would add digits.
    let price = price
        .filter(|price| price.is_finite())
        .and_then(|price| price.to_string().parse::<f64>().ok());
    let fields = [
        ("title", json!(title)),
        ("categories", Value::Object(categories)),
        ("price", json!(price)),
        ("picture", json!(picture)),
    ];
    let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
    fields.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> DisplayCatalogue {
        let column = Column {
            name: "category_l1".to_owned(),
            names: vec!["Shoes".to_owned()],
        };
        let item = |id, category, title: &str| Item {
            id,
            title: Some(title.to_owned()),
            categories: vec![category],
            price: Some(12.1),
            picture: (id == 1).then(|| PathBuf::from("/x/1.png")),
            known: Map::new(),
        };
        DisplayCatalogue::new(
            vec![column],
            [item(1, 0, "A \"b\""), item(2, 7, "C"), item(3, 7, "D")],
            0..5000,
            |_| Map::new(),
        )
    }

    #[test]
    fn an_item_is_json() {
        let catalogue = catalogue();
        let read = |id, score| -> Value {
            let mut text = String::new();
            catalogue.write(id, score, &mut text);
            serde_json::from_str(&text).unwrap()
        };
        let wanted = json!({"id": 1, "score": 0.5, "title": "A \"b\"", "categories": {"category_l1": "Shoes"},
            "price": 12.1, "picture": "/pictures/1.png"});
        assert_eq!(read(1, 0.5), wanted);
        assert_eq!(read(2, f32::NAN)["score"], Value::Null);
        assert_eq!(read(2, 1.0)["categories"]["category_l1"], "7");
        assert_eq!(read(9, 1.0)["title"], Value::Null);
    }

    #[test]
    fn categories_are_listed_by_size() {
        let categories = catalogue().categories();
        assert_eq!(categories[0]["value"], 7);
        assert_eq!(categories[0]["items"], 2);
        assert_eq!(categories[1]["name"], "Shoes");
    }

    #[test]
    fn codes_of_users_are_shown_by_their_names() {
        let names = ["F", "M"].map(str::to_owned).to_vec();
        let names = BTreeMap::from([("gender".to_owned(), names)]);
        let catalogue = catalogue().with_user_names(names);
        let named = |gender: Value| {
            let stored =
                Map::from_iter([("gender".to_owned(), gender), ("age".to_owned(), 1.into())]);
            let mut named = catalogue.named(stored);
            assert_eq!(named["age"], 1, "a number without names");
            named.remove("gender").unwrap()
        };
        assert_eq!(named(1.into()), "M");
        // The default of a missing value, a code of a later release, a text, a missing value.
        for unnamed in [json!(-1), json!(7), json!("x"), json!(null)] {
            assert_eq!(named(unnamed.clone()), unnamed);
        }
    }

    #[test]
    fn some_users_are_shown_and_all_are_known() {
        let catalogue = catalogue();
        assert_eq!(catalogue.users(20).count(), 20);
        assert!(catalogue.knows_user(4999));
        assert!(!catalogue.knows_user(5000));
    }
}
