//! The paths of a pipeline's files. All outputs of a pipeline are under `.saker/<name>/`.
//!
//! ```text
//! .saker/<name>/
//!   data/                        `saker prepare`: the source's rows, cleaned, ids and codes as numbers
//!     users.parquet              one row per user: the user id, then every `[[user.columns]]`
//!     items.parquet              one row per item: the item id, then every `[[item.columns]]` (text columns too)
//!     interactions.parquet       user_id, item_id (Int32), timestamp (Int32, Unix seconds), rating (Float32; 1 where
//!                                the source has none), every `[[context.columns]]`, every user column that changes with
//!                                time (`derive` with `hours`) as it stood before the event, split (Utf8: train |
//!                                validation | test); sorted by user, then time
//!     names.json                 {"<column>": ["<text of code 0>", "<text of code 1>", …]} for columns with `codes`
//!     defaults.json              {"user": {"<column>": number}, "item": {…}}: the features of a cold start, with means computed
//!   features/                    `saker prepare`: the same rows through the fitted workflows
//!     user/ item/ context/       one fitted workflow each: workflow.json and categories/unique.<column>.parquet
//!     users.parquet              row i is row i of data/users.parquet: one column per `[[user.features]]`
//!     items.parquet              row i is row i of data/items.parquet: one column per `[[item.features]]`; an item
//!                                without a training interaction is out-of-vocabulary (code 2)
//!     interactions.parquet       row i is row i of data/interactions.parquet: user_row and item_row (Int32, rows of
//!                                the two tables above), one column per `[[context.features]]`, rating and label
//!                                (Float32: 1 for a positive, 0.5 for a weak positive, 0), timestamp (Int32), split (Utf8);
//!                                and one column per `[[user.features]]` of a user column that changes with time. It replaces
//!                                the user's latest value, which is in users.parquet, for this interaction
//!     schema.json                properties of every feature, for training, see [`Schema`]
//!     tables/<name>.npy          one per `[[item.embeddings]]`: f32 [cardinality of the item id, dim], row = encoded id
//!   content/<name>.parquet       vectors of texts and pictures by the hash of model and content, before their reduction to
//!                                a table; `saker prepare` does not encode them again
//!   models/                      `saker train`
//!     query_tower.onnx           user features -> output_1 f32 [rows, dim]
//!     candidate_tower.onnx       item features (and embeddings) -> output_1 f32 [rows, dim]
//!     dlrm_ranking.onnx          user, context and item features -> click/binary_classification_task f32 [rows, 1]
//!     item_vectors.npy           the candidate tower's output for row i of features/items.parquet: f32 [items, dim]
//!     fused/                     `saker assemble`: the ranker hoisted over the catalogue: model.onnx, its tables items.bin, and
//!                                items.npy, the raw id of each row
//!     checkpoint/*.safetensors   parameters of the towers and the ranker, with the optimiser's state
//!     finetuned.json             the runs of `saker finetune` since the training; absent before
//!     metrics.json               the metrics of `saker evaluate`
//!     report.html                the metrics as a self-contained page
//!     run/config.json            the inputs of the latest training: sizes, schedules, rows, device
//!     run/epochs.jsonl           a line per epoch: loss, validation metrics, seconds, rows per second
//!     run/<model>.safetensors    during training: the model's state, from which a stopped run continues; and
//!     run/<model>-best.safetensors   its best epoch so far
//!   index/index.faiss            `saker index`: the vectors of all items in the vocabulary, ids = raw item ids
//!   repository/                  `saker assemble`: Triton's model repository, of several releases (docs/releases.md)
//!   offline/                     `saker materialize`: the history of features by view and day, see saker-offline
//!   seeds/<seed>/                `saker evaluate --seeds`: models of other seeds
//!   valkey/  logs/  run/         `saker serve`: the store's files, logs, process ids and ports
//!   stamps/<step>.json           the inputs of each step's last run, so that an unchanged step is skipped
//! ```
//!
//! Feature columns are Int32 (categorical codes) or Float32 (continuous). Their names are those of the pipeline definition, and of the
//! tensors in serving.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A release's catalogue: the files of `data/` that the gateway and the updater read.
pub const CATALOGUE: [&str; 4] = [
    "users.parquet",
    "items.parquet",
    "names.json",
    "defaults.json",
];

