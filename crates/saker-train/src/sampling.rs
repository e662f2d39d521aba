//! Selects the rows of a training, their order and weight, and the masked features.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use saker_pipeline::training::{Finetune, RankerSchedule, Schedule, Training};

use crate::Error;
use crate::data::{ByUser, Categorical, Dataset, OUT_OF_VOCABULARY, Split};
use crate::layers::BatchCodes;
use crate::parameter::Step;

/// Step sizes of the optimizer in step `number` (from 1) of a schedule, for the layers and for the embeddings.
pub(crate) fn steps(rates: &Rates, number: i32) -> (Step, Step) {
    let warm = match rates.warmup_steps {
        0 => 1.0,
        warmup => (number as f32 / warmup as f32).min(1.0),
    };
    let step = |rate: f32, decay| Step {
        number: number + rates.steps_before,
        rate: warm * rate,
        decay,
    };
    (
        step(rates.dense, rates.layer_weight_decay),
        step(rates.embedding, rates.weight_decay),
    )
}

/// The settings that the schedules of both models share.
#[derive(Clone, Copy)]
pub(crate) struct Rates {
    pub epochs: usize,
    pub batch_size: usize,
    pub patience: usize,
    dense: f32,
    embedding: f32,
    weight_decay: f32,
    layer_weight_decay: f32,
    warmup_steps: usize,
    /// Number of steps behind Adam's moments: 0, or enough that the moments are no longer biased towards 0.
    steps_before: i32,
    /// Whether the model is already trained; it then counts as an epoch that a later one must beat.
    pub is_trained: bool,
}

impl Rates {
    /// The remaining schedule for a model that has already been trained with this one.
    pub(crate) fn finetuned(self, by: &Finetune) -> Self {
        /// Adam's second moment decays by 0.999 per step.
        const UNBIASED: i32 = 10_000;
        Self {
            epochs: by.epochs,
            dense: self.dense * by.learning_rate,
            embedding: self.embedding * by.learning_rate,
            steps_before: UNBIASED,
            is_trained: true,
            ..self
        }
    }
}

impl From<&Schedule> for Rates {
    fn from(schedule: &Schedule) -> Self {
        Self {
            epochs: schedule.epochs,
            batch_size: schedule.batch_size,
            patience: schedule.patience,
            dense: schedule.learning_rate,
            embedding: schedule.embedding_learning_rate,
            weight_decay: schedule.weight_decay,
            layer_weight_decay: schedule.layer_weight_decay,
            warmup_steps: schedule.warmup_steps,
            steps_before: 0,
            is_trained: false,
        }
    }
}

impl From<&RankerSchedule> for Rates {
    fn from(schedule: &RankerSchedule) -> Self {
        Self {
            epochs: schedule.epochs,
            batch_size: schedule.batch_size,
            patience: schedule.patience,
            dense: schedule.learning_rate,
            embedding: schedule.embedding_learning_rate,
            weight_decay: schedule.weight_decay,
            layer_weight_decay: schedule.layer_weight_decay,
            warmup_steps: schedule.warmup_steps,
            steps_before: 0,
            is_trained: false,
        }
    }
}

/// Seconds.
const DAY: f64 = 24.0 * 60.0 * 60.0;

/// The positive training interactions and their weights.
pub(crate) struct Positives {
    rows: Vec<u32>,
    /// By interaction row; `None`: all count 1.
    weights: Option<Vec<f32>>,
}

