//! A feature view with one join key: the commands that read it, and the parsing of their replies.

use redis::Value as Reply;

use super::key::{EntityKeyVersion, write_join_keys};
use super::{EntityId, EntityType, Timestamp, Value, feature_field, timestamp_field};
use crate::{Pipeline, StoreError};

/// The features of a view, and the keys and fields where they are stored.
#[derive(Clone, Debug)]
pub struct FeatureView {
    name: String,
    join_key: String,
    features: Vec<String>,
    fields: Vec<[u8; 4]>,
    timestamp: Vec<u8>,
    /// Features that another view of the same entity may have in a newer version.
    elsewhere: Vec<Elsewhere>,
    /// The Redis key up to the entity's type.
    prefix: Vec<u8>,
    project: Vec<u8>,
    entity_type: EntityType,
    version: EntityKeyVersion,
}

/// A feature's place in another view.
#[derive(Clone, Debug)]
struct Elsewhere {
    /// Index among the features.
    position: usize,
    field: [u8; 4],
    timestamp: Vec<u8>,
}

impl FeatureView {
    /// The `features` of the view `name` in `project`, whose entity has the single join key `join_key`.
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
            elsewhere: Vec::new(),
            features,
            prefix,
            project: project.as_bytes().to_vec(),
            entity_type: EntityType::default(),
            version,
        }
    }

    /// Sets the type of the entities, which is INT32 by default. The type is part of each key.
    #[must_use]
    pub fn with_entity_type(mut self, entity_type: EntityType) -> Self {
        self.entity_type = entity_type;
        self
    }

    /// The entity with this number, in the view's type.
    #[must_use]
    pub fn id(&self, number: impl Into<i64>) -> EntityId {
        self.entity_type.id(number.into())
    }

    /// The type of the entities.
    #[must_use]
    pub fn entity_type(&self) -> EntityType {
        self.entity_type
    }

    /// The version of the keys.
    #[must_use]
    pub fn version(&self) -> EntityKeyVersion {
        self.version
    }

    /// Feast's project.
    #[must_use]
    pub fn project(&self) -> String {
        String::from_utf8_lossy(&self.project).into_owned()
    }

    /// Reads `feature` from the view `other` of the same entity as well. Of the two values, the one with the later event time of its view
    /// is used; on a tie, the value of `other`. An update by one writer, for example clicks, is thus not lost when another writer stores
    /// older rows of the whole view. Writes are unaffected.
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`] if the view has no such feature.
    pub fn with_feature_elsewhere(
        mut self,
        feature: &str,
        other: &str,
    ) -> Result<Self, StoreError> {
        let position = self
            .features
            .iter()
            .position(|known| known == feature)
            .ok_or_else(|| {
                StoreError::Settings(format!(
                    "view '{}' has no feature '{feature}'; accepted: {}",
                    self.name,
                    self.features.join(", ")
                ))
            })?;
        self.elsewhere.push(Elsewhere {
            position,
            field: feature_field(other, feature),
            timestamp: timestamp_field(other),
        });
        Ok(self)
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

    /// The entity of a Redis key; `None` if the key has another join key or project.
    #[must_use]
    pub fn id_of(&self, key: &[u8]) -> Option<EntityId> {
        EntityId::read(
            key.strip_prefix(self.prefix.as_slice())?
                .strip_suffix(self.project.as_slice())?,
        )
    }

    /// A SCAN pattern that matches the keys of all entities of this join key and project. It may match others too: see
    /// [`FeatureView::id_of`].
    #[must_use]
    pub fn pattern(&self) -> Vec<u8> {
        let mut pattern = Vec::new();
        escape(&self.prefix, &mut pattern);
        pattern.push(b'*');
        escape(&self.project, &mut pattern);
        pattern
    }

    /// A SCAN pattern that matches the keys of all entities of the project, with any join keys.
    pub(super) fn project_pattern(&self) -> Vec<u8> {
        let mut pattern = vec![b'*'];
        escape(&self.project, &mut pattern);
        pattern
    }

    /// Adds the read of one entity: one HMGET of the features, of the view's event time, and of the fields in other views.
    pub fn read(&self, id: &EntityId, pipeline: &mut Pipeline) {
        self.read_key(&self.key(id), pipeline);
    }

    /// Like [`FeatureView::read`], for a key that the caller has already built.
    pub fn read_key(&self, key: &[u8], pipeline: &mut Pipeline) {
        pipeline.command(key, |cmd| {
            cmd.arg("HMGET").arg(key);
            for field in &self.fields {
                cmd.arg(field.as_slice());
            }
            cmd.arg(self.timestamp.as_slice());
            for other in &self.elsewhere {
                cmd.arg(other.field.as_slice())
                    .arg(other.timestamp.as_slice());
            }
        });
    }

    /// Reads a reply to [`FeatureView::read`]. Returns `None` if neither the view nor the other views of its features have this entity. The
    /// views' event times decide this, so features in further views do not count.
    ///
    /// # Errors
    /// Returns [`StoreError::Protocol`] if the reply does not belong to HMGET.
    pub fn row<'r>(&'r self, reply: &'r Reply) -> Result<Option<Row<'r>>, StoreError> {
        let Reply::Array(values) = reply else {
            return Err(StoreError::Protocol("HMGET: not an array".into()));
        };
        let row = values
            .split_at_checked(self.features.len())
            .and_then(|(features, rest)| {
                let (time, rest) = rest.split_first()?;
                let (elsewhere, []) = rest.as_chunks() else {
                    return None;
                };
                (elsewhere.len() == self.elsewhere.len()).then_some(Row {
                    view: self,
                    features,
                    time,
                    elsewhere,
                })
            });
        let row = row.ok_or_else(|| {
            StoreError::Protocol(format!(
                "HMGET: {} values for {} features, of which {} are also in other views",
                values.len(),
                self.features.len(),
                self.elsewhere.len()
            ))
        })?;
        let is_there = |time: &Reply| !matches!(time, Reply::Nil);
        let known = is_there(row.time) || row.elsewhere.iter().any(|[_, time]| is_there(time));
        Ok(known.then_some(row))
    }

    /// The command that deletes the view's features of one entity. The entity's features in other views stay.
    #[must_use]
    pub fn remove(&self, id: &EntityId) -> Vec<Vec<u8>> {
        let mut words = vec![b"HDEL".to_vec(), self.key(id)];
        words.extend(self.fields.iter().map(|field| field.to_vec()));
        words.push(self.timestamp.clone());
        words
    }

    /// The command that writes one entity. `values` has the order of the features (`None`: a null); `time` is the time of the event. The
    /// entity's features in other views stay.
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`] if the number of values differs from the number of features.
    pub fn write(
        &self,
        id: &EntityId,
        values: &[Option<Value>],
        time: Timestamp,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        if values.len() != self.features.len() {
            return Err(StoreError::Settings(format!(
                "view '{}', entity {id}: {} values for {} features",
                self.name,
                values.len(),
                self.features.len()
            )));
        }
        let mut words = vec![b"HSET".to_vec(), self.key(id)];
        for (field, value) in self.fields.iter().zip(values) {
            words.push(field.to_vec());
            words.push(Value::to_bytes(value.as_ref()));
        }
        words.extend([self.timestamp.clone(), time.to_bytes()]);
        Ok(words)
    }
}

