//! The tables `[towers]`, `[ranker]` and `[training]`: how large the models are and how they learn.
//!
//! Every key has a default, so a definition may omit the tables. The default sizes are those of the
//! contract. The default learning rates and weight decays suit a small catalogue.

use serde::{Deserialize, Serialize};

/// `[towers]`: the query tower and the candidate tower of the retrieval stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Towers {
    /// Width of each layer of both towers; the last one is the width of the vectors in the index.
    pub layers: Vec<usize>,
    /// Width to which the continuous features of a tower are projected together.
    pub continuous_projection: usize,
    /// Width to which each pretrained item vector is projected in the candidate tower.
    pub pretrained_projection: usize,
    /// Embedding width of a categorical feature whose own `embedding_dim` is absent.
    pub embedding_dim: usize,
    /// Whether both towers scale their output to unit length, so that the inner product is a cosine.
    pub normalize: bool,
    /// Divisor of the softmax's logits in training.
    pub temperature: f32,
}

impl Default for Towers {
    fn default() -> Self {
        Self {
            layers: vec![128, 64],
            continuous_projection: 8,
            pretrained_projection: 64,
            embedding_dim: 8,
            normalize: false,
            temperature: 1.0,
        }
    }
}

/// `[ranker]`: the DLRM (Naumov et al. 2019) that scores the candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ranker {
    /// Width of every embedding. The dot products need equal widths.
    pub embedding_dim: usize,
    /// Layers over the continuous features; the last one must be `embedding_dim` wide.
    pub bottom_layers: Vec<usize>,
    /// Layers over the dot products, before the single logit.
    pub top_layers: Vec<usize>,
}

impl Default for Ranker {
    fn default() -> Self {
        Self {
            embedding_dim: 64,
            bottom_layers: vec![128, 64],
            top_layers: vec![128, 64, 32],
        }
    }
}

/// `[training]`: the settings of both models, and the tables `[training.towers]` and `[training.ranker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Seed of every random choice: the same seed and data give the same model.
    pub seed: u64,
    /// Weight of a positive by its place in its user's history: `exp(-(1 - place) / recency)`,
    /// where place runs from 0 (oldest) to 1 (newest). Absent: every place has weight 1.
    pub recency: Option<f32>,
    /// Added to the weight of [`Training::recency`], so that the oldest interactions keep some weight.
    pub recency_floor: f32,
    /// Half-life of a positive's weight in days, counted back from the newest positive. It makes the models follow demand
    /// that changes over time. Absent: age does not change the weight.
    pub half_life_days: Option<f32>,
    /// Weight of a weak positive: its rating is at least `data.interactions.weak_from`, but too low for a positive.
    pub weak_weight: f32,
    /// Features hidden in a share of the training rows, so that the models learn to work
    /// without them (cold start). Empty: the default masks of the contract, see [`Mask`].
    pub mask: Vec<Mask>,
    /// Share of the training rows that each of the two default masks hides, if [`Training::mask`] is empty. 0 disables masking.
    pub cold_start: f32,
    /// Number of users whose held-out interactions are evaluated after each epoch, evenly spread over all users. 0: all.
    pub validation_users: usize,
    /// How the towers learn.
    pub towers: Schedule,
    /// How the ranker learns.
    pub ranker: RankerSchedule,
    /// How both models learn from new interactions.
    pub finetune: Finetune,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            seed: 1,
            recency: None,
            recency_floor: 0.05,
            half_life_days: None,
            weak_weight: 0.5,
            mask: Vec::new(),
            cold_start: 0.05,
            validation_users: 5000,
            towers: Schedule::default(),
            ranker: RankerSchedule::default(),
            finetune: Finetune::default(),
        }
    }
}

/// `[[training.mask]]`: features that are replaced together by out-of-vocabulary (code 2).
///
/// Without such a table, two default masks apply, each to its own random share of the rows ([`Training::cold_start`]).
/// The first one hides every categorical user feature that a new user has no value of: its default in the store is encoded
/// as out-of-vocabulary. In the contract these are `user_id`, `gender` and `top_category`. The second one hides `device_type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Names of categorical user or context features.
    pub features: Vec<String>,
    /// Share of the training rows, 0 to 1.
    #[serde(default = "Mask::default_rate")]
    pub rate: f32,
}

