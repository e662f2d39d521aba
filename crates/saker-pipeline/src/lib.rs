//! The pipeline definition: one TOML file that `saker prepare`, `train`, `assemble` and the serving programs read.
//!
//! [`Pipeline::load`] reads a file, refuses unknown keys and checks the values. An error names the key, the value and the accepted values.
//! Every key is documented on its field and in `docs/pipeline.md`.

#![warn(clippy::indexing_slicing)]

mod codes;
mod data;
mod error;
mod features;
mod serving;
pub mod training;
mod validate;

use std::path::{Path, PathBuf};

use saker_workflow::Definition;
use serde::{Deserialize, Serialize};

pub use codes::{Codes, TextCodes, TextColumn};
pub use data::{Data, Encoding, Format, Interactions, Parts, Split, SplitBy, Table, Unit};
pub use error::Error;
pub use features::{
    Column, ColumnType, Context, Default, Derive, Embedding, EmbeddingSource, Entity, Feature,
    FeatureKind, ImagePooling, Missing, Names,
};
pub use serving::{Bloom, EntityType, LookupMode, Metric, Ranking, Retrieval, Serving, Store};

pub use saker_contract::Group;

/// A whole pipeline: its data, features, training and serving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// `[pipeline]`: name and description.
    pub pipeline: About,
    /// `[data]`: the tables of users, items and interactions. A definition without it can be assembled and served, but not
    /// prepared.
    pub data: Option<Data>,
    /// `[split]`: how interactions are divided into training, validation and test rows.
    #[serde(default)]
    pub split: Split,
    /// `[user]`: the user's id, stored columns and features.
    pub user: Entity,
    /// `[context]`: the inputs of a request besides the user id, and their features.
    pub context: Context,
    /// `[item]`: the item's id, stored columns, features and embeddings.
    pub item: Entity,
    /// `[towers]`: the two-tower retrieval model.
    #[serde(default)]
    pub towers: training::Towers,
    /// `[ranker]`: the DLRM ranking model.
    #[serde(default)]
    pub ranker: training::Ranker,
    /// `[training]`: how both models are trained.
    #[serde(default)]
    pub training: training::Training,
    /// `[retrieval]`: the number of candidates, and the index that finds them.
    #[serde(default)]
    pub retrieval: Retrieval,
    /// `[ranking]`: the number of recommended items, and whether they are sampled for diversity.
    #[serde(default)]
    pub ranking: Ranking,
    /// `[store]`: Valkey or Redis: Feast's project and views, seen items, popularity.
    #[serde(default)]
    pub store: Store,
    /// `[serving]`: instances and threads of the models.
    #[serde(default)]
    pub serving: Serving,
    /// The folder the file was read from; paths in it are relative to this.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Value of `${SAKER_STATE}` in paths: the folder of the commands' state.
    #[serde(skip)]
    pub state: Option<PathBuf>,
}

/// `[pipeline]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Name of the pipeline, and of its state folder `.saker/<name>`. Letters, digits, `-` and `_`.
    pub name: String,
    /// Description in one line.
    #[serde(default)]
    pub description: String,
}

impl Pipeline {
    /// Reads and checks a definition.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not TOML, or has an unknown key or an invalid value.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut pipeline = Self::parse(&text).map_err(|error| error.in_file(path))?;
        pipeline.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(pipeline)
    }

    /// Parses and checks a definition from text. Relative paths refer to the working directory.
    ///
    /// # Errors
    /// Returns an error as [`Pipeline::load`] does.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let pipeline: Self =
            toml::from_str(text).map_err(|error| Error::Toml(error.to_string()))?;
        pipeline.validate()?;
        Ok(pipeline)
    }

    /// The workflow definition of the user, context or item features.
    pub fn workflow(&self, group: Group) -> Definition {
        Definition::new(self.features(group).iter().map(Feature::chain).collect())
    }

    /// The features of a group.
    pub fn features(&self, group: Group) -> &[Feature] {
        match group {
            Group::User => &self.user.features,
            Group::Context => &self.context.features,
            Group::Item => &self.item.features,
        }
    }

    /// Resolves a path of the definition: replaces `${NAME}` from the environment, and resolves relative paths from the definition's
    /// folder. `${SAKER_STATE}` is [`Pipeline::state`], by default `.saker` in the working directory. `${SAKER_CACHE}` defaults to
    /// `~/.cache/saker`.
    ///
    /// # Errors
    /// Returns an error if a variable is not set.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, Error> {
        let mut expanded = String::new();
        let mut rest = path;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else {
                break;
            };
            let name = &rest[start + 2..start + length];
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            let value = match (name, value) {
                ("SAKER_STATE", value) => self.state_folder(value)?,
                (_, Some(value)) => value,
                ("SAKER_CACHE", None) => {
                    format!(
                        "{}/.cache/saker",
                        std::env::var("HOME").unwrap_or_else(|_| ".".to_owned())
                    )
                }
                _ => {
                    return Err(Error::invalid(
                        "path",
                        path,
                        format!(
                            "a path whose variables are set; {name} is not set in the environment"
                        ),
                    ));
                }
            };
            expanded.push_str(&rest[..start]);
            expanded.push_str(&value);
            rest = &rest[start + length + 1..];
        }
        expanded.push_str(rest);
        Ok(self.folder.join(expanded))
    }

    /// The state folder as an absolute path: it starts at the working directory, not at the definition's folder.
    fn state_folder(&self, variable: Option<String>) -> Result<String, Error> {
        let folder = match (&self.state, variable) {
            (Some(state), _) => state.clone(),
            (None, Some(variable)) => PathBuf::from(variable),
            (None, None) => PathBuf::from(".saker"),
        };
        let absolute = std::path::absolute(&folder).map_err(|source| Error::Read {
            path: folder,
            source,
        })?;
        Ok(absolute.to_string_lossy().into_owned())
    }
}
