//! Entity keys and hash fields.

use std::fmt;
use std::str::FromStr;

use crate::StoreError;

/// The serialization of the entity key: `entity_key_serialization_version` in `feature_store.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityKeyVersion {
    /// Join keys without their lengths.
    V2,
    /// The number of join keys, and each join key with its length. Feast's default.
    V3,
}

impl FromStr for EntityKeyVersion {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "2" => Ok(Self::V2),
            "3" => Ok(Self::V3),
            _ => Err(StoreError::Settings(format!(
                "entity key serialization version '{text}' is not supported; accepted: 2, 3"
            ))),
        }
    }
}

impl fmt::Display for EntityKeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "2",
            Self::V3 => "3",
        })
    }
}

/// The value of a join key. The type is part of the key: user 7 as INT32 and as INT64 are different entities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntityId {
    /// Feast's INT32.
    Int32(i32),
    /// Feast's INT64.
    Int64(i64),
    /// Feast's STRING.
    String(String),
    /// Feast's BYTES.
    Bytes(Vec<u8>),
}

/// Feast's type of an entity whose ids are whole numbers in Saker. pandas and Feast store ids as INT64 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityType {
    /// INT32
    #[default]
    Int32,
    /// INT64
    Int64,
    /// STRING: the id as decimal text.
    String,
}

impl EntityType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Int32, Self::Int64, Self::String];

    /// The id as an entity of this type. A store of INT32 entities cannot hold an id beyond INT32: such an id gets INT64's key, which does
    /// not exist there.
    #[must_use]
    pub fn id(self, id: i64) -> EntityId {
        match self {
            Self::Int32 => i32::try_from(id).map_or(EntityId::Int64(id), EntityId::Int32),
            Self::Int64 => EntityId::Int64(id),
            Self::String => EntityId::String(id.to_string()),
        }
    }

    /// Feast's name of the type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::String => "STRING",
        }
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EntityType {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| {
            StoreError::Settings(format!(
                "entity type '{text}' is not supported; accepted: INT32, INT64, STRING"
            ))
        })
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int32(id) => id.fmt(f),
            Self::Int64(id) => id.fmt(f),
            Self::String(id) => id.fmt(f),
            Self::Bytes(id) => write!(f, "{id:?}"),
        }
    }
}

/// Feast's `ValueType` numbers of the types that an entity may have.
pub(super) mod value_type {
    pub(crate) const BYTES: u32 = 1;
    pub(crate) const STRING: u32 = 2;
    pub(crate) const INT32: u32 = 3;
    pub(crate) const INT64: u32 = 4;
}

impl EntityId {
    /// The type; `None` for BYTES, which Saker's ids never have.
    #[must_use]
    pub fn entity_type(&self) -> Option<EntityType> {
        match self {
            Self::Int32(_) => Some(EntityType::Int32),
            Self::Int64(_) => Some(EntityType::Int64),
            Self::String(_) => Some(EntityType::String),
            Self::Bytes(_) => None,
        }
    }

    /// Feast's name of the type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.entity_type().map_or("BYTES", EntityType::as_str)
    }

    /// The whole number for which [`EntityType::id`] returns this id; `None` for other texts, such as `u7` and `007`.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Int32(id) => Some(i64::from(*id)),
            Self::Int64(id) => Some(*id),
            Self::String(text) => text.parse().ok().filter(|id: &i64| id.to_string() == *text),
            Self::Bytes(_) => None,
        }
    }

    /// Appends type, length and value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int32(id) => write_value(value_type::INT32, &id.to_le_bytes(), out),
            Self::Int64(id) => write_value(value_type::INT64, &id.to_le_bytes(), out),
            Self::String(id) => write_value(value_type::STRING, id.as_bytes(), out),
            Self::Bytes(id) => write_value(value_type::BYTES, id, out),
        }
    }

    /// Reads what [`EntityId::write`] wrote; `None` for anything else.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = Self::read_first(bytes)?;
        rest.is_empty().then_some(id)
    }

    /// Reads one id; returns it and the remaining bytes.
    fn read_first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let id = match u32::from_le_bytes(*kind) {
            value_type::INT32 => Self::Int32(i32::from_le_bytes(value.try_into().ok()?)),
            value_type::INT64 => Self::Int64(i64::from_le_bytes(value.try_into().ok()?)),
            value_type::STRING => Self::String(String::from_utf8(value.to_vec()).ok()?),
            value_type::BYTES => Self::Bytes(value.to_vec()),
            _ => return None,
        };
        Some((id, rest))
    }
}

