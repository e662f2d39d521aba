//! What a storefront sends to the gateway.

use std::sync::LazyLock;

use saker_gateway::catalogue::{DisplayCatalogue, Item};
use saker_gateway::readers;
use serde_json::Map;

pub(crate) const NOW_US: i64 = 1_700_000_000_000_000;

static CATALOGUE: LazyLock<DisplayCatalogue> = LazyLock::new(|| {
    let item = Item {
        id: 7,
        ..Item::default()
    };
    DisplayCatalogue::new(Vec::new(), [item], [], |_| Map::new())
});

/// A query: what is accepted is in range, and an error is no longer than the query allows.
pub(crate) fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match readers::query(text) {
        Ok((k, _, device)) => {
            assert!((1..=100).contains(&k), "{k}");
            assert!(device.is_none_or(|device| (0..3).contains(&device)));
        }
        Err(error) => assert!(error.contains("accepted"), "{error}"),
    }
}

/// The body of `POST /events`: an event that is accepted is of the catalogue, and its time and id are in range.
pub(crate) fn events(data: &[u8]) {
    match readers::events(data, &CATALOGUE, NOW_US) {
        Ok(events) => {
            assert!((1..=1000).contains(&events.len()));
            for event in events {
                assert_eq!(event.item, 7);
                assert!((0..=NOW_US + 300_000_000).contains(&event.time_us));
                assert!((1..=64).contains(&event.id.chars().count()));
                let fields = event.fields();
                let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
                let read = saker_store::events::Event::from_fields(fields);
                assert_eq!(read.ok(), Some(event), "what is published can be applied");
            }
        }
        Err(error) => assert!(
            error.contains("accepted") && error.len() < 2000,
            "{} bytes: {error}",
            error.len()
        ),
    }
}