impl Mask {
    fn default_rate() -> f32 {
        0.05
    }
}

/// How one model learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Most passes over the training interactions.
    pub epochs: usize,
    /// Interactions per step; for the towers also the number of in-batch negatives plus one.
    pub batch_size: usize,
    /// Step size of Adam for the layers.
    pub learning_rate: f32,
    /// Step size of Adam for the embeddings.
    pub embedding_learning_rate: f32,
    /// Decoupled weight decay of the embedding rows that a batch touches.
    pub weight_decay: f32,
    /// Decoupled weight decay of the layers.
    pub layer_weight_decay: f32,
    /// Steps over which the step size grows from zero.
    pub warmup_steps: usize,
    /// Epochs without a better validation metric after which training stops. 0: never.
    pub patience: usize,
    /// Share of the embeddings' values that are set to 0 in training. The other values are scaled up to keep the expected
    /// sum (Srivastava et al. 2014).
    pub dropout: f32,
    /// A factorisation of the training interactions that initialises the towers. It needs towers of one layer, as wide as the
    /// embeddings of the user's and the item's id.
    pub factorization: Option<Factorization>,
    /// The metric that decides which epoch is kept.
    pub keep: Keep,
}

/// `training.towers.factorization`: alternating least squares for implicit feedback (Hu, Koren & Volinsky 2008).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Factorization {
    /// Weight of the squared factors.
    pub regularization: f32,
    /// Weight of an item with which the user has an interaction. Every other item has weight 1.
    pub confidence: f32,
    /// Number of rounds; each solves for the users, then for the items.
    pub iterations: usize,
}

impl Default for Factorization {
    fn default() -> Self {
        Self {
            regularization: 10.0,
            confidence: 5.0,
            iterations: 15,
        }
    }
}

/// The validation metric that decides which epoch of the towers is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Recall among the ranker's candidates.
    #[serde(rename = "recall@100")]
    Recall100,
    /// NDCG of the first ten, for a pipeline that serves the retrieved items without a ranker.
    #[serde(rename = "ndcg@10")]
    Ndcg10,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 1024,
            learning_rate: 1e-3,
            embedding_learning_rate: 1e-2,
            weight_decay: 1e-2,
            layer_weight_decay: 0.0,
            dropout: 0.0,
            factorization: None,
            keep: Keep::Recall100,
            warmup_steps: 50,
            patience: 3,
        }
    }
}

/// `[training.ranker]`: how the ranker learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankerSchedule {
    /// Most passes over the training interactions.
    pub epochs: usize,
    /// Positives per step. The negatives of each are added to the batch.
    pub batch_size: usize,
    /// Step size of Adam for the layers.
    pub learning_rate: f32,
    /// Step size of Adam for the embeddings.
    pub embedding_learning_rate: f32,
    /// Decoupled weight decay of the embedding rows that a batch touches.
    pub weight_decay: f32,
    /// Decoupled weight decay of the layers.
    pub layer_weight_decay: f32,
    /// Steps over which the step size grows from zero.
    pub warmup_steps: usize,
    /// Epochs without a better validation metric after which training stops. 0: never.
    pub patience: usize,
    /// Negatives sampled per positive, for data without negatives.
    pub negatives: usize,
    /// Whether the towers' vectors initialise the ranker's embeddings of the user's and the item's id, where the widths
    /// are equal.
    pub warm_start: bool,
    /// Share of the sampled negatives that are drawn from the user's retrieved candidates. The others
    /// are drawn uniformly from the catalogue.
    pub hard_negatives: f32,
}

impl Default for RankerSchedule {
    fn default() -> Self {
        Self {
            epochs: 6,
            batch_size: 512,
            learning_rate: 5e-4,
            embedding_learning_rate: 1e-3,
            weight_decay: 5e-2,
            layer_weight_decay: 0.0,
            warmup_steps: 50,
            patience: 2,
            negatives: 5,
            warm_start: true,
            hard_negatives: 0.5,
        }
    }
}