fn write_value(kind: u32, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// Appends the part before the values: the sorted join keys.
pub(super) fn write_join_keys<'n>(
    version: EntityKeyVersion,
    names: impl ExactSizeIterator<Item = &'n str>,
    out: &mut Vec<u8>,
) {
    if version == EntityKeyVersion::V3 {
        out.extend_from_slice(&(names.len() as u32).to_le_bytes());
    }
    for name in names {
        out.extend_from_slice(&value_type::STRING.to_le_bytes());
        if version == EntityKeyVersion::V3 {
            out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        }
        out.extend_from_slice(name.as_bytes());
    }
}

/// The Redis key of an entity: its serialized entity key, then the project's name. Join keys may come in any order.
#[must_use]
pub fn entity_key(
    version: EntityKeyVersion,
    project: &str,
    join_keys: &[(&str, EntityId)],
) -> Vec<u8> {
    let mut sorted: Vec<_> = join_keys.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut key = Vec::with_capacity(64);
    write_join_keys(version, sorted.iter().map(|(name, _)| *name), &mut key);
    for (_, id) in &sorted {
        id.write(&mut key);
    }
    key.extend_from_slice(project.as_bytes());
    key
}

/// The join keys of an entity with their values, in the order of the Redis key.
pub type JoinKeys = Vec<(String, EntityId)>;

/// Reads a key that [`entity_key`] wrote, in either version; `None` for a key of another project or kind.
#[must_use]
pub fn read_entity_key(key: &[u8], project: &str) -> Option<(EntityKeyVersion, JoinKeys)> {
    let key = key.strip_suffix(project.as_bytes())?;
    if let Some(join_keys) = read_v3(key) {
        return Some((EntityKeyVersion::V3, join_keys));
    }
    let join_keys = read_v2(key)?;
    Some((EntityKeyVersion::V2, join_keys))
}

fn read_v3(key: &[u8]) -> Option<JoinKeys> {
    let (count, mut rest) = key.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    // Each join key takes at least 8 bytes.
    if count == 0 || count > rest.len() / 8 {
        return None;
    }
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, after) = EntityId::read_first(rest)?;
        let EntityId::String(name) = name else {
            return None;
        };
        names.push(name);
        rest = after;
    }
    values_of(&names, rest)
}

/// Version 2 does not store the number of names. After each name, the rest may be the values. A name ends before the number of the next
/// type, which begins with a control character.
fn read_v2(mut rest: &[u8]) -> Option<JoinKeys> {
    let mut names = Vec::new();
    loop {
        if !names.is_empty()
            && let Some(join_keys) = values_of(&names, rest)
        {
            return Some(join_keys);
        }
        rest = rest.strip_prefix(&value_type::STRING.to_le_bytes())?;
        let end = rest.iter().position(u8::is_ascii_control)?;
        let (name, after) = rest.split_at(end);
        // Each value takes at least 8 bytes.
        if name.is_empty()
            || !matches!(after, [1..=4, 0, 0, 0, ..])
            || names.len() * 8 >= after.len()
        {
            return None;
        }
        names.push(String::from_utf8(name.to_vec()).ok()?);
        rest = after;
    }
}

/// Reads one value per name, with no bytes after them.
fn values_of(names: &[String], mut rest: &[u8]) -> Option<JoinKeys> {
    let mut join_keys = Vec::with_capacity(names.len());
    for name in names {
        let (id, after) = EntityId::read_first(rest)?;
        join_keys.push((name.clone(), id));
        rest = after;
    }
    rest.is_empty().then_some(join_keys)
}

/// The hash field of a feature: murmur3-32, seed 0, of `{view}:{feature}`, little-endian.
#[must_use]
pub fn feature_field(view: &str, feature: &str) -> [u8; 4] {
    let name = format!("{view}:{feature}");
    // Reading from memory cannot fail; the fallback is the hash of an empty text, 0.
    murmur3::murmur3_32(&mut name.as_bytes(), 0)
        .unwrap_or_default()
        .to_le_bytes()
}