impl Positives {
    pub(crate) fn new(data: &Dataset, training: &Training) -> Result<Self, Error> {
        let rows: Vec<u32> = (0..data.interactions.user.len() as u32)
            .filter(|&row| data.is_learned(row))
            .collect();
        if rows.len() < 2 {
            return Err(Error::Data(format!(
                "there are {} positive training interactions; training needs at least 2",
                rows.len()
            )));
        }
        let mut weights = weak_weights(data, training);
        let ones = || vec![1.0; data.interactions.user.len()];
        if let Some(recency) = training.recency {
            let weights = weights.get_or_insert_with(ones);
            for of_user in data.positives(Split::Train).iter() {
                for (place, &row) in of_user.iter().enumerate() {
                    let age = 1.0 - (place + 1) as f32 / of_user.len() as f32;
                    weights[row as usize] *= (-age / recency).exp() + training.recency_floor;
                }
            }
        }
        if let Some(days) = training.half_life_days {
            let weights = weights.get_or_insert_with(ones);
            let time = |row: u32| data.interactions.timestamp[row as usize];
            let newest = rows.iter().map(|&row| time(row)).max().unwrap_or_default();
            for &row in &rows {
                let age = f64::from(newest) - f64::from(time(row));
                weights[row as usize] *= 0.5f32.powf((age / DAY) as f32 / days);
            }
        }
        Ok(Self { rows, weights })
    }

    /// These rows with equal weights, except for weak signs.
    ///
    /// # Errors
    /// Returns [`Error::Data`] for fewer than two rows.
    pub(crate) fn of(rows: &[u32], data: &Dataset, training: &Training) -> Result<Self, Error> {
        if rows.len() < 2 {
            return Err(Error::Data(format!(
                "there are {} positives to fine-tune on; at least 2 are needed",
                rows.len()
            )));
        }
        Ok(Self {
            rows: rows.to_vec(),
            weights: weak_weights(data, training),
        })
    }

    pub(crate) fn weight(&self, row: u32) -> f32 {
        self.weights
            .as_ref()
            .map_or(1.0, |weights| weights[row as usize])
    }

    /// All rows once, shuffled, in `order`.
    pub(crate) fn shuffled(&self, order: &mut Vec<u32>, rng: &mut StdRng) {
        order.clear();
        order.extend_from_slice(&self.rows);
        order.shuffle(rng);
    }

    /// Logarithm of the probability that a random row of these has the item: `[items]`.
    pub(crate) fn item_log_probability(&self, data: &Dataset) -> Vec<f32> {
        let mut counts = vec![0usize; data.items.rows];
        for &row in &self.rows {
            counts[data.interactions.item[row as usize] as usize] += 1;
        }
        counts
            .iter()
            .map(|&count| (count.max(1) as f32 / self.rows.len() as f32).ln())
            .collect()
    }
}

/// Weight of each interaction by its kind: a weak sign has less weight than a positive. `None` without weak signs.
fn weak_weights(data: &Dataset, training: &Training) -> Option<Vec<f32>> {
    let interactions = &data.interactions;
    let weight = |row| match interactions.is_weak(row) {
        true => training.weak_weight,
        false => 1.0,
    };
    (!interactions.weak.is_empty()).then(|| (0..interactions.user.len()).map(weight).collect())
}

/// Features that are hidden in a share of the training rows.
pub(crate) struct Masks(Vec<Mask>);

/// Features that are hidden together.
struct Mask {
    rate: f32,
    /// Indices among the categorical features of the users.
    users: Vec<usize>,
    /// Indices among those of the context.
    context: Vec<usize>,
}

/// The masks that hide their features in a row, one bit each.
pub(crate) type Hidden = u32;

/// The place of the categorical column `name`.
fn place_of(columns: &[Categorical], name: &str) -> Option<usize> {
    columns.iter().position(|column| column.name == name)
}

/// The masks of a definition without `[[training.mask]]`. One hides the user features that a new user has no value of, the other
/// one `device_type`.
fn default_masks(data: &Dataset, rate: f32) -> Vec<Mask> {
    let users = &data.users.categorical;
    let unknown = (0..users.len())
        .filter(|&column| users[column].cold_start == OUT_OF_VOCABULARY)
        .collect();
    let mut masks = vec![Mask {
        rate,
        users: unknown,
        context: Vec::new(),
    }];
    let device = place_of(&data.context.categorical, "device_type");
    masks.extend(device.map(|column| Mask {
        rate,
        users: Vec::new(),
        context: vec![column],
    }));
    masks
}

