//! The parameters of `bloom_filter` in config.pbtxt, except `REDIS_URL` and `MODE`, which have another meaning in the fused ensemble. Its
//! README describes each.

use std::path::PathBuf;
use std::time::Duration;

use saker_contract::{Database, tensor};
use saker_store::address::in_environment;
use saker_store::feast::{EntityKeyVersion, FeatureView, defaults};
use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Mode, Prefixes, Reader};
use saker_store::{Address, Settings};
use serde::Deserialize;
use triton_backend::{DataType, Error};

use crate::store::{entity_type, of_ids, wrong_store};

/// The parameters. The README of `bloom_filter` describes each.
#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub struct Parameters {
    #[serde(default)]
    key_prefix: Option<String>,
    #[serde(default)]
    plain_key_prefix: Option<String>,
    #[serde(default = "capacity")]
    capacity: u32,
    #[serde(default = "error_rate")]
    error_rate: f64,
    #[serde(default = "deadline_ms")]
    deadline_ms: u32,
    #[serde(default)]
    tls_ca: Option<PathBuf>,
    #[serde(default = "ranking_topk")]
    pub(super) ranking_topk: usize,
    #[serde(default)]
    popularity_url: Option<String>,
    #[serde(default = "popularity_refresh_seconds")]
    popularity_refresh_seconds: u32,
    #[serde(default = "popularity_topk")]
    pub(super) popularity_topk: usize,
    #[serde(default)]
    pub(super) catalogue: Option<PathBuf>,
    #[serde(default)]
    category_url: Option<String>,
    #[serde(default = "category_feature")]
    category_feature: String,
    #[serde(default = "defaults::project")]
    feast_project: String,
    #[serde(default = "defaults::user_view")]
    feature_view: String,
    #[serde(default = "defaults::user_entity")]
    entity: String,
    #[serde(default = "defaults::entity_key_serialization")]
    entity_key_serialization: String,
    #[serde(default)]
    entity_type: Option<String>,
}

/// Default address of the store of the seen items.
pub fn redis_url() -> String {
    in_environment(Database::Activity)
}

fn capacity() -> u32 {
    1000
}

fn error_rate() -> f64 {
    0.01
}

fn deadline_ms() -> u32 {
    20
}

fn ranking_topk() -> usize {
    10
}

fn popularity_refresh_seconds() -> u32 {
    60
}

fn popularity_topk() -> usize {
    200
}

fn category_feature() -> String {
    tensor::TOP_CATEGORY.into()
}

/// Parses the parameter `name` that says how the seen items are stored. The default is the server's own filters if it has them.
///
/// # Errors
/// Returns an error for an unknown mode.
pub fn mode(name: &str, said: Option<&str>) -> Result<Mode, Error> {
    said.map_or(Ok(Mode::Auto), |mode| {
        mode.parse()
            .map_err(|error| Error::invalid_argument(format!("parameter '{name}': {error}")))
    })
}

impl Parameters {
    fn parse(&self, name: &str, url: &str) -> Result<Settings, Error> {
        let settings = Address::read(url)
            .and_then(|address| {
                let authority = self.tls_ca.as_deref().filter(|_| address.is_secure());
                address.settings(authority)
            })
            .map_err(|error| wrong_store(name, self.tls_ca.is_some(), &error))?;
        Ok(settings.with_deadline(self.deadline()))
    }

    /// Maximum time that a batch waits for the stores in total.
    pub(super) fn deadline(&self) -> Duration {
        Duration::from_millis(u64::from(self.deadline_ms))
    }

    /// The store of the seen items, whose URL is the value of parameter `name`.
    ///
    /// # Errors
    /// Returns an error if the address or the deadline is invalid.
    pub fn settings(&self, name: &str, url: &str) -> Result<Settings, Error> {
        if self.deadline_ms == 0 {
            return Err(Error::invalid_argument(
                "parameter 'DEADLINE_MS' is 0; accepted: 1 and up",
            ));
        }
        self.parse(name, url)
    }

    /// Checks the sizes. The writers use them; a reader finds them in each bitmap. The check here ensures that writers read valid values
    /// from this config.
    pub(super) fn check_sizes(&self) -> Result<(), Error> {
        Geometry::new(self.capacity, self.error_rate)
            .map(|_| ())
            .map_err(|error| {
                Error::invalid_argument(format!("parameters 'CAPACITY' and 'ERROR_RATE': {error}"))
            })
    }

    pub(super) fn reader(&self) -> Reader {
        let mut prefixes = Prefixes::default();
        if let Some(prefix) = &self.key_prefix {
            prefixes.server.clone_from(prefix);
        }
        if let Some(prefix) = &self.plain_key_prefix {
            prefixes.plain.clone_from(prefix);
        }
        Reader { prefixes }
    }

    /// The store of the popularity sets. Default: [`Database::Popularity`] of the seen items' server; in a cluster, the cluster itself. `None` disables
    /// topping up.
    pub(super) fn popularity(&self, seen: &Settings) -> Result<Option<Settings>, Error> {
        if self.ranking_topk == 0 || self.popularity_topk == 0 {
            return Ok(None);
        }
        match self.popularity_url.as_deref() {
            Some("") => Ok(None),
            Some(url) => self.parse("POPULARITY_URL", url).map(Some),
            None if seen.is_cluster() => Ok(Some(seen.clone())),
            None => seen
                .clone()
                .with_database(Database::Popularity)
                .map(Some)
                .map_err(|error| {
                    Error::invalid_argument(format!("parameter 'REDIS_URL': {error}"))
                }),
        }
    }

    pub(super) fn popularity_every(&self) -> Result<Duration, Error> {
        match self.popularity_refresh_seconds {
            0 => Err(Error::invalid_argument(
                "parameter 'POPULARITY_REFRESH_SECONDS' is 0; accepted: 1 and up",
            )),
            seconds => Ok(Duration::from_secs(u64::from(seconds))),
        }
    }

    /// The online store with the users' top category, if a parameter names one. Without `ENTITY_TYPE`, users have the type of the ids in
    /// the requests.
    pub(super) fn category(
        &self,
        user_type: DataType,
    ) -> Result<Option<(Settings, FeatureView)>, Error> {
        let Some(url) = &self.category_url else {
            return Ok(None);
        };
        let version: EntityKeyVersion = self.entity_key_serialization.parse().map_err(|error| {
            Error::invalid_argument(format!("parameter 'ENTITY_KEY_SERIALIZATION': {error}"))
        })?;
        let features = [self.category_feature.as_str()];
        let view = FeatureView::new(
            &self.feast_project,
            &self.feature_view,
            &self.entity,
            version,
            features,
        );
        let given = entity_type(self.entity_type.as_deref())?;
        let view = view.with_entity_type(given.unwrap_or_else(|| of_ids(user_type)));
        Ok(Some((self.parse("CATEGORY_URL", url)?, view)))
    }
}