/// The hash field of a view's event time.
#[must_use]
pub fn timestamp_field(view: &str) -> Vec<u8> {
    format!("_ts:{view}").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn several_join_keys_are_sorted() {
        let a = ("a", EntityId::Int32(1));
        let b = ("b", EntityId::String("x".into()));
        for version in [EntityKeyVersion::V2, EntityKeyVersion::V3] {
            let key = entity_key(version, "p", &[b.clone(), a.clone()]);
            assert_eq!(key, entity_key(version, "p", &[a.clone(), b.clone()]));
        }
        assert_eq!(
            entity_key(EntityKeyVersion::V3, "p", &[b, a]),
            b"\x02\0\0\0\x02\0\0\0\x01\0\0\0a\x02\0\0\0\x01\0\0\0b\x03\0\0\0\x04\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0xp"
        );
    }

    fn any_id() -> impl Strategy<Value = EntityId> {
        prop_oneof![
            any::<i32>().prop_map(EntityId::Int32),
            any::<i64>().prop_map(EntityId::Int64),
            ".{0,40}".prop_map(EntityId::String),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(EntityId::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn keys_of_one_entity_and_of_several_are_read_back(
            join_keys in proptest::collection::btree_map("[a-z_]{1,12}", any_id(), 1..4),
            project in "[a-z_]{1,12}",
            second in any::<bool>(),
        ) {
            let version = if second { EntityKeyVersion::V2 } else { EntityKeyVersion::V3 };
            let join_keys: Vec<(String, EntityId)> = join_keys.into_iter().collect();
            let named: Vec<(&str, EntityId)> =
                join_keys.iter().map(|(name, id)| (name.as_str(), id.clone())).collect();
            let key = entity_key(version, &project, &named);
            prop_assert_eq!(read_entity_key(&key, &project), Some((version, join_keys)));
            prop_assert_eq!(read_entity_key(&key[..key.len() - 1], &project), None);
        }

        #[test]
        fn what_is_no_key_is_not_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            // No panic, and no allocation for a count that exceeds the input: a value takes at least 8 bytes.
            let read = read_entity_key(&bytes, "");
            prop_assert!(read.is_none_or(|(_, join_keys)| join_keys.len() * 8 <= bytes.len()));
        }

        #[test]
        fn an_id_of_any_type_is_its_number_again(id in any::<i64>(), small in any::<i32>()) {
            for kind in EntityType::ALL {
                prop_assert_eq!(kind.id(id).number(), Some(id));
                let entity = kind.id(i64::from(small));
                prop_assert_eq!(entity.entity_type(), Some(kind));
                prop_assert_eq!(entity.number(), Some(i64::from(small)));
                prop_assert_eq!(kind.as_str().parse::<EntityType>().unwrap(), kind);
            }
        }
    }

    #[test]
    fn a_long_key_needs_no_deep_stack() {
        // A recursive reader would overflow the stack here.
        let key = b"\x02\0\0\0a".repeat(1_000_000);
        assert_eq!(read_entity_key(&key, ""), None);
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in [
            "",
            "u7",
            "007",
            "+7",
            " 7",
            "7.0",
            "-0",
            "99999999999999999999",
        ] {
            assert_eq!(EntityId::String(text.into()).number(), None, "{text:?}");
        }
        let error = "int64".parse::<EntityType>().unwrap_err().to_string();
        assert!(error.contains("'int64'") && error.contains("INT32, INT64, STRING"));
    }

    #[test]
    fn ids_are_read_back() {
        for id in [
            EntityId::Int32(i32::MIN),
            EntityId::Int64(i64::MAX),
            EntityId::String("héllo".into()),
            EntityId::Bytes(vec![0, 255]),
        ] {
            let mut bytes = Vec::new();
            id.write(&mut bytes);
            assert_eq!(EntityId::read(&bytes), Some(id));
            bytes.pop();
            assert_eq!(EntityId::read(&bytes), None);
        }
    }
}