/// The stored features of one entity.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    view: &'r FeatureView,
    features: &'r [Reply],
    /// The view's event time.
    time: &'r Reply,
    /// Value and event time of each feature that is also in another view.
    elsewhere: &'r [[Reply; 2]],
}

impl Row<'_> {
    /// The value of the feature at `position` in [`FeatureView::features`]; `None` if it is missing or null.
    ///
    /// # Errors
    /// Returns [`StoreError::Data`] if the bytes are not a ValueProto, or if a needed event time is not a Timestamp.
    pub fn value(&self, position: usize) -> Result<Option<Value>, StoreError> {
        let Some(own) = self.features.get(position) else {
            return Ok(None);
        };
        let mut best = (own, self.time);
        for (other, pair) in self.view.elsewhere.iter().zip(self.elsewhere) {
            let [value @ Reply::BulkString(_), time] = pair else {
                continue;
            };
            if other.position == position
                && (!matches!(best.0, Reply::BulkString(_))
                    || event_time(time)? >= event_time(best.1)?)
            {
                best = (value, time);
            }
        }
        match best.0 {
            Reply::BulkString(bytes) => Value::from_bytes(bytes),
            _ => Ok(None),
        }
    }
}

/// Seconds since 1970 and nanoseconds. `None` if the time is missing; `None` sorts before any time.
fn event_time(reply: &Reply) -> Result<Option<(i64, i32)>, StoreError> {
    let Reply::BulkString(bytes) = reply else {
        return Ok(None);
    };
    let time = Timestamp::from_bytes(bytes)?;
    Ok(Some((time.seconds, time.nanos)))
}

/// Escapes glob characters.
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

    #[test]
    fn the_later_of_two_views_counts() {
        let view = FeatureView::new("p", "v", "user_id", EntityKeyVersion::V3, ["a", "b"])
            .with_feature_elsewhere("b", "clicks")
            .unwrap();
        let number = |number: i32| Reply::BulkString(Value::to_bytes(Some(&Value::Int32(number))));
        let at = |micros: i64| Reply::BulkString(Timestamp::from_micros(micros).to_bytes());
        let value = |reply: [Reply; 5], position: usize| {
            let reply = Reply::Array(reply.to_vec());
            let row = view.row(&reply).unwrap();
            row.map(|row| row.value(position).unwrap())
        };
        let is = |number: i32| Some(Some(Value::Int32(number)));
        let (one, two, clicked) = (number(1), number(2), number(9));
        let row = |time: Reply, elsewhere: Reply, clicked_at: Reply| {
            [one.clone(), two.clone(), time, elsewhere, clicked_at]
        };
        assert_eq!(value(row(at(5), clicked.clone(), at(6)), 1), is(9));
        assert_eq!(value(row(at(5), clicked.clone(), at(5)), 1), is(9));
        assert_eq!(value(row(at(7), clicked.clone(), at(6)), 1), is(2));
        assert_eq!(value(row(at(5), clicked.clone(), at(6)), 0), is(1));
        assert_eq!(value(row(at(5), Reply::Nil, Reply::Nil), 1), is(2));
        // The entity exists only in the view that clicks write.
        let newcomer = || [Reply::Nil, Reply::Nil, Reply::Nil, clicked.clone(), at(6)];
        assert_eq!(value(newcomer(), 1), is(9));
        assert_eq!(value(newcomer(), 0), Some(None));
        assert_eq!(value([const { Reply::Nil }; 5], 1), None);
        let error = view.clone().with_feature_elsewhere("c", "clicks");
        assert!(error.unwrap_err().to_string().contains("a, b"));
    }
}
