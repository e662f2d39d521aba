//! How many examples per second the towers and the ranker learn from, by the size of the vocabulary.
//!
//! The models are the retail pipeline's (nine categorical features, six continuous ones, two pretrained vectors of 64), the
//! data is drawn. Rates are of training steps alone, from the first batch of an epoch to the last, without validation.
//! Beside the rate stands the processor time, which other work on the machine does not change.
//!
//! ```text
//! cargo run --release -p saker-train --example rates -- 6000 300000
//! ```

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use saker_pipeline::training::{Ranker as RankerSizes, Towers as TowerSizes, Training};
use saker_train::candidates::Candidates;
use saker_train::data::{Categorical, Continuous, Dataset, Interactions, Pretrained, Split, Table};
use saker_train::learning::Session;
use saker_train::progress::{Progress, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

const ITEMS: usize = 2_465;
const EVENTS: usize = 300_000;
const SECONDS: f64 = 5.0;

fn main() {
    let vocabularies: Vec<usize> = std::env::args()
        .skip(1)
        .map(|users| users.parse().expect("arguments are numbers of users"))
        .collect();
    let vocabularies = if vocabularies.is_empty() {
        vec![6_000, 300_000]
    } else {
        vocabularies
    };
    println!(
        "{:>9}  {:<7} {:>10} {:>14} {:>18}",
        "users", "model", "rows/s", "CPU s/M rows", "rows/s of one core"
    );
    for users in vocabularies {
        let data = dataset(users);
        let training = Training::default();
        let sizes = TowerSizes::default();
        let mut towers = Towers::new(&sizes, &data, 1);
        let mut clock = Clock::new(training.towers.batch_size);
        let _ = towers.train(&data, &sizes, &training, &mut Session::new(&mut clock));
        clock.print(users, "towers");

        let mut ranker = Ranker::new(&RankerSizes::default(), &data, 1);
        let candidates = Candidates::new(&towers, &data, &training, 100);
        let mut clock = Clock::new(training.ranker.batch_size * (1 + training.ranker.negatives));
        let _ = ranker.train(&data, &training, &candidates, &mut Session::new(&mut clock));
        clock.print(users, "ranker");
    }
}

/// Times the batches and stops the training.
struct Clock {
    rows_per_batch: usize,
    started: Option<(Instant, Duration)>,
    batches: usize,
    wall: f64,
    processor: f64,
}

impl Clock {
    fn new(rows_per_batch: usize) -> Self {
        Self {
            rows_per_batch,
            started: None,
            batches: 0,
            wall: 0.0,
            processor: 0.0,
        }
    }

    fn print(&self, users: usize, model: &str) {
        let rows = (self.batches * self.rows_per_batch) as f64;
        println!(
            "{users:>9}  {model:<7} {:>10.0} {:>14.1} {:>18.0}",
            rows / self.wall,
            1e6 * self.processor / rows,
            rows / self.processor
        );
    }
}

/// Processor time of this process so far, all threads: Linux notes it in hundredths of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has /proc/self/stat");
    // The name, the second field, stands in brackets and may hold blanks; utime and stime are the 14th and 15th.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| field.parse::<u64>().expect("a number of ticks"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

impl Progress for Clock {
    fn batch(&mut self, _: Stage, _: usize, done: usize, of: usize) -> bool {
        // The first batches touch every page for the first time.
        const WARM: usize = 5;
        if self.started.is_none() {
            if done >= WARM {
                self.started = Some((Instant::now(), processor_time()));
            }
            return true;
        }
        self.batches += 1;
        if let Some((wall, processor)) = &self.started {
            self.wall = wall.elapsed().as_secs_f64();
            self.processor = (processor_time() - *processor).as_secs_f64();
        }
        self.wall < SECONDS && done < of
    }
}

fn dataset(users: usize) -> Dataset {
    let mut rng = StdRng::seed_from_u64(5);
    let mut codes = |name: &str, rows: usize, values: usize| Categorical {
        name: name.into(),
        cardinality: values + 3,
        embedding_dim: (name == "user_id" || name == "item_id").then_some(64),
        cold_start: 2,
        codes: (0..rows)
            .map(|row| {
                3 + if values == rows {
                    row as i32
                } else {
                    rng.random_range(0..values as i32)
                }
            })
            .collect::<Vec<i32>>()
            .into(),
    };
    let of_users = vec![
        codes("user_id", users, users),
        codes("age_binned", users, 6),
        codes("gender", users, 3),
        codes("top_category", users, 12),
    ];
    let of_items = vec![
        codes("item_id", ITEMS, ITEMS),
        codes("category_l1", ITEMS, 12),
        codes("category_l2", ITEMS, 60),
        codes("item_gender", ITEMS, 3),
    ];
    let of_context = vec![codes("device_type", EVENTS, 3)];
    let mut numbers = |name: &str, rows: usize| Continuous {
        name: name.into(),
        cold_start: 0.0,
        values: (0..rows)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect::<Vec<f32>>()
            .into(),
    };
    let context = [
        "hour_sine",
        "hour_cosine",
        "day_of_week_sine",
        "day_of_week_cosine",
    ];
    let users_table = Table {
        rows: users,
        categorical: of_users,
        continuous: vec![numbers("age_norm", users)],
    };
    let items_table = Table {
        rows: ITEMS,
        categorical: of_items,
        continuous: vec![numbers("price_log_norm", ITEMS)],
    };
    let context = Table {
        rows: EVENTS,
        categorical: of_context,
        continuous: context.iter().map(|name| numbers(name, EVENTS)).collect(),
    };
    let pretrained = ["item_image_embeddings", "item_description_embeddings"]
        .iter()
        .map(|name| Pretrained {
            name: (*name).into(),
            dim: 64,
            values: (0..(ITEMS + 3) * 64)
                .map(|_| rng.random_range(-0.5..0.5))
                .collect(),
        })
        .collect();
    let interactions = Interactions {
        user: (0..EVENTS)
            .map(|_| rng.random_range(0..users as u32))
            .collect(),
        // A popularity with a long tail.
        item: (0..EVENTS)
            .map(|_| (rng.random::<f32>().powi(3) * ITEMS as f32) as u32)
            .collect(),
        timestamp: (0..EVENTS as i32).collect(),
        positive: vec![true; EVENTS],
        weak: Vec::new(),
        split: vec![Split::Train; EVENTS],
    };
    Dataset {
        users: users_table,
        items: items_table,
        context,
        users_then: Table::default(),
        pretrained,
        interactions,
        user_id: "user_id".into(),
        item_id: "item_id".into(),
    }
}
