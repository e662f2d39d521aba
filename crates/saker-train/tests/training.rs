//! Both models learn a small world, the same one every time, and survive a checkpoint.

mod common;

use common::{USERS, dataset, sizes, training};
use saker_train::Error;
use saker_train::checkpoint::Checkpoint;
use saker_train::data::{Dataset, Split};
use saker_train::evaluate::evaluate;
use saker_train::progress::{Progress, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

fn train(data: &Dataset) -> (Towers, Ranker) {
    let (towers_sizes, ranker_sizes) = sizes();
    let training = training();
    let mut towers = Towers::new(&towers_sizes, data, training.seed);
    let history = towers
        .train(data, &towers_sizes, &training, &mut ())
        .unwrap();
    assert!(history[history.len() - 1].loss < history[0].loss);
    let mut ranker = Ranker::new(&ranker_sizes, data, training.seed);
    let history = ranker
        .train(data, &training, &towers.retrieve(data, 30), &mut ())
        .unwrap();
    assert!(history[history.len() - 1].loss < history[0].loss);
    (towers, ranker)
}

#[test]
fn both_models_find_the_right_kind_of_item() {
    let data = dataset();
    data.validate().unwrap();
    let (towers, ranker) = train(&data);
    let retrieved = towers.retrieve(&data, 10);
    let right: usize = retrieved
        .iter()
        .enumerate()
        .map(|(user, items)| {
            items
                .iter()
                .filter(|&&item| item as usize % 2 == user % 2)
                .count()
        })
        .sum();
    assert!(
        right > USERS * 9,
        "{right} of {} retrieved items are of the user's kind",
        USERS * 10
    );
    assert!(
        retrieved
            .iter()
            .flatten()
            .all(|&item| item as usize != common::ITEMS - 1),
        "out of vocabulary"
    );

    let evaluation = evaluate(&data, &towers, &ranker, 30, Split::Test);
    let ndcg = |method: &str| {
        evaluation
            .methods
            .iter()
            .find(|of| of.method == method)
            .unwrap()
            .list
            .ndcg_10
    };
    assert!(ndcg("retrieval") > 1.2 * ndcg("popularity"));
    assert!(ndcg("ranked list") > 1.2 * ndcg("popularity"));
}

#[test]
fn the_same_seed_gives_the_same_model() {
    let data = dataset();
    let ((towers, ranker), (towers_again, ranker_again)) = (train(&data), train(&data));
    assert_eq!(towers.item_vectors(&data), towers_again.item_vectors(&data));
    let requests: Vec<_> = (0..50).map(|i| (i, i * 20, i)).collect();
    assert_eq!(
        ranker.scores(&data, &requests),
        ranker_again.scores(&data, &requests)
    );
}

#[test]
fn a_checkpoint_holds_the_model() {
    let data = dataset();
    let (mut towers, mut ranker) = train(&data);
    let folder = tempfile::tempdir().unwrap();
    let (of_towers, of_ranker) = (
        folder.path().join("towers.safetensors"),
        folder.path().join("ranker.safetensors"),
    );
    towers.save(&of_towers).unwrap();
    ranker.save(&of_ranker).unwrap();
    let (towers_sizes, ranker_sizes) = sizes();
    let mut loaded = Towers::new(&towers_sizes, &data, 99);
    loaded.load(&of_towers).unwrap();
    assert_eq!(loaded.user_vectors(&data), towers.user_vectors(&data));
    let mut loaded = Ranker::new(&ranker_sizes, &data, 99);
    loaded.load(&of_ranker).unwrap();
    let requests = [(0, 0, 0), (1, 20, 5)];
    assert_eq!(
        loaded.scores(&data, &requests),
        ranker.scores(&data, &requests)
    );

    let error = loaded.load(&of_towers).unwrap_err().to_string();
    assert!(error.contains("towers"), "{error}");
    let other = saker_pipeline::training::Ranker {
        top_layers: vec![4],
        ..ranker_sizes
    };
    let error = Ranker::new(&other, &data, 1)
        .load(&of_ranker)
        .unwrap_err()
        .to_string();
    assert!(error.contains("top.0.weight"), "{error}");
}

#[test]
fn progress_is_told_and_can_stop() {
    struct StopAfter(usize);
    impl Progress for StopAfter {
        fn batch(&mut self, stage: Stage, epoch: usize, done: usize, of: usize) -> bool {
            assert_eq!((stage, epoch), (Stage::Towers, 1));
            assert!(done <= of);
            self.0 -= 1;
            self.0 > 0
        }
    }
    let data = dataset();
    let (sizes, _) = sizes();
    let mut towers = Towers::new(&sizes, &data, 1);
    let error = towers
        .train(&data, &sizes, &training(), &mut StopAfter(3))
        .unwrap_err();
    assert!(matches!(error, Error::Stopped));
}

#[test]
fn what_does_not_fit_is_named() {
    let mut data = dataset();
    data.items.categorical[1].codes[4] = 5;
    assert_eq!(
        data.validate().unwrap_err().to_string(),
        "column category_l1 of the items has code 5 in row 4; codes are 0 to 4"
    );
    let data = dataset();
    let (sizes, _) = sizes();
    let mut training = training();
    training.mask[0].features = vec!["hobby".into()];
    let error = Towers::new(&sizes, &data, 1)
        .train(&data, &sizes, &training, &mut ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("hobby") && error.contains("user_id, gender, device_type"),
        "{error}"
    );
    training.mask.clear();
    let mut data = dataset();
    data.interactions.label.fill(0.0);
    let error = Towers::new(&sizes, &data, 1)
        .train(&data, &sizes, &training, &mut ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("0 positive training interactions"),
        "{error}"
    );
}
