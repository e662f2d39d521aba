//! `[user]`, `[context]` and `[item]`: columns, and the features that the workflows compute from them.

use std::collections::BTreeMap;

use saker_workflow::operators::Rename;
use saker_workflow::{Chain, Operator, OutputKind};
use serde::{Deserialize, Serialize};

use crate::Codes;

/// `[user]` or `[item]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// Name of the id: the column in the source, Feast's join key, and the INT32 tensor.
    pub id: String,
    /// Text column with the entity's display name, such as a title. `saker recommend` prints it.
    pub title: Option<String>,
    /// `[[user.columns]]`: the stored columns of the entity, without the id. The lookup returns them in this order.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// `[[user.features]]`: the features that the workflow computes from the id and the columns, in the order of the models' inputs.
    pub features: Vec<Feature>,
    /// `[[item.embeddings]]`: pretrained vectors, looked up by encoded id. Items only.
    #[serde(default)]
    pub embeddings: Vec<Embedding>,
}

impl Entity {
    /// The columns that are stored and served: all except texts.
    pub fn stored(&self) -> impl Iterator<Item = &Column> {
        self.columns
            .iter()
            .filter(|column| column.kind != ColumnType::Text)
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// `[context]`: the inputs of a request besides the user id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `[[context.columns]]`: the request's optional inputs. One that no feature reads is accepted and ignored.
    pub columns: Vec<Column>,
    /// `[[context.features]]`: the features that the workflow computes from them.
    pub features: Vec<Feature>,
}

/// One column of raw values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Name of the column, of the feature in Feast's view, and of the tensor.
    pub name: String,
    /// `int32`, `float32`, or `text` for a column that is only displayed or embedded. Default `int32`.
    #[serde(rename = "type", default)]
    pub kind: ColumnType,
    /// The source's column, if it has another name.
    pub source: Option<String>,
    /// Assigns codes to the texts of the source, from 0 in alphabetical order.
    pub codes: Option<Codes>,
    /// The source's text column with the display names of this column's numbers, such as the name of a category.
    pub labels: Option<String>,
    /// Texts of the source that mean "no value", in addition to the empty one.
    #[serde(default)]
    pub empty: Vec<String>,
    /// Computes the column from the training interactions instead of reading it.
    pub derive: Option<Derive>,
    /// A second feature view of the entity that has only this column, for a writer that computes only this value, such as the updater. If both
    /// views have a value, the one with the later event time is served. `[user]` and `[item]` only.
    pub view: Option<String>,
    /// The value for an absent entity or an empty cell: a number, `"mean"` (of the training rows; truncated in an int32 column), or `"now"`
    /// (server time; `[[context.columns]]` only). Default -1.
    #[serde(default)]
    pub default: Default,
}

impl Column {
    /// Whether the value changes with time. Every interaction then has its own value, in addition to the user's latest one.
    pub fn at_event(&self) -> bool {
        matches!(
            self.derive,
            Some(Derive::TopOfRecent { hours: Some(_), .. })
        )
    }

    /// The source's column.
    pub fn source(&self) -> &str {
        self.source.as_deref().unwrap_or(&self.name)
    }
}

/// Type of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// 32-bit integers: ids, codes, counts, seconds.
    #[default]
    Int32,
    /// 32-bit floats.
    Float32,
    /// Text, never served.
    Text,
}

/// A column computed from the training interactions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum Derive {
    /// The number of the entity's training interactions.
    InteractionCount,
    /// Users only: the most frequent value of an item column among the user's recent items; on a tie, the most recent of the tied values.
    /// Either `last` or `hours` defines which items are recent.
    TopOfRecent {
        /// The item column.
        column: String,
        /// Recent are this many of the user's latest training interactions. A user has one value.
        last: Option<usize>,
        /// Recent are the items of this many hours, as in serving, which recomputes the value after every event. Each interaction has the value
        /// from before it happened, and the user has the latest value. Consecutive interactions with one item have the value from before the
        /// first of them.
        hours: Option<u32>,
    },
}

/// The value for an absent entity or an empty cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Default {
    /// This number.
    Number(f64),
    /// `mean` or `now`.
    Word(String),
}

impl std::default::Default for Default {
    fn default() -> Self {
        Self::Number(-1.0)
    }
}