impl Mask {
    fn of(features: &[String], rate: f32, data: &Dataset) -> Result<Self, Error> {
        let (users, context) = (&data.users.categorical, &data.context.categorical);
        let mut mask = Self {
            rate,
            users: Vec::new(),
            context: Vec::new(),
        };
        for name in features {
            match (place_of(users, name), place_of(context, name)) {
                (Some(column), _) => mask.users.push(column),
                (None, Some(column)) => mask.context.push(column),
                (None, None) => {
                    let columns = users.iter().chain(context);
                    let known: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
                    return Err(Error::Definition(format!(
                        "training.mask.features names {name}; accepted are the categorical user and context features: {}",
                        known.join(", ")
                    )));
                }
            }
        }
        Ok(mask)
    }
}

impl Masks {
    pub(crate) fn new(data: &Dataset, training: &Training) -> Result<Self, Error> {
        let masks = &training.mask;
        if masks.is_empty() {
            return Ok(Self(default_masks(data, training.cold_start)));
        }
        if masks.len() > Hidden::BITS as usize {
            return Err(Error::Definition(format!(
                "there are {} tables [[training.mask]]; accepted are up to {}",
                masks.len(),
                Hidden::BITS
            )));
        }
        let masks = masks
            .iter()
            .map(|mask| Mask::of(&mask.features, mask.rate, data));
        Ok(Self(masks.collect::<Result<_, _>>()?))
    }

    /// Draws the hidden features of each of `rows` rows.
    pub(crate) fn draw(&self, rows: usize, rng: &mut StdRng) -> Vec<Hidden> {
        let bits = |_| {
            let mut hidden = 0;
            for (bit, mask) in self.0.iter().enumerate() {
                hidden |= Hidden::from(rng.random::<f32>() < mask.rate) << bit;
            }
            hidden
        };
        (0..rows).map(bits).collect()
    }

    /// Whether user features are hidden in a row.
    pub(crate) fn hides_user(&self, hidden: Hidden) -> bool {
        let mut masks = self.0.iter().enumerate();
        masks.any(|(bit, mask)| hidden >> bit & 1 == 1 && !mask.users.is_empty())
    }

    /// Hides user features in the codes of a batch.
    pub(crate) fn hide_users(&self, codes: &mut BatchCodes, hidden: &[Hidden]) {
        self.hide(codes, hidden, |mask| &mask.users);
    }

    /// Hides context features in the codes of a batch.
    pub(crate) fn hide_context(&self, codes: &mut BatchCodes, hidden: &[Hidden]) {
        self.hide(codes, hidden, |mask| &mask.context);
    }

    fn hide(&self, codes: &mut BatchCodes, hidden: &[Hidden], features: fn(&Mask) -> &Vec<usize>) {
        for (row, &hidden) in hidden
            .iter()
            .enumerate()
            .filter(|(_, hidden)| **hidden != 0)
        {
            for (bit, mask) in self.0.iter().enumerate() {
                if hidden >> bit & 1 == 1 {
                    for &feature in features(mask) {
                        codes[feature][row] = OUT_OF_VOCABULARY;
                    }
                }
            }
        }
    }
}

/// The sources of sampled negatives: the user's retrieved candidates, and the whole catalogue.
pub(crate) struct Negatives<'a> {
    catalogue: Vec<u32>,
    /// For each user, the retrieved items.
    hard: &'a ByUser,
    /// For each user, the item rows that cannot be negatives, in ascending order.
    met: ByUser,
    hard_share: f32,
}

impl<'a> Negatives<'a> {
    pub(crate) fn new(data: &Dataset, hard: &'a ByUser, met: ByUser, hard_share: f32) -> Self {
        let known = data.in_vocabulary();
        let catalogue = (0..data.items.rows as u32)
            .filter(|&item| known[item as usize])
            .collect();
        Self {
            catalogue,
            hard,
            met: met.sorted(),
            hard_share,
        }
    }