/// The state folder of a pipeline, and every path in it.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of pipeline `name` in the state folder (default: `.saker`).
    pub fn new(state: &Path, name: &str) -> Self {
        Self {
            root: state.join(name),
        }
    }

    /// `seeds/<seed>`: models of another seed, which are only evaluated.
    pub fn of_seed(&self, seed: u64) -> Self {
        Self {
            root: self.root.join("seeds").join(seed.to_string()),
        }
    }

    /// `.saker/<name>`
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `data/<table>.parquet`; tables are `users`, `items` and `interactions`.
    pub fn data(&self, table: &str) -> PathBuf {
        self.root.join("data").join(format!("{table}.parquet"))
    }

    /// `data/<file>`: one of [`CATALOGUE`].
    pub fn catalogue_file(&self, file: &str) -> PathBuf {
        self.root.join("data").join(file)
    }

    /// `data/names.json`: the texts of codes, by column.
    pub fn names(&self) -> PathBuf {
        self.root.join("data/names.json")
    }

    /// `data/defaults.json`: the features of a user or item that is missing from the store.
    pub fn defaults(&self) -> PathBuf {
        self.root.join("data/defaults.json")
    }

    /// `features/<group>`: the fitted workflow of `user`, `item` or `context`.
    pub fn workflow(&self, group: &str) -> PathBuf {
        self.root.join("features").join(group)
    }

    /// `features/<table>.parquet`: the encoded rows of `users`, `items` or `interactions`.
    pub fn features(&self, table: &str) -> PathBuf {
        self.root.join("features").join(format!("{table}.parquet"))
    }

    /// `offline/`: the offline store, unless the definition names another.
    pub fn offline(&self) -> PathBuf {
        self.root.join("offline")
    }

    /// `features/schema.json`, see [`Schema`].
    pub fn schema(&self) -> PathBuf {
        self.root.join("features/schema.json")
    }

    /// `features/schema.pending.json`: the schema until the embedding tables are written.
    pub fn schema_without_tables(&self) -> PathBuf {
        self.root.join("features/schema.pending.json")
    }

    /// `features/tables/<name>.npy`: an embedding table, rows = encoded item ids.
    pub fn table(&self, name: &str) -> PathBuf {
        self.root
            .join("features/tables")
            .join(format!("{name}.npy"))
    }

    /// `content/<name>.parquet`: encoded texts or pictures of an embedding table, by the hash of their content.
    pub fn content(&self, name: &str) -> PathBuf {
        self.root.join("content").join(format!("{name}.parquet"))
    }

    /// `models/<name>.onnx`
    pub fn model(&self, name: &str) -> PathBuf {
        self.root.join("models").join(format!("{name}.onnx"))
    }

    /// `models/codes_<group>.json`: the codes of the texts of `user` or `item`, for the lookups.
    pub fn codes(&self, group: &str) -> PathBuf {
        self.root.join("models").join(format!("codes_{group}.json"))
    }

    /// `models/fused/`: the hoisted ranker.
    pub fn fused(&self) -> PathBuf {
        self.root.join("models/fused")
    }

    /// `models/catalogue.txt`
    pub fn catalogue(&self) -> PathBuf {
        self.root.join("models/catalogue.txt")
    }

    /// `models/item_vectors.npy`
    pub fn item_vectors(&self) -> PathBuf {
        self.root.join("models/item_vectors.npy")
    }

    /// `models/checkpoint/<model>.safetensors`: all that training changes, for evaluation and fine-tuning.
    pub fn checkpoint(&self, model: &str) -> PathBuf {
        self.root
            .join("models/checkpoint")
            .join(format!("{model}.safetensors"))
    }

    /// `models/finetuned.json`: what the models have learned since they were trained.
    pub fn finetuned(&self) -> PathBuf {
        self.root.join("models/finetuned.json")
    }

    /// `models/metrics.json`
    pub fn metrics(&self) -> PathBuf {
        self.root.join("models/metrics.json")
    }

    /// `models/report.html`: the metrics as a page.
    pub fn report(&self) -> PathBuf {
        self.root.join("models/report.html")
    }

    /// `models/run`: the log of the latest training.
    pub fn training_run(&self) -> PathBuf {
        self.root.join("models/run")
    }

    /// `index/index.faiss`
    pub fn index(&self) -> PathBuf {
        self.root.join("index/index.faiss")
    }

    /// `repository`: Triton's model repository.
    pub fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    /// `stamps/<step>.json`: the inputs of a step's last run.
    pub fn stamp(&self, step: &str) -> PathBuf {
        self.root.join("stamps").join(format!("{step}.json"))
    }

    /// `logs/<process>.log`
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// `simulation.html`, the results of `saker simulate`; `simulation.json` is beside it.
    pub fn simulation(&self) -> PathBuf {
        self.root.join("simulation.html")
    }

    /// `logs/`
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// `run/`: process ids and addresses of the processes of `saker serve`.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// `valkey/`: the store's files.
    pub fn valkey(&self) -> PathBuf {
        self.root.join("valkey")
    }
}

/// `features/schema.json`: the encoded features in the order of the definition, which is the order of the model's inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Name of the user id column and tensor.
    pub user_id: String,
    /// Name of the item id column and tensor.
    pub item_id: String,
    /// Features of the user, inputs of the query tower and the ranker.
    pub user: Vec<FeatureSchema>,
    /// Features of the request, inputs of the ranker.
    pub context: Vec<FeatureSchema>,
    /// Features of the item, inputs of the candidate tower and the ranker.
    pub item: Vec<FeatureSchema>,
    /// Embedding tables of the item: name -> width; inputs f32 [rows, width] of the candidate tower and the ranker.
    pub embeddings: BTreeMap<String, usize>,
}

/// One encoded feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureSchema {
    /// Name of the column and of the tensor.
    pub name: String,
    /// Int32 codes of a category (`Some`: number of codes, padding, null and out-of-vocabulary included), or a Float32
    /// number (`None`).
    pub cardinality: Option<usize>,
    /// Width of the feature's embedding in the towers and the ranker, if the definition sets one.
    pub embedding_dim: Option<usize>,
    /// The code or number that the workflow computes from the defaults of a user who is missing from the store (id -1, mean age …).
    /// Training replaces the values of a share of its rows by these, so that the towers learn the cold start.
    pub cold_start: f32,
}
