//! Entity keys and hash fields.

use std::fmt;
use std::str::FromStr;

use crate::StoreError;

/// How the entity key is serialized: `entity_key_serialization_version` in `feature_store.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityKeyVersion {
    /// Join keys without their lengths.
    V2,
    /// A count of join keys, and each with its length. Feast's default.
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

/// Feast's `ValueType` numbers of what may be an entity.
pub(super) mod value_type {
    pub(crate) const BYTES: u32 = 1;
    pub(crate) const STRING: u32 = 2;
    pub(crate) const INT32: u32 = 3;
    pub(crate) const INT64: u32 = 4;
}

impl EntityId {
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
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        let (length, value) = rest.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*length) as usize != value.len() {
            return None;
        }
        match u32::from_le_bytes(*kind) {
            value_type::INT32 => Some(Self::Int32(i32::from_le_bytes(value.try_into().ok()?))),
            value_type::INT64 => Some(Self::Int64(i64::from_le_bytes(value.try_into().ok()?))),
            value_type::STRING => Some(Self::String(String::from_utf8(value.to_vec()).ok()?)),
            value_type::BYTES => Some(Self::Bytes(value.to_vec())),
            _ => None,
        }
    }
}

fn write_value(kind: u32, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// Appends what comes before the values: the sorted join keys.
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

/// The hash field of a feature: murmur3-32, seed 0, of `{view}:{feature}`, little-endian.
#[must_use]
pub fn feature_field(view: &str, feature: &str) -> [u8; 4] {
    let name = format!("{view}:{feature}");
    // Reading from memory cannot fail, and the hash of nothing at all is 0.
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
