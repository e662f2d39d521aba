//! The parameters of `feature_lookup` in config.pbtxt. Its README describes each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use saker_contract::Database;
use saker_store::address::in_environment;
use saker_store::feast::{EntityKeyVersion, EntityType, FeatureView, defaults};
use saker_store::{Address, Settings};
use serde::Deserialize;
use triton_backend::{DataType, Error};

use super::codes::{self, Vocabulary};
use crate::store::{entity_type, of_ids, wrong_store};

/// The parameters. The README of `feature_lookup` describes each.
#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub struct Parameters {
    #[serde(default = "redis_url")]
    redis_url: String,
    /// The source of the features.
    #[serde(default)]
    pub mode: Mode,
    #[serde(default = "defaults::project")]
    feast_project: String,
    #[serde(default = "defaults::user_view")]
    feature_view: String,
    #[serde(default)]
    other_views: Option<String>,
    /// The join key, and the name of the output that repeats the id.
    #[serde(default = "defaults::user_entity")]
    pub entity: String,
    #[serde(default = "defaults::entity_key_serialization")]
    entity_key_serialization: String,
    #[serde(default)]
    entity_type: Option<String>,
    #[serde(default)]
    codes: Option<PathBuf>,
    #[serde(default)]
    defaults: Option<String>,
    #[serde(default)]
    default_user_age: Option<i64>,
    #[serde(default = "deadline_ms")]
    deadline_ms: u32,
    #[serde(default)]
    tls_ca: Option<PathBuf>,
    #[serde(default = "refresh_seconds")]
    refresh_seconds: u32,
    /// A key in the store; when its value changes, the copy is refreshed.
    #[serde(default)]
    pub refresh_key: Option<String>,
    #[serde(default = "load_timeout_seconds")]
    load_timeout_seconds: u32,
}

/// The source of the features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The store is read for each batch.
    #[default]
    Online,
    /// A copy of the whole view in memory is read.
    Cached,
}

fn redis_url() -> String {
    in_environment(Database::Features)
}

fn deadline_ms() -> u32 {
    20
}

fn refresh_seconds() -> u32 {
    300
}

fn load_timeout_seconds() -> u32 {
    10
}

impl Parameters {
    /// The settings of the store. Opens no connection.
    ///
    /// # Errors
    /// Returns an error if the address or the deadline is invalid.
    pub fn settings(&self) -> Result<Settings, Error> {
        if self.deadline_ms == 0 {
            return Err(Error::invalid_argument(
                "parameter 'DEADLINE_MS' is 0; accepted: 1 and up",
            ));
        }
        let settings = Address::read(&self.redis_url)
            .and_then(|address| address.settings(self.tls_ca.as_deref()))
            .map_err(|error| wrong_store("REDIS_URL", self.tls_ca.is_some(), &error))?;
        Ok(settings.with_deadline(Duration::from_millis(u64::from(self.deadline_ms))))
    }

    /// Feast's type of the entity, if `ENTITY_TYPE` is set.
    ///
    /// # Errors
    /// Returns an error if the type is not supported.
    pub fn entity_type(&self) -> Result<Option<EntityType>, Error> {
        entity_type(self.entity_type.as_deref())
    }

    /// The view with these features. Without `ENTITY_TYPE`, the entity has the type of the ids in the requests.
    ///
    /// # Errors
    /// Returns an error if the serialization, the entity type or the view is invalid.
    pub fn view(
        &self,
        features: impl Iterator<Item = String>,
        id_type: DataType,
    ) -> Result<FeatureView, Error> {
        let version: EntityKeyVersion = self.entity_key_serialization.parse().map_err(|error| {
            Error::invalid_argument(format!("parameter 'ENTITY_KEY_SERIALIZATION': {error}"))
        })?;
        let mut view = FeatureView::new(
            &self.feast_project,
            &self.feature_view,
            &self.entity,
            version,
            features,
        )
        .with_entity_type(self.entity_type()?.unwrap_or_else(|| of_ids(id_type)));
        for (feature, other) in self.other_views()? {
            view = view
                .with_feature_elsewhere(&feature, &other)
                .map_err(|error| {
                    Error::invalid_argument(format!("parameter 'OTHER_VIEWS': {error}"))
                })?;
        }
        Ok(view)
    }

    fn other_views(&self) -> Result<BTreeMap<String, String>, Error> {
        let Some(text) = &self.other_views else {
            return Ok(BTreeMap::new());
        };
        serde_json::from_str(text).map_err(|error| {
            Error::invalid_argument(format!(
                "parameter 'OTHER_VIEWS' is '{text}': {error}; accepted: a JSON object of features and views, such as \
                 {{\"top_category\": \"user_activity\"}}"
            ))
        })
    }

    /// The explicit default of each feature that has one.
    ///
    /// # Errors
    /// Returns an error if the text is not a JSON object, or if a default is given twice.
    pub fn defaults(&self) -> Result<BTreeMap<String, serde_json::Value>, Error> {
        let mut defaults: BTreeMap<String, serde_json::Value> = match &self.defaults {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Error::invalid_argument(format!(
                    "parameter 'DEFAULTS' is '{text}': {error}; accepted: a JSON object such as {{\"gender\": -1}}"
                ))
            })?,
        };
        if let Some(age) = self.default_user_age
            && defaults.insert("age".into(), age.into()).is_some()
        {
            return Err(Error::invalid_argument(
                "parameters 'DEFAULT_USER_AGE' and 'DEFAULTS' both give 'age'; accepted: one of them",
            ));
        }
        Ok(defaults)
    }

    /// The codes of the texts, by feature. They are read from the file in the version folder that `CODES` names.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn vocabularies(
        &self,
        version_dir: &Path,
    ) -> Result<BTreeMap<String, Arc<Vocabulary>>, Error> {
        match &self.codes {
            Some(file) => codes::read(&version_dir.join(file)),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Interval between two refreshes of the copy; `None` disables them.
    pub fn refresh_every(&self) -> Option<Duration> {
        (self.refresh_seconds > 0).then(|| Duration::from_secs(u64::from(self.refresh_seconds)))
    }

    /// Maximum time that the load of a cached model waits for the store.
    pub fn load_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.load_timeout_seconds))
    }
}
