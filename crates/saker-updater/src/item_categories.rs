//! The categories of the items.

use std::collections::{BTreeSet, HashMap};

use saker_store::popularity::Set;

/// The categories of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// The category that counts for its users' top category, if it has one.
    pub top: Option<i32>,
    /// Its categories in `trending:cat_l1:*` and `trending:cat_l2:*`.
    pub trending: [Option<i32>; 2],
}

impl Item {
    /// The popularity sets that an event of this item counts in.
    pub fn sets(self) -> impl Iterator<Item = Set> {
        let [first, second] = self.trending;
        std::iter::once(Set::Global)
            .chain(first.map(|category| Set::CategoryL1(category.into())))
            .chain(second.map(|category| Set::CategoryL2(category.into())))
    }
}

/// The categories of all items, by raw item id.
#[derive(Clone, Debug, Default)]
pub struct ItemCategories {
    items: HashMap<i32, Item>,
}

impl ItemCategories {
    /// The categories of an item; `None` if the shop does not have it.
    #[must_use]
    pub fn get(&self, item: i32) -> Option<Item> {
        self.items.get(&item).copied()
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the shop has no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Every popularity set that events can count in, each once.
    #[must_use]
    pub fn sets(&self) -> BTreeSet<Set> {
        self.items.values().flat_map(|item| item.sets()).collect()
    }
}

impl FromIterator<(i32, Item)> for ItemCategories {
    fn from_iter<I: IntoIterator<Item = (i32, Item)>>(items: I) -> Self {
        Self {
            items: items.into_iter().collect(),
        }
    }
}