/// `[training.finetune]`: how the query tower and the ranker learn from interactions that are newer than those of their
/// training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finetune {
    /// Most passes over the new interactions and the replayed ones.
    pub epochs: usize,
    /// Factor on the step sizes of [`Training::towers`] and [`Training::ranker`].
    pub learning_rate: f32,
    /// Number of older positives per new one that are trained on again, so that the models do not forget them.
    pub replay: f32,
    /// Share of the users with new interactions that is held out for validation. An epoch is kept only if it is better on
    /// them than the model was before.
    pub held_out: f32,
}

impl Default for Finetune {
    fn default() -> Self {
        Self {
            epochs: 3,
            learning_rate: 0.2,
            replay: 1.0,
            held_out: 0.1,
        }
    }
}

/// A value in one of these tables that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}; {expected}")]
pub struct InvalidValue {
    /// Dotted path of the key, such as `training.towers.epochs`.
    pub key: String,
    /// The value in the definition.
    pub value: String,
    /// The accepted values.
    pub expected: &'static str,
}

fn check(
    valid: bool,
    key: &str,
    value: impl std::fmt::Debug,
    expected: &'static str,
) -> Result<(), InvalidValue> {
    if valid {
        return Ok(());
    }
    Err(InvalidValue {
        key: key.into(),
        value: format!("{value:?}"),
        expected,
    })
}

fn sizes(key: &str, layers: &[usize]) -> Result<(), InvalidValue> {
    check(
        !layers.is_empty() && layers.iter().all(|&width| width > 0),
        key,
        layers,
        "accepted: one or more positive widths, such as [128, 64]",
    )
}

fn above_zero(key: &str, value: f32) -> Result<(), InvalidValue> {
    let valid = value.is_finite() && value > 0.0;
    check(valid, key, value, "accepted: a number above 0")
}

fn zero_or_more(key: &str, value: f32) -> Result<(), InvalidValue> {
    let valid = value.is_finite() && value >= 0.0;
    check(valid, key, value, "accepted: a number of 0 or more")
}

fn share(key: &str, value: f32) -> Result<(), InvalidValue> {
    let valid = (0.0..=1.0).contains(&value);
    check(valid, key, value, "accepted: 0 to 1")
}

impl Towers {
    /// Checks every value. Errors name the key, its value and what is accepted.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        const WIDTH: &str = "accepted: a positive width";
        sizes("towers.layers", &self.layers)?;
        for (key, width) in [
            ("towers.continuous_projection", self.continuous_projection),
            ("towers.pretrained_projection", self.pretrained_projection),
            ("towers.embedding_dim", self.embedding_dim),
        ] {
            check(width > 0, key, width, WIDTH)?;
        }
        above_zero("towers.temperature", self.temperature)
    }
}

impl Ranker {
    /// Checks every value. Errors name the key, its value and what is accepted.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        check(
            self.embedding_dim > 0,
            "ranker.embedding_dim",
            self.embedding_dim,
            "accepted: a positive width",
        )?;
        sizes("ranker.bottom_layers", &self.bottom_layers)?;
        sizes("ranker.top_layers", &self.top_layers)?;
        check(
            self.bottom_layers.last() == Some(&self.embedding_dim),
            "ranker.bottom_layers",
            &self.bottom_layers,
            "the last width must equal ranker.embedding_dim",
        )
    }
}

impl Training {
    /// Checks every value. Errors name the key, its value and what is accepted.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.validate_weights()?;
        share("training.cold_start", self.cold_start)?;
        for mask in &self.mask {
            mask.validate()?;
        }
        self.towers.validate()?;
        self.ranker.validate()?;
        self.finetune.validate()
    }

    /// Checks what the weight of an interaction is computed from.
    fn validate_weights(&self) -> Result<(), InvalidValue> {
        if let Some(recency) = self.recency {
            above_zero("training.recency", recency)?;
        }
        if let Some(days) = self.half_life_days {
            above_zero("training.half_life_days", days)?;
        }
        zero_or_more("training.recency_floor", self.recency_floor)?;
        zero_or_more("training.weak_weight", self.weak_weight)
    }
}

