//! What is read from the store.

use saker_store::events::Event;
use saker_store::feast::{
    EntityKeyVersion, FeatureView, Timestamp, Value, entity_key, read_entity_key,
};
use saker_store::seen::bitmap::{Filter, Geometry, insert};
use saker_store::{Reply, Settings};

/// A key of Feast's, before it the project's name and a 0: what is read is written as the same bytes.
pub(crate) fn feast_key(data: &[u8]) {
    let (project, key) = cut(data);
    let Ok(project) = std::str::from_utf8(project) else {
        return;
    };
    let Some((version, join_keys)) = read_entity_key(key, project) else {
        return;
    };
    assert!(join_keys.len() * 8 <= key.len(), "{join_keys:?}");
    let named: Vec<_> = join_keys
        .iter()
        .map(|(name, id)| (name.as_str(), id.clone()))
        .collect();
    if named.is_sorted_by_key(|(name, _)| *name) {
        assert_eq!(entity_key(version, project, &named), key, "{join_keys:?}");
    }
}

/// A field of Feast's: what is read is written and read as the same value, and a row gives it.
pub(crate) fn feast_value(data: &[u8]) {
    let again = |value: &Option<Value>| Value::to_bytes(value.as_ref());
    let read = Value::from_bytes(data);
    match &read {
        Ok(value) => {
            // By their bytes: NaN is no NaN's equal.
            let bytes = again(value);
            let second = Value::from_bytes(&bytes).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again(&second), bytes);
        }
        Err(error) => assert!(error.to_string().contains("ValueProto"), "{error}"),
    }
    if let Ok(time) = Timestamp::from_bytes(data) {
        assert_eq!(Timestamp::from_bytes(&time.to_bytes()).ok(), Some(time));
    }
    let view = FeatureView::new("p", "v", "user_id", EntityKeyVersion::V3, ["a"]);
    let reply = Reply::Array(vec![
        Reply::BulkString(data.to_vec()),
        Reply::BulkString(data.to_vec()),
    ]);
    let row = view.row(&reply).unwrap_or_else(|error| panic!("{error}"));
    let row = row.unwrap_or_else(|| panic!("a row with an event time is there"));
    assert_eq!(row.value(0).is_ok(), read.is_ok());
}

/// A bitmap of seen items, before it an item's id: what is inserted is found, and no bit lies beyond what a string may have.
pub(crate) fn bitmap(data: &[u8]) {
    let Some((item, stored)) = data.split_first_chunk::<8>() else {
        return;
    };
    let item = i64::from_le_bytes(*item);
    let geometry = Geometry::new(100, 0.01).unwrap_or_else(|error| panic!("{error}"));
    let filter = Filter::read(stored);
    let change = insert(Some(stored), geometry, &[item]);
    assert_eq!(filter.is_ok(), change.is_ok());
    let (Ok(filter), Ok(change)) = (filter, change) else {
        return;
    };
    assert_eq!(filter.contains(item), change.bits.is_empty());
    let mut bytes = stored.to_vec();
    for bit in change.bits {
        // No more than twice what Geometry::new makes at most, or four times what is stored.
        let byte = (bit / 8) as usize;
        assert!(byte <= (80 << 20).max(4 * stored.len()), "bit {bit}");
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0);
        }
        bytes[byte] |= 0x80 >> (bit % 8);
    }
    let after = Filter::read(&bytes).unwrap_or_else(|error| panic!("{error}"));
    assert!(after.contains(item));
}

/// An entry of the stream, a line `name=value` for each field: what is read is written and read as the same event.
pub(crate) fn event(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let fields = text.lines().filter_map(|line| line.split_once('='));
    match Event::from_fields(fields) {
        Ok(event) => {
            let fields = event.fields();
            let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
            assert_eq!(Event::from_fields(fields).ok(), Some(event));
        }
        Err(error) => {
            let error = error.to_string();
            assert!(
                error.contains("field") || error.contains("type '"),
                "{error}"
            );
        }
    }
}

/// The rest of a store's URL behind a password, which neither the settings nor an error may show.
pub(crate) fn store_url(data: &[u8]) {
    const SECRET: &str = "n3ver-sh0wn";
    let Ok(rest) = std::str::from_utf8(data) else {
        return;
    };
    for scheme in ["redis", "rediss", "redis+cluster"] {
        let url = format!("{scheme}://user:{SECRET}@{rest}");
        let shown = match Settings::parse(&url, None) {
            Ok(settings) => format!("{settings:?} {}", settings.url()),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// What lies before the first 0, and what lies behind it.
pub(crate) fn cut(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == 0);
    at.map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}