    /// Draws an item that the user has not met. When the user is masked (`unknown`), it is drawn from the whole catalogue: hard negatives
    /// would teach the model that generally popular items are bad.
    pub(crate) fn draw(&self, user: u32, unknown: bool, rng: &mut StdRng) -> Option<u32> {
        let hard = match unknown {
            true => &[],
            false => self.hard.of(user as usize),
        };
        if !hard.is_empty() && rng.random::<f32>() < self.hard_share {
            // A user who has met all candidates gets other items.
            if let Some(item) = self.unmet(hard, user, rng) {
                return Some(item);
            }
        }
        self.unmet(&self.catalogue, user, rng)
    }

    fn unmet(&self, items: &[u32], user: u32, rng: &mut StdRng) -> Option<u32> {
        const TRIES: usize = 100;
        if items.is_empty() {
            return None;
        }
        let met = self.met.of(user as usize);
        (0..TRIES)
            .map(|_| items[rng.random_range(0..items.len())])
            .find(|item| met.binary_search(item).is_err())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::data::{Codes, Table};

    fn column(name: &str, cold_start: i32) -> Categorical {
        Categorical {
            name: name.into(),
            cardinality: 10,
            embedding_dim: None,
            cold_start,
            codes: Codes::with_cardinality(10),
        }
    }

    /// The contract's features: a newcomer has an age (the mean), but no id, gender or top category.
    fn data() -> Dataset {
        Dataset {
            users: Table {
                categorical: vec![
                    column("user_id", 2),
                    column("age_binned", 5),
                    column("gender", 2),
                    column("top_category", 2),
                ],
                ..Table::default()
            },
            context: Table {
                categorical: vec![column("weekday", 2), column("device_type", 2)],
                ..Table::default()
            },
            ..Dataset::default()
        }
    }

    #[test]
    fn a_cold_start_hides_user_features_together_and_the_device_apart() {
        const ROWS: usize = 40_000;
        let masks = Masks::new(&data(), &Training::default()).unwrap();
        let hidden = masks.draw(ROWS, &mut StdRng::seed_from_u64(1));
        let mut users = vec![vec![7; ROWS]; 4];
        let mut context = vec![vec![7; ROWS]; 2];
        masks.hide_users(&mut users, &hidden);
        masks.hide_context(&mut context, &hidden);
        assert!(users[1].iter().chain(&context[0]).all(|&code| code == 7));
        assert!(users[0] == users[2] && users[0] == users[3]);
        let count = |is: &dyn Fn(usize) -> bool| (0..ROWS).filter(|&row| is(row)).count();
        let (of_user, of_device) = (
            |row: usize| users[0][row] == OUT_OF_VOCABULARY,
            |row: usize| context[1][row] == OUT_OF_VOCABULARY,
        );
        // Three standard deviations of a binomial distribution.
        let near = |found: usize, share: f64| {
            let expected = ROWS as f64 * share;
            (found as f64 - expected).abs() < 3.0 * (expected * (1.0 - share)).sqrt()
        };
        assert!(near(count(&of_user), 0.05) && near(count(&of_device), 0.05));
        assert!(near(count(&|row| of_user(row) && of_device(row)), 0.0025));

        let off = Training {
            cold_start: 0.0,
            ..Training::default()
        };
        let masks = Masks::new(&data(), &off).unwrap();
        let hidden = masks.draw(1000, &mut StdRng::seed_from_u64(1));
        assert!(hidden.iter().all(|&hidden| hidden == 0));
    }

    #[test]
    fn steps_grow_over_the_warm_up() {
        let schedule = Schedule {
            learning_rate: 0.5,
            embedding_learning_rate: 2.0,
            weight_decay: 0.25,
            layer_weight_decay: 0.125,
            warmup_steps: 10,
            ..Schedule::default()
        };
        let rates = |number| {
            let (dense, embedding) = steps(&Rates::from(&schedule), number);
            assert_eq!((dense.decay, embedding.decay), (0.125, 0.25));
            (dense.rate, embedding.rate)
        };
        assert_eq!(rates(1), (0.05, 0.2));
        assert_eq!(rates(10), (0.5, 2.0));
        assert_eq!(rates(1000), (0.5, 2.0));
    }
}