impl Mask {
    fn validate(&self) -> Result<(), InvalidValue> {
        share("training.mask.rate", self.rate)?;
        check(
            !self.features.is_empty(),
            "training.mask.features",
            &self.features,
            "accepted: one or more names of categorical user or context features",
        )
    }
}

/// Checks the settings of Adam that both models have. `table` is the dotted path of the model's table.
fn validate_steps(
    table: &str,
    batch_size: usize,
    rates: [(&str, f32); 4],
) -> Result<(), InvalidValue> {
    let key = format!("{table}.batch_size");
    check(batch_size >= 2, &key, batch_size, "accepted: 2 or more")?;
    for (name, rate) in rates {
        zero_or_more(&format!("{table}.{name}"), rate)?;
    }
    Ok(())
}

impl Schedule {
    fn validate(&self) -> Result<(), InvalidValue> {
        let rates = [
            ("learning_rate", self.learning_rate),
            ("embedding_learning_rate", self.embedding_learning_rate),
            ("weight_decay", self.weight_decay),
            ("layer_weight_decay", self.layer_weight_decay),
        ];
        validate_steps("training.towers", self.batch_size, rates)?;
        if let Some(factorization) = &self.factorization {
            factorization.validate()?;
        }
        check(
            (0.0..1.0).contains(&self.dropout),
            "training.towers.dropout",
            self.dropout,
            "accepted: 0 to less than 1",
        )
    }
}

impl Factorization {
    fn validate(&self) -> Result<(), InvalidValue> {
        const TABLE: &str = "training.towers.factorization";
        above_zero(&format!("{TABLE}.regularization"), self.regularization)?;
        check(
            self.confidence.is_finite() && self.confidence >= 1.0,
            &format!("{TABLE}.confidence"),
            self.confidence,
            "accepted: a number of 1 or more",
        )
    }
}

impl RankerSchedule {
    fn validate(&self) -> Result<(), InvalidValue> {
        let rates = [
            ("learning_rate", self.learning_rate),
            ("embedding_learning_rate", self.embedding_learning_rate),
            ("weight_decay", self.weight_decay),
            ("layer_weight_decay", self.layer_weight_decay),
        ];
        validate_steps("training.ranker", self.batch_size, rates)?;
        share("training.ranker.hard_negatives", self.hard_negatives)
    }
}

impl Finetune {
    fn validate(&self) -> Result<(), InvalidValue> {
        zero_or_more("training.finetune.learning_rate", self.learning_rate)?;
        zero_or_more("training.finetune.replay", self.replay)?;
        check(
            self.epochs > 0,
            "training.finetune.epochs",
            self.epochs,
            "accepted: 1 or more",
        )?;
        check(
            self.held_out > 0.0 && self.held_out < 1.0,
            "training.finetune.held_out",
            self.held_out,
            "accepted: more than 0, less than 1",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Towers::default().validate().unwrap();
        Ranker::default().validate().unwrap();
        Training::default().validate().unwrap();
    }

    #[test]
    fn a_bad_value_names_its_key() {
        let ranker = Ranker {
            embedding_dim: 32,
            ..Ranker::default()
        };
        let message = ranker.validate().unwrap_err().to_string();
        assert_eq!(
            message,
            "ranker.bottom_layers is [128, 64]; the last width must equal ranker.embedding_dim"
        );
    }

    #[test]
    fn tables_parse_from_toml() {
        let training: Training = toml::from_str(
            "recency = 0.1\n[[mask]]\nfeatures = [\"user_id\"]\n[towers]\nepochs = 3\n",
        )
        .unwrap();
        assert_eq!(training.towers.epochs, 3);
        assert_eq!(training.mask[0].rate, 0.05);
        assert!(toml::from_str::<Training>("epoch = 3").is_err());
    }
}
