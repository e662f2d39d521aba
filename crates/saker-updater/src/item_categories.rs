//! The categories of the items.

use std::collections::{BTreeSet, HashMap};

use saker_store::popularity::Set;

/// What the updater knows of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// What its user's top category is made from; `None`: it counts for none.
    pub top: Option<i32>,
    /// The categories that `trending:cat_l1:*` and `trending:cat_l2:*` count it in.
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

/// All items by their raw ids.
#[derive(Clone, Debug, Default)]
pub struct ItemCategories {
    items: HashMap<i32, Item>,
}

impl ItemCategories {
    /// The item, if it is one of the shop's.
    #[must_use]
    pub fn get(&self, item: i32) -> Option<Item> {
        self.items.get(&item).copied()
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
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
