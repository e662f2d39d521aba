//! One feature view with one join key: the commands that read it and what their replies mean.

use redis::Value as Reply;

use super::key::{EntityKeyVersion, write_join_keys};
use super::{EntityId, Value, feature_field, timestamp_field};
use crate::{Pipeline, StoreError};

/// The features of a view that we read or write, and where they lie.
#[derive(Clone, Debug)]
pub struct FeatureView {
    name: String,
    join_key: String,
    features: Vec<String>,
    fields: Vec<[u8; 4]>,
    timestamp: Vec<u8>,
    /// The Redis key up to the entity's type.
    prefix: Vec<u8>,
    project: Vec<u8>,
}

impl FeatureView {
    /// `features` of the view `name` in `project`, whose entity has the one join key `join_key`.
    #[must_use]
    pub fn new(
        project: &str,
        name: &str,
        join_key: &str,
        version: EntityKeyVersion,
        features: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let features: Vec<String> = features.into_iter().map(Into::into).collect();
        let mut prefix = Vec::new();
        write_join_keys(version, [join_key].into_iter(), &mut prefix);
        Self {
            name: name.to_owned(),
            join_key: join_key.to_owned(),
            fields: features
                .iter()
                .map(|feature| feature_field(name, feature))
                .collect(),
            timestamp: timestamp_field(name),
            features,
            prefix,
            project: project.as_bytes().to_vec(),
        }
    }

    /// The view's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The entity's join key.
    #[must_use]
    pub fn join_key(&self) -> &str {
        &self.join_key
    }

    /// The features, in the order of a [`Row`].
    #[must_use]
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// The Redis key of an entity.
    #[must_use]
    pub fn key(&self, id: &EntityId) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + self.project.len() + 16);
        key.extend_from_slice(&self.prefix);
        id.write(&mut key);
        key.extend_from_slice(&self.project);
        key
    }

    /// Which entity a Redis key belongs to; `None` when it is no entity of this join key and project.
    #[must_use]
    pub fn id_of(&self, key: &[u8]) -> Option<EntityId> {
        EntityId::read(
            key.strip_prefix(self.prefix.as_slice())?
                .strip_suffix(self.project.as_slice())?,
        )
    }

    /// A SCAN pattern that matches the keys of all entities of this join key and project (and perhaps others:
    /// see [`FeatureView::id_of`]).
    #[must_use]
    pub fn pattern(&self) -> Vec<u8> {
        let mut pattern = Vec::new();
        escape(&self.prefix, &mut pattern);
        pattern.push(b'*');
        escape(&self.project, &mut pattern);
        pattern
    }

    /// Adds the read of one entity: one HMGET of the features and of the view's event time.
    pub fn read(&self, id: &EntityId, pipeline: &mut Pipeline) {
        self.read_key(&self.key(id), pipeline);
    }

    /// [`FeatureView::read`] of a key that is already at hand.
    pub fn read_key(&self, key: &[u8], pipeline: &mut Pipeline) {
        pipeline.command(key, |cmd| {
            cmd.arg("HMGET").arg(key);
            for field in &self.fields {
                cmd.arg(field.as_slice());
            }
            cmd.arg(self.timestamp.as_slice());
        });
    }

    /// Reads a reply to [`FeatureView::read`]. `None`: the view has no such entity. That the entity has features in
    /// other views does not count: the view's event time tells.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] when the reply is none of HMGET.
    pub fn row<'r>(&self, reply: &'r Reply) -> Result<Option<Row<'r>>, StoreError> {
        let Reply::Array(values) = reply else {
            return Err(StoreError::Protocol("HMGET: not an array".into()));
        };
        match values.split_last() {
            Some((timestamp, features)) if features.len() == self.features.len() => {
                let features = (!matches!(timestamp, Reply::Nil)).then_some(Row { features });
                Ok(features)
            }
            _ => Err(StoreError::Protocol(format!(
                "HMGET: {} values for {} features",
                values.len(),
                self.features.len()
            ))),
        }
    }

    pub(super) fn fields(&self) -> &[[u8; 4]] {
        &self.fields
    }

    pub(super) fn timestamp(&self) -> &[u8] {
        &self.timestamp
    }
}

/// The stored features of one entity.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    features: &'r [Reply],
}

impl Row<'_> {
    /// The value of the feature at `position` in [`FeatureView::features`]; `None` when there is none, or a null.
    ///
    /// # Errors
    /// [`StoreError::Data`] when the bytes are no ValueProto.
    pub fn value(&self, position: usize) -> Result<Option<Value>, StoreError> {
        match self.features.get(position) {
            Some(Reply::BulkString(bytes)) => Value::from_bytes(bytes),
            _ => Ok(None),
        }
    }
}

/// Takes the special meaning from glob characters.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_keys_have_an_id() {
        let view = FeatureView::new("p", "v", "user_id", EntityKeyVersion::V3, ["a"]);
        let other = FeatureView::new("p", "v", "user_i*", EntityKeyVersion::V3, ["a"]);
        let id = EntityId::Int32(0x2a2a_2a2a);
        assert_eq!(view.id_of(&view.key(&id)), Some(id.clone()));
        assert_eq!(other.id_of(&view.key(&id)), None);
        let project = FeatureView::new("xp", "v", "user_id", EntityKeyVersion::V3, ["a"]);
        assert_eq!(view.id_of(&project.key(&id)), None);
        assert!(other.pattern().windows(2).any(|pair| pair == b"\\*"));
    }

    #[test]
    fn a_row_without_an_event_time_is_absent() {
        let view = FeatureView::new("p", "v", "user_id", EntityKeyVersion::V3, ["a"]);
        let value = Reply::BulkString(vec![0x18, 7]);
        let time = Reply::BulkString(Vec::new());
        assert!(
            view.row(&Reply::Array(vec![value.clone(), Reply::Nil]))
                .unwrap()
                .is_none()
        );
        let present = Reply::Array(vec![value, time.clone()]);
        assert_eq!(
            view.row(&present).unwrap().unwrap().value(0).unwrap(),
            Some(Value::Int32(7))
        );
        let null = Reply::Array(vec![Reply::Nil, time.clone()]);
        assert_eq!(view.row(&null).unwrap().unwrap().value(0).unwrap(), None);
        assert!(view.row(&Reply::Array(vec![time])).is_err());
        assert!(view.row(&Reply::Okay).is_err());
    }
}
