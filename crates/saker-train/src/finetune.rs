//! Selects the data of a fine-tuning: positives newer than the model's training data, and a sample of older ones.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use saker_pipeline::training::Finetune;

use crate::Error;
use crate::data::{Dataset, Split};

/// The rows of a fine-tuning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Interaction rows to learn from, new ones first.
    pub rows: Vec<u32>,
    /// Number of new ones among them.
    pub new: usize,
    /// Number of users whose new positives are held out.
    pub held_users: usize,
    /// Time of the last interaction examined, held out or not, in Unix seconds. The next fine-tuning treats later ones as new.
    pub until: i32,
}

impl Selection {
    /// Selects from the positives of the training and the validation part, and also of the test part with `all`.
    ///
    /// Positives later than `since` (Unix seconds) are new. The parts of `data` change: new positives of held-out users become the
    /// validation part. All other selected rows become part of the training part, so they count as met.
    ///
    /// # Errors
    /// Returns [`Error::NothingNew`], or [`Error::Data`] if the held-out users have all new positives.
    pub fn new(
        data: &mut Dataset,
        settings: &Finetune,
        seed: u64,
        since: i32,
        all: bool,
    ) -> Result<Self, Error> {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(3));
        let interactions = &mut data.interactions;
        let mut is_new = vec![false; data.users.rows];
        let (mut new, mut old) = (Vec::new(), Vec::new());
        let mut until = since;
        for row in 0..interactions.user.len() {
            if interactions.split[row] == Split::Test && !all {
                continue;
            }
            interactions.split[row] = Split::Train;
            until = until.max(interactions.timestamp[row]);
            if !interactions.positive[row] && !interactions.is_weak(row) {
                continue;
            }
            if interactions.timestamp[row] > since {
                is_new[interactions.user[row] as usize] = true;
                new.push(row as u32);
            } else {
                old.push(row as u32);
            }
        }
        if new.is_empty() {
            return Err(Error::NothingNew { since });
        }
        let mut users: Vec<usize> = (0..is_new.len()).filter(|&user| is_new[user]).collect();
        users.shuffle(&mut rng);
        let held = ((users.len() as f32 * settings.held_out).ceil() as usize).max(1);
        let mut is_held = vec![false; is_new.len()];
        users
            .iter()
            .take(held)
            .for_each(|&user| is_held[user] = true);
        // All new events of a held-out user, so that the comparison is at the time of the first one.
        for row in 0..interactions.user.len() {
            let is_learnable = interactions.split[row] == Split::Train;
            let is_later = interactions.timestamp[row] > since;
            if is_learnable && is_later && is_held[interactions.user[row] as usize] {
                interactions.split[row] = Split::Validation;
            }
        }
        new.retain(|&row| interactions.split[row as usize] == Split::Train);
        if new.is_empty() {
            return Err(Error::Data(format!(
                "new interactions are of {} users, of whom {held} are held out; none are left to learn from",
                users.len()
            )));
        }
        let replayed = (new.len() as f32 * settings.replay) as usize;
        let (replayed, _) = {
            let count = replayed.min(old.len());
            old.partial_shuffle(&mut rng, count)
        };
        let mut rows = new;
        let new = rows.len();
        rows.extend_from_slice(replayed);
        Ok(Self {
            rows,
            new,
            held_users: held,
            until,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Interactions, Table};

    /// Ten users; user u meets item u at the seconds 0 to 9. Second 8 is the validation part, second 9 the test part.
    fn data() -> Dataset {
        let mut interactions = Interactions::default();
        for user in 0..10 {
            for second in 0..10 {
                interactions.user.push(user);
                interactions.item.push(user);
                interactions.timestamp.push(second);
                interactions.positive.push(second != 7);
                interactions.split.push(match second {
                    9 => Split::Test,
                    8 => Split::Validation,
                    _ => Split::Train,
                });
            }
        }
        Dataset {
            users: Table {
                rows: 10,
                ..Table::default()
            },
            interactions,
            ..Dataset::default()
        }
    }

    fn select(since: i32, all: bool) -> (Result<Selection, Error>, Dataset) {
        let mut data = data();
        let settings = Finetune {
            replay: 0.5,
            held_out: 0.2,
            ..Finetune::default()
        };
        let selection = Selection::new(&mut data, &settings, 1, since, all);
        (selection, data)
    }

    #[test]
    fn what_is_new_is_learned_with_a_replay_and_held_out_users_apart() {
        let (selection, data) = select(5, false);
        let selection = selection.unwrap();
        // Seconds 6 and 8 of eight users (7 is not a positive), and half as many older ones.
        assert_eq!((selection.new, selection.rows.len()), (16, 24));
        assert_eq!((selection.held_users, selection.until), (2, 8));
        let of = |row: &u32| &data.interactions.timestamp[*row as usize];
        let (new, replayed) = selection.rows.split_at(selection.new);
        assert!(new.iter().map(of).all(|&time| time > 5));
        assert!(replayed.iter().map(of).all(|&time| time <= 5));
        let count = |split| {
            data.interactions
                .split
                .iter()
                .filter(|of| **of == split)
                .count()
        };
        assert_eq!(count(Split::Validation), 2 * 3);
        assert_eq!(count(Split::Test), 10);
    }

    #[test]
    fn the_test_part_is_learned_on_demand_only() {
        let (selection, data) = select(8, true);
        assert_eq!(selection.unwrap().until, 9);
        assert!(!data.interactions.split.contains(&Split::Test));
        assert!(matches!(
            select(8, false).0,
            Err(Error::NothingNew { since: 8 })
        ));
    }
}
