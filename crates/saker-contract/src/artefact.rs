//! What a training run makes for the steps, and the file names in a model's version folder.

/// Whose features: each group has a workflow of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// `[[user.features]]`
    User,
    /// `[[context.features]]`
    Context,
    /// `[[item.features]]`
    Item,
}

impl Group {
    /// All of them, in the order of the models' inputs.
    pub const ALL: [Self; 3] = [Self::User, Self::Context, Self::Item];

    /// `user`, `context` or `item`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Context => "context",
            Self::Item => "item",
        }
    }
}

/// An artefact that a step loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artefact {
    /// The fitted workflow of a group: [`WORKFLOW`] and, if a feature has a vocabulary, [`CATEGORIES`].
    Workflow(Group),
    /// The vocabulary of the item ids alone, in [`CATEGORIES`].
    ItemVocabulary,
    /// The query tower, ONNX.
    QueryTower,
    /// The ranker, ONNX.
    Ranker,
    /// The ranker of the fused ensemble: [`HOISTED`].
    HoistedRanker,
    /// The FAISS index of the items.
    Index,
    /// A `.npy` file per embedding table.
    Embeddings,
    /// The codes of a group's texts, if a column has texts.
    Codes(Group),
    /// The raw ids of the known items, one per line.
    Catalogue,
}

/// The fitted workflow, as `saker-workflow` writes it.
pub const WORKFLOW: &str = "workflow.json";
/// The folder with the vocabularies of a workflow.
pub const CATEGORIES: &str = "categories";
/// The ONNX model of a step that runs one.
pub const MODEL: &str = "model.onnx";
/// The ONNX model of the query tower, where it is not the step's only one.
pub const QUERY_TOWER: &str = "query_tower.onnx";
/// The FAISS index.
pub const INDEX: &str = "index.faiss";
/// The codes of texts.
pub const CODES: &str = "codes.json";
/// The known items.
pub const CATALOGUE: &str = "catalogue.txt";
/// The ONNX model of the hoisted ranker.
pub const HOISTED_MODEL: &str = "ranker.onnx";
/// The tables of the hoisted ranker, a row per item. [`HOISTED_MODEL`] refers to the file.
pub const HOISTED_TABLES: &str = "items.bin";
/// The raw id of each row, INT64 `[items]`.
pub const HOISTED_IDS: &str = "items.npy";
/// All files of the hoisted ranker.
pub const HOISTED: [&str; 3] = [HOISTED_MODEL, HOISTED_TABLES, HOISTED_IDS];

/// The file of a column's vocabulary in [`CATEGORIES`].
#[must_use]
pub fn vocabulary(column: &str) -> String {
    format!("unique.{column}.parquet")
}

/// The column of a vocabulary's file; `None` if the name is not that of one.
#[must_use]
pub fn vocabulary_column(file: &str) -> Option<&str> {
    file.strip_prefix("unique.")?.strip_suffix(".parquet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_is_named_after_its_column() {
        assert_eq!(vocabulary_column(&vocabulary("item_id")), Some("item_id"));
        assert_eq!(vocabulary_column("cat_stats.item_id.parquet"), None);
    }
}
