//! The tables `[towers]`, `[ranker]` and `[training]`: how large the models are and how they learn.
//!
//! Every key has a default, so a definition may leave the tables out. The defaults are the sizes of
//! the contract; learning rates and the like are good starting points for a small catalogue.

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
    /// Embedding width of a categorical feature that names none itself.
    pub embedding_dim: usize,
    /// Whether both towers scale their output to unit length, so that the inner product is a cosine.
    pub normalize: bool,
    /// The logits of the softmax are divided by this number while training.
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
    /// Width of every embedding; the dot products need one width for all.
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

/// `[training]`: what both models share, with `[training.towers]` and `[training.ranker]` below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Seed of every random choice: the same seed and data give the same model.
    pub seed: u64,
    /// Weight of a positive by its place in its user's history: `exp(-(1 - place) / recency)`,
    /// where place runs from 0 (oldest) to 1 (newest). Absent: all weigh the same.
    pub recency: Option<f32>,
    /// Added to the weight above, so that old interactions are not forgotten entirely.
    pub recency_floor: f32,
    /// Days before the newest positive at which a positive weighs half as much as it, at which a quarter, and so on: demand
    /// drifts. Absent: all weigh the same.
    pub half_life_days: Option<f32>,
    /// Weight of an event from `data.interactions.weak_from` on that is not a positive.
    pub weak_weight: f32,
    /// Features hidden in a share of the training rows, so that the models learn what to do
    /// without them (cold start). Empty: the default of the contract, see [`Mask`].
    pub mask: Vec<Mask>,
    /// Share of rows with one of those two masks instead of [`Training::mask`]. 0 disables masking.
    pub cold_start: f32,
    /// Users whose held-out interactions are looked at after every epoch, evenly spread over all of them. 0: all.
    pub validation_users: usize,
    /// How the towers learn.
    pub towers: Schedule,
    /// How the ranker learns.
    pub ranker: RankerSchedule,
    /// How both take in what is new.
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
/// Without any such table, a share of the rows ([`Training::cold_start`]) loses every categorical user
/// feature that a newcomer has no value of (whose default in the store is encoded as out-of-vocabulary: the contract's
/// `user_id`, `gender` and `top_category`), and, drawn apart, as many lose `device_type`.
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
    /// Share of the numbers of the embeddings that are set to 0 while training, the others being scaled up for them
    /// (Srivastava et al. 2014).
    pub dropout: f32,
    /// A factorisation of the training interactions to start from. Only where each tower is one layer, as wide as the
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
    /// Weight of an item that the user has met; an unmet item has weight 1.
    pub confidence: f32,
    /// Times that users and items are solved for in turn.
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
    /// The order of the first ten, for a pipeline that serves what is retrieved.
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
    /// Interactions per step; each brings its negatives along.
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
    /// Negatives sampled per positive, for data that holds positives only.
    pub negatives: usize,
    /// Whether the ranker's embeddings of the user's and the item's id start as the towers' vectors. Only where the
    /// widths are equal.
    pub warm_start: bool,
    /// Share of those negatives drawn from what retrieval returns for the user; the rest is
    /// uniform over the catalogue.
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

/// `[training.finetune]`: how the query tower and the ranker take in interactions that are newer than what they have
/// learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finetune {
    /// Most passes over the new interactions and the replayed ones.
    pub epochs: usize,
    /// Factor of the step sizes of [`Training::towers`] and [`Training::ranker`].
    pub learning_rate: f32,
    /// Older positives that are learned once more, for each new one, so that they are not forgotten.
    pub replay: f32,
    /// Share of the users with new interactions whose new ones are not learned from: on them an epoch must be better
    /// than the model was before, or it is not kept.
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
        check(
            self.temperature.is_finite() && self.temperature > 0.0,
            "towers.temperature",
            self.temperature,
            "accepted: a number above 0",
        )
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
        const SHARE: &str = "accepted: 0 to 1";
        const RATE: &str = "accepted: a number of 0 or more";
        if let Some(recency) = self.recency {
            check(
                recency.is_finite() && recency > 0.0,
                "training.recency",
                recency,
                "accepted: a number above 0",
            )?;
        }
        if let Some(days) = self.half_life_days {
            check(
                days.is_finite() && days > 0.0,
                "training.half_life_days",
                days,
                "accepted: a number above 0",
            )?;
        }
        let positive = |rate: f32| rate.is_finite() && rate >= 0.0;
        check(
            positive(self.recency_floor),
            "training.recency_floor",
            self.recency_floor,
            RATE,
        )?;
        check(
            positive(self.weak_weight),
            "training.weak_weight",
            self.weak_weight,
            RATE,
        )?;
        check(
            (0.0..=1.0).contains(&self.cold_start),
            "training.cold_start",
            self.cold_start,
            SHARE,
        )?;
        for mask in &self.mask {
            check(
                (0.0..=1.0).contains(&mask.rate),
                "training.mask.rate",
                mask.rate,
                SHARE,
            )?;
            check(
                !mask.features.is_empty(),
                "training.mask.features",
                &mask.features,
                "accepted: one or more names of categorical user or context features",
            )?;
        }
        let ranker = &self.ranker;
        for (key, batch) in [
            ("training.towers.batch_size", self.towers.batch_size),
            ("training.ranker.batch_size", ranker.batch_size),
        ] {
            check(batch >= 2, key, batch, "accepted: 2 or more")?;
        }
        for (key, rate) in [
            ("training.towers.learning_rate", self.towers.learning_rate),
            (
                "training.towers.embedding_learning_rate",
                self.towers.embedding_learning_rate,
            ),
            ("training.towers.weight_decay", self.towers.weight_decay),
            (
                "training.towers.layer_weight_decay",
                self.towers.layer_weight_decay,
            ),
            ("training.ranker.learning_rate", ranker.learning_rate),
            (
                "training.ranker.embedding_learning_rate",
                ranker.embedding_learning_rate,
            ),
            ("training.ranker.weight_decay", ranker.weight_decay),
            (
                "training.ranker.layer_weight_decay",
                ranker.layer_weight_decay,
            ),
        ] {
            check(positive(rate), key, rate, RATE)?;
        }
        if let Some(factorization) = &self.towers.factorization {
            check(
                positive(factorization.regularization) && factorization.regularization > 0.0,
                "training.towers.factorization.regularization",
                factorization.regularization,
                "accepted: a number above 0",
            )?;
            check(
                factorization.confidence.is_finite() && factorization.confidence >= 1.0,
                "training.towers.factorization.confidence",
                factorization.confidence,
                "accepted: a number of 1 or more",
            )?;
        }
        let finetune = &self.finetune;
        for (key, value) in [
            ("training.finetune.learning_rate", finetune.learning_rate),
            ("training.finetune.replay", finetune.replay),
        ] {
            check(positive(value), key, value, RATE)?;
        }
        check(
            finetune.epochs > 0,
            "training.finetune.epochs",
            finetune.epochs,
            "accepted: 1 or more",
        )?;
        check(
            finetune.held_out > 0.0 && finetune.held_out < 1.0,
            "training.finetune.held_out",
            finetune.held_out,
            "accepted: more than 0, less than 1",
        )?;
        check(
            (0.0..1.0).contains(&self.towers.dropout),
            "training.towers.dropout",
            self.towers.dropout,
            "accepted: 0 to less than 1",
        )?;
        check(
            (0.0..=1.0).contains(&ranker.hard_negatives),
            "training.ranker.hard_negatives",
            ranker.hard_negatives,
            SHARE,
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
