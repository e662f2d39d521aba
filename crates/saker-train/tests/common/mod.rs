//! A small world in which users of two kinds like items of two kinds.
#![allow(dead_code, reason = "each test program uses a part")]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use saker_pipeline::training::{Mask, Ranker, RankerSchedule, Schedule, Towers, Training};
use saker_train::data::{
    Categorical, Continuous, Dataset, Interactions, Numbers, Pretrained, Split, Table,
};

pub(crate) const USERS: usize = 120;
pub(crate) const ITEMS: usize = 60;

fn categorical(name: &str, cardinality: usize, codes: Vec<i32>) -> Categorical {
    Categorical {
        name: name.into(),
        cardinality,
        embedding_dim: None,
        cold_start: 2,
        codes: codes.into(),
    }
}

fn numbers(rows: usize, rng: &mut StdRng) -> Numbers {
    let values: Vec<f32> = (0..rows).map(|_| rng.random_range(-1.0..1.0)).collect();
    values.into()
}

/// Users and items of even row like each other, and so do those of odd row; the gender tells the kind.
pub(crate) fn dataset() -> Dataset {
    let mut rng = StdRng::seed_from_u64(7);
    let users = Table {
        rows: USERS,
        categorical: vec![
            categorical(
                "user_id",
                USERS + 3,
                (0..USERS as i32).map(|row| row + 3).collect(),
            ),
            categorical(
                "gender",
                5,
                (0..USERS as i32).map(|row| row % 2 + 3).collect(),
            ),
        ],
        continuous: vec![Continuous {
            name: "age_norm".into(),
            cold_start: 0.0,
            values: numbers(USERS, &mut rng),
        }],
    };
    // The last item is out-of-vocabulary.
    let code = |row: usize| if row + 1 == ITEMS { 2 } else { row as i32 + 3 };
    let items = Table {
        rows: ITEMS,
        categorical: vec![
            categorical("item_id", ITEMS + 2, (0..ITEMS).map(code).collect()),
            categorical(
                "category_l1",
                5,
                (0..ITEMS as i32).map(|row| row % 2 + 3).collect(),
            ),
        ],
        continuous: vec![Continuous {
            name: "price_log_norm".into(),
            cold_start: 0.0,
            values: numbers(ITEMS, &mut rng),
        }],
    };
    let mut interactions = Interactions::default();
    for user in 0..USERS {
        for event in 0..20 {
            let kind = if rng.random::<f32>() < 0.9 {
                user % 2
            } else {
                1 - user % 2
            };
            let item = 2 * rng.random_range(0..ITEMS / 2) + kind;
            interactions.user.push(user as u32);
            interactions
                .item
                .push(if item + 1 == ITEMS { 0 } else { item as u32 });
            interactions.timestamp.push(event * 3600);
            interactions.positive.push(true);
            interactions.split.push(match event {
                18.. => Split::Test,
                16.. => Split::Validation,
                _ => Split::Train,
            });
        }
    }
    let rows = interactions.user.len();
    let context = Table {
        rows,
        categorical: vec![categorical(
            "device_type",
            6,
            (0..rows).map(|_| rng.random_range(3..6)).collect(),
        )],
        continuous: vec![Continuous {
            name: "hour_sine".into(),
            cold_start: 0.0,
            values: numbers(rows, &mut rng),
        }],
    };
    let pretrained = vec![Pretrained {
        name: "item_description_embeddings".into(),
        dim: 4,
        values: (0..(ITEMS + 2) * 4)
            .map(|_| rng.random_range(-0.5..0.5))
            .collect(),
    }];
    Dataset {
        users,
        items,
        context,
        users_then: Table::default(),
        pretrained,
        interactions,
        user_id: "user_id".into(),
        item_id: "item_id".into(),
    }
}

pub(crate) fn sizes() -> (Towers, Ranker) {
    let towers = Towers {
        layers: vec![16, 8],
        pretrained_projection: 8,
        ..Towers::default()
    };
    let ranker = Ranker {
        embedding_dim: 8,
        bottom_layers: vec![16, 8],
        top_layers: vec![16, 8],
    };
    (towers, ranker)
}

pub(crate) fn training() -> Training {
    let schedule = Schedule {
        epochs: 6,
        batch_size: 128,
        warmup_steps: 5,
        ..Schedule::default()
    };
    let ranker = RankerSchedule {
        epochs: 4,
        batch_size: 128,
        learning_rate: 5e-3,
        warmup_steps: 5,
        ..RankerSchedule::default()
    };
    let mask = vec![Mask {
        features: vec!["user_id".into()],
        rate: 0.1,
    }];
    Training {
        recency: Some(0.5),
        mask,
        towers: schedule,
        ranker,
        ..Training::default()
    }
}
