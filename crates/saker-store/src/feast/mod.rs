//! Feast's online store in the layout of its Redis provider, byte for byte.
//!
//! One hash per entity: the key is the serialized entity key followed by the project's name; a field is the murmur3-32
//! of `{view}:{feature}` in little-endian bytes and holds a `ValueProto`; the field `_ts:{view}` holds the event time.
//! The layout was derived from stores that Feast 0.67 wrote (tests/data/feast).

pub mod defaults;
mod key;
mod load;
mod survey;
mod value;
mod view;
mod write;

pub use key::{
    EntityId, EntityKeyVersion, EntityType, JoinKeys, entity_key, feature_field, read_entity_key,
    timestamp_field,
};
pub use load::load;
pub use survey::{Found, Stored, survey};
pub use value::{Timestamp, Value, list};
pub use view::{FeatureView, Row};
pub use write::Writer;