/// One feature: columns and the operators that are applied to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Name of the feature and of its tensor.
    pub name: String,
    /// The input columns. Default: the column with the feature's name.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The operators in the order of their application; see `docs/transforms.md`.
    #[serde(default)]
    pub operators: Vec<Operator>,
    /// Width of a categorical feature's embedding in the models. Default: `[towers] embedding_dim`.
    pub embedding_dim: Option<usize>,
}

impl Feature {
    /// The input columns.
    pub fn columns(&self) -> Vec<&str> {
        if self.columns.is_empty() {
            vec![&self.name]
        } else {
            self.columns.iter().map(String::as_str).collect()
        }
    }

    /// Whether the feature's values are codes or numbers.
    pub fn kind(&self) -> FeatureKind {
        let kinds = self.operators.iter().rev().map(Operator::kind);
        let mut kinds = kinds.filter(|kind| *kind != OutputKind::Unchanged);
        match kinds.next() {
            Some(OutputKind::Numbers) => FeatureKind::Continuous,
            _ => FeatureKind::Categorical,
        }
    }

    /// The workflow's chain: the input columns, the operators, and the feature's name as output.
    pub fn chain(&self) -> Chain {
        let columns = self.columns();
        let mut chain = match columns.as_slice() {
            // Renamed first, so that fitted numbers and vocabularies carry the feature's name.
            [column] => Chain::feature(&self.name, column, self.operators.clone()),
            several => Chain::new(several.iter().copied(), self.operators.clone()),
        };
        if let Ok([name]) = chain.output_names().as_deref()
            && *name != self.name
        {
            chain.operators.push(Rename::to(&self.name).into());
        }
        chain
    }
}

/// The type of a feature's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// Int32 codes, embedded by the models.
    Categorical,
    /// Float32 numbers.
    Continuous,
}

/// `[[item.embeddings]]`: a table of pretrained vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Name of the tensor, f32 [items, dim].
    pub name: String,
    /// Width.
    pub dim: usize,
    /// The source of the vectors.
    pub source: EmbeddingSource,
}

/// The source of an embedding table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum EmbeddingSource {
    /// Latent semantic analysis of text columns: TF-IDF, then truncated singular values.
    Text {
        /// The text columns, joined with a space.
        columns: Vec<String>,
    },
    /// Items that the same users interacted with: positive pointwise mutual information, then truncated singular values.
    Cooccurrence,
    /// Sentence-BERT: the vectors of texts, reduced by principal components.
    Sentence {
        /// The text columns, joined with a space: of `[item]`, or of the table `path`.
        columns: Vec<String>,
        /// Another table with the columns, in the format of `[data]`, one row per item.
        path: Option<String>,
        /// The item id's column in `path`. Default: the name in `[item] id`.
        id: Option<String>,
        /// Folder of a model in sentence-transformers' layout. Default: all-MiniLM-L6-v2 where
        /// `scripts/install --content` puts it.
        #[serde(default = "sentence_model")]
        model: String,
        /// The vector of an item without text.
        #[serde(default)]
        missing: Missing,
    },
    /// An image encoder, such as CLIP's: the vectors of pictures, reduced by principal components.
    Image {
        /// Path of the pictures. The item id's name in braces, `{item_id}`, is replaced by the id.
        path: String,
        /// An ONNX model with one input, `[pictures, 3, height, width]` f32. A `preprocessor_config.json` beside it defines the preprocessing;
        /// without it, pictures are preprocessed as for CLIP.
        model: String,
        /// The tensor of the model that is read: an output, or any tensor within. Default: the only output, or
        /// `image_embeds`.
        output: Option<String>,
        /// How an output of `[pictures, tokens, width]` becomes one vector per picture.
        #[serde(default)]
        pooling: ImagePooling,
        /// The vector of an item without a picture, or with a damaged one.
        #[serde(default)]
        missing: Missing,
    },
    /// A `.npy` file, f32 [items, dim], row i for row i of `[data.items]`.
    File {
        /// The file.
        path: String,
    },
}

fn sentence_model() -> String {
    "${SAKER_CACHE}/runtime/all-MiniLM-L6-v2".to_owned()
}

/// How the tokens of a picture become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagePooling {
    /// The first token: a vision transformer's class token.
    #[default]
    First,
    /// The mean of all tokens.
    Mean,
}

/// The vector of an item whose content is missing or unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// A vector of zeros, and a warning that counts such items.
    #[default]
    Zero,
    /// `saker prepare` ends with an error.
    Fail,
}

/// Names of the numbers of a column with `codes`: index = code.
pub type Names = BTreeMap<String, Vec<String>>;
