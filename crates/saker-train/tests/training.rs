//! Both models learn a small world, the same one every time, and survive a checkpoint.

mod common;

use std::time::Duration;

use common::{ITEMS, USERS, dataset, sizes, training};
use saker_pipeline::training::{Factorization, Keep};
use saker_train::Error;
use saker_train::candidates::Candidates;
use saker_train::checkpoint::Checkpoint;
use saker_train::data::{Categorical, Dataset, Split, Table};
use saker_train::encoded::{LATEST, UNKNOWN};
use saker_train::evaluate::{
    Case, Evaluation, Grouping, Held, Models, Options, Oracle, Serving, evaluate, served_metrics,
};
use saker_train::finetune::Selection;
use saker_train::learning::{Checkpoints, Session};
use saker_train::onnx;
use saker_train::progress::{Epoch, Progress, Stage};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

/// Measures the test part on so many users, 0 for all.
fn measured(data: &Dataset, models: &[Models<'_>], users: usize) -> Evaluation {
    let mut options = Options {
        split: Split::Test,
        topk: 30,
        users,
        training: &training(),
        groupings: Vec::new(),
        oracle: None,
        progress: &mut |_| {},
    };
    evaluate(data, models, &mut options).unwrap()
}

fn train(data: &Dataset) -> (Towers, Ranker) {
    let (towers_sizes, ranker_sizes) = sizes();
    let training = training();
    let mut towers = Towers::new(&towers_sizes, data, training.seed);
    let history = towers
        .train(data, &towers_sizes, &training, &mut Session::new(&mut ()))
        .unwrap();
    assert!(history[history.len() - 1].loss < history[0].loss);
    let mut ranker = Ranker::new(&ranker_sizes, data, training.seed);
    let history = ranker
        .train(
            data,
            &training,
            &Candidates::new(&towers, data, &training, 30),
            &mut Session::new(&mut ()),
        )
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

    let training = training();
    let mut options = Options {
        split: Split::Test,
        topk: 30,
        users: 0,
        training: &training,
        groupings: vec![Grouping {
            name: "kind".into(),
            value: Box::new(|row| Some((data.interactions.user[row as usize] % 2).to_string())),
        }],
        oracle: None,
        progress: &mut |_| {},
    };
    let models = [Models {
        towers: &towers,
        ranker: &ranker,
        serving: None,
    }];
    let evaluation = evaluate(&data, &models, &mut options).unwrap();
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

    // The same once more, of a part of the users.
    // Some users met nothing new in the test part.
    let held = evaluation.users;
    assert!(held > USERS / 2 && held == evaluation.users_held);
    options.users = 30;
    let sample = evaluate(&data, &models, &mut options).unwrap();
    assert_eq!((sample.users, sample.users_held), (30, held));
    let groups = &evaluation.groups["kind"];
    assert_eq!(groups.len(), 2);
    assert_eq!(groups.iter().map(|group| group.users).sum::<usize>(), held);
    let names: Vec<&str> = evaluation
        .populations
        .iter()
        .map(|population| population.name.as_str())
        .collect();
    assert!(
        names.starts_with(&["warm users", "unknown users"]),
        "{names:?}"
    );
    let classification = evaluation.classification.unwrap();
    // Half of the negatives are items of the user's own kind, which nothing tells from the positives.
    assert!(classification.auc > 0.52 && classification.auc < 0.7);
    assert!((classification.base_rate - 1.0 / 6.0).abs() < 1e-3);
    let rows: usize = classification.bins.iter().map(|bin| bin.rows).sum();
    assert_eq!(rows, classification.rows);
    let curve = &evaluation.methods[0].recall_at;
    assert!(curve.is_sorted_by(|a, b| a.1 <= b.1));
    assert_eq!(curve[8], (300, evaluation.methods[0].list.recall_300));

    // The worst first, each beside the one above it.
    let methods = &evaluation.methods;
    assert!(methods.is_sorted_by(|a, b| a.list.ndcg_10 <= b.list.ndcg_10));
    assert!(methods[0].above.is_none());
    for pair in methods.windows(2) {
        let above = pair[1].above.unwrap();
        let difference = pair[1].list.ndcg_10 - pair[0].list.ndcg_10;
        assert!((above.mean - difference).abs() < 1e-9);
        assert!(above.low <= above.mean && above.mean <= above.high);
        assert!(pair[1].ndcg_10_error > Some(0.0) && pair[1].ndcg_10_seeds.is_none());
    }
    let names: Vec<&str> = methods.iter().map(|of| of.method.as_str()).collect();
    for name in ["EASE", "iALS", "popularity, as the fallback counts it"] {
        assert!(names.contains(&name), "{names:?}");
    }
    // Strangers have no history, but a context.
    let strangers = &evaluation.populations[1].methods;
    assert!(strangers.iter().all(|of| !of.method.contains("EASE")));
    let in_context = "popularity by device, hour and weekend";
    assert!(strangers.iter().any(|of| of.method == in_context));
}

/// The models of several seeds count as one method with a mean and an error over the seeds; what is not trained has none.
#[test]
fn seeds_are_averaged_and_their_error_told() {
    let data = dataset();
    let (tower_sizes, ranker_sizes) = sizes();
    let models = [1, 2, 3].map(|seed| {
        (
            Towers::new(&tower_sizes, &data, seed),
            Ranker::new(&ranker_sizes, &data, seed),
        )
    });
    let measure = |models: &[(Towers, Ranker)]| {
        let models: Vec<Models<'_>> = models
            .iter()
            .map(|(towers, ranker)| Models {
                towers,
                ranker,
                serving: None,
            })
            .collect();
        let evaluation = measured(&data, &models, 0);
        assert_eq!(evaluation.seeds, models.len());
        evaluation.methods
    };
    let of = |methods: &[saker_train::evaluate::MethodMetrics], name: &str| {
        methods.iter().find(|of| of.method == name).unwrap().clone()
    };
    let apart: Vec<f64> = models
        .iter()
        .map(|models| {
            let methods = measure(std::slice::from_ref(models));
            of(&methods, "ranked list").list.ndcg_10
        })
        .collect();
    let together = measure(&models);
    let ranked = of(&together, "ranked list");
    let mean = apart.iter().sum::<f64>() / 3.0;
    let variance = apart.iter().map(|of| (of - mean).powi(2)).sum::<f64>() / 2.0;
    assert!((ranked.list.ndcg_10 - mean).abs() < 1e-12);
    assert!((ranked.ndcg_10_seeds.unwrap() - (variance / 3.0).sqrt()).abs() < 1e-12);
    assert!(of(&together, "popularity").ndcg_10_seeds.is_none());
}

/// A catalogue of 20,001 items, of which most were never met: what would take the square of it, or a system for each item, is left
/// out, and the counting table counts a column of few values.
#[test]
fn a_large_catalogue_is_measured_without_what_would_not_fit() {
    let mut data = dataset();
    let more = 20_001 - ITEMS;
    data.items.rows += more;
    for column in &mut data.items.categorical {
        column.codes.extend(&vec![2; more]);
    }
    for column in &mut data.items.continuous {
        column.values.extend(&vec![0.0; more]);
    }
    let id = &mut data.items.categorical[0];
    id.cardinality = 20_003;
    let codes: Vec<i32> = id.codes.iter().collect();
    id.codes = codes.into();
    data.pretrained[0].values = vec![0.25; 20_003 * 4];
    data.validate().unwrap();
    let (tower_sizes, ranker_sizes) = sizes();
    let models = [Models {
        towers: &Towers::new(&tower_sizes, &data, 1),
        ranker: &Ranker::new(&ranker_sizes, &data, 1),
        serving: None,
    }];
    let evaluation = measured(&data, &models, 20);
    let names: Vec<&str> = evaluation
        .methods
        .iter()
        .map(|of| of.method.as_str())
        .collect();
    let left_out = |name: &&str| name.contains("EASE") || name.contains("iALS");
    assert!(!names.iter().any(left_out), "{names:?}");
    assert!(names.contains(&"item-item neighbours") && names.contains(&"ranked list"));
    let tuned = evaluation.tuned;
    assert!(tuned.ease.is_none() && tuned.ease_recency.is_none() && tuned.ials.is_none());
    assert_eq!(tuned.context.column, "category_l1");
}

/// An index that finds the even item rows alone, and a filter that lets nothing through but multiples of four.
struct Odd;

impl Serving for Odd {
    fn candidates(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<u32>>, Error> {
        let found: Vec<u32> = (0..ITEMS as u32).step_by(2).take(k).collect();
        Ok(vec![found; queries.len() / 8])
    }

    fn unseen(&self, candidates: &[u32], _: &Case) -> Result<Vec<u32>, Error> {
        let through = candidates.iter().copied().filter(|item| item % 4 == 0);
        Ok(through.collect())
    }
}

#[test]
fn what_serving_finds_is_what_the_ranker_gets() {
    let data = dataset();
    let (tower_sizes, ranker_sizes) = sizes();
    let (towers, ranker) = (
        Towers::new(&tower_sizes, &data, 1),
        Ranker::new(&ranker_sizes, &data, 1),
    );
    let models = [Models {
        towers: &towers,
        ranker: &ranker,
        serving: Some(&Odd),
    }];
    let evaluation = measured(&data, &models, 0);
    let recall = |name: &str| {
        let mut methods = evaluation.methods.iter();
        methods
            .find(|of| of.method == name)
            .unwrap()
            .list
            .recall_300
    };
    // By hand: the relevant items of each request that are multiples of four.
    let held = Held::new(&data, Split::Test, 0);
    let share = |case: &Case| {
        let found = |item: &&u32| **item % 4 == 0 && case.is_unseen(**item);
        case.relevant.iter().filter(found).count() as f64 / case.relevant.len() as f64
    };
    let expected = held.cases.iter().map(share).sum::<f64>() / held.cases.len() as f64;
    assert!((recall("retrieval, as served") - expected).abs() < 1e-12);
    assert!((recall("ranked list") - expected).abs() < 1e-12);
    assert!(recall("retrieval") > expected);
}

#[test]
fn an_oracle_is_measured_beside_the_models() {
    /// Likes what was held out.
    struct Knows(Vec<Vec<f32>>);
    impl Oracle for Knows {
        fn scores(&self, user: u32, _: u32) -> Vec<f32> {
            match user {
                UNKNOWN => vec![0.0; ITEMS],
                user => self.0[user as usize].clone(),
            }
        }
    }
    let data = dataset();
    let (tower_sizes, ranker_sizes) = sizes();
    let held = data.history(Split::Test);
    let likes = held.iter().map(|items| {
        let mut likes = vec![0.0; ITEMS];
        items.iter().for_each(|&item| likes[item as usize] = 1.0);
        likes
    });
    let oracle = Knows(likes.collect());
    let training = training();
    let evaluation = evaluate(
        &data,
        &[Models {
            towers: &Towers::new(&tower_sizes, &data, 1),
            ranker: &Ranker::new(&ranker_sizes, &data, 1),
            serving: None,
        }],
        &mut Options {
            split: Split::Test,
            topk: 30,
            users: 0,
            training: &training,
            groupings: Vec::new(),
            oracle: Some(&oracle),
            progress: &mut |_| {},
        },
    )
    .unwrap();
    let best = evaluation.methods.last().unwrap();
    assert_eq!(best.method, "best possible");
    assert!((best.list.ndcg_10 - 1.0).abs() < 1e-12 && (best.list.recall_10 - 1.0).abs() < 1e-12);
    assert!(evaluation.methods[0].list.ndcg_10 < 0.9);
}

/// Ends the process at a batch of a stage, as a kill would.
struct Kill {
    stage: Stage,
    after: usize,
}

impl Progress for Kill {
    fn batch(&mut self, stage: Stage, epoch: usize, done: usize, of: usize) -> bool {
        // The unwinding leaves files as they are and nothing in memory.
        if stage == self.stage && (epoch - 1) * of + done == self.after {
            std::panic::resume_unwind(Box::new("killed"));
        }
        true
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_model() {
    let data = dataset();
    let (tower_sizes, ranker_sizes) = sizes();
    let training = training();
    let candidates = Candidates::new(&Towers::new(&tower_sizes, &data, 1), &data, &training, 10);
    let run = |folder: &std::path::Path, fingerprint: &str, progress: &mut dyn Progress| {
        let mut session = Session {
            progress,
            checkpoints: Some(Checkpoints {
                folder: folder.to_owned(),
                every: Duration::ZERO,
                fingerprint: fingerprint.to_owned(),
            }),
        };
        let mut towers = Towers::new(&tower_sizes, &data, training.seed);
        let of_towers = towers
            .train(&data, &tower_sizes, &training, &mut session)
            .unwrap();
        let mut ranker = Ranker::new(&ranker_sizes, &data, training.seed);
        let of_ranker = ranker
            .train(&data, &training, &candidates, &mut session)
            .unwrap();
        let results = |history: Vec<Epoch>| {
            let result = |epoch: Epoch| (epoch.loss, epoch.score, epoch.best);
            history.into_iter().map(result).collect::<Vec<_>>()
        };
        (
            onnx::tower(&towers.query, "query_tower"),
            onnx::tower(&towers.candidate, "candidate_tower"),
            onnx::ranker(&ranker),
            results(of_towers),
            results(of_ranker),
        )
    };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let whole = run(folders[0].path(), "a", &mut ());
    for (stage, after) in [
        (Stage::Towers, 1),
        (Stage::Towers, 40),
        (Stage::Ranker, 13),
        (Stage::Ranker, 30),
    ] {
        let mut kill = Kill { stage, after };
        let run = std::panic::AssertUnwindSafe(|| run(folders[1].path(), "a", &mut kill));
        assert!(
            std::panic::catch_unwind(run).is_err(),
            "{stage:?} ended before {after}"
        );
    }
    assert_eq!(run(folders[1].path(), "a", &mut ()), whole);

    // A run on other data begins anew: it can be killed at its first batch.
    let mut first = Kill {
        stage: Stage::Towers,
        after: 1,
    };
    let run = std::panic::AssertUnwindSafe(|| run(folders[1].path(), "b", &mut first));
    assert!(std::panic::catch_unwind(run).is_err());
}

#[test]
fn what_was_true_at_the_moment_goes_before_what_is_true_now() {
    let mut data = dataset();
    let (tower_sizes, ranker_sizes) = sizes();
    let towers = Towers::new(&tower_sizes, &data, 1);
    let ranker = Ranker::new(&ranker_sizes, &data, 1);
    // User 0 is of gender 3 today and was of gender 4 at his first interaction, like user 1.
    let rows = data.interactions.user.len();
    let mut genders: Vec<i32> = (0..rows).map(|_| 3).collect();
    genders[0] = 4;
    data.users_then = Table {
        rows,
        categorical: vec![Categorical {
            codes: genders.into(),
            ..data.users.categorical[1].clone()
        }],
        continuous: Vec::new(),
    };
    data.validate().unwrap();
    let vectors = |at| towers.vectors_of(&data, &[at]);
    assert_eq!(vectors((0, LATEST)), vectors((0, 1)));
    assert_ne!(vectors((0, LATEST)), vectors((0, 0)));
    let scores = ranker.scores(&data, &[(0, 0, 5), (0, 1, 5)]);
    assert_ne!(scores[0], scores[1]);

    data.users_then.categorical[0].name = "hobby".into();
    let error = data.validate().unwrap_err().to_string();
    assert!(error.contains("hobby"), "{error}");
}

#[test]
fn an_unknown_user_has_the_features_of_a_cold_start() {
    let mut data = dataset();
    let (tower_sizes, _) = sizes();
    let towers = Towers::new(&tower_sizes, &data, 1);
    let unknown = towers.vectors_of(&data, &[(UNKNOWN, 0)]);
    // A user whose features are these defaults gets the same vector.
    for column in &mut data.users.categorical {
        column.codes = vec![column.cold_start; USERS].into();
    }
    for column in &mut data.users.continuous {
        column.values = vec![column.cold_start; USERS].into();
    }
    assert_eq!(unknown, towers.vectors_of(&data, &[(5, LATEST)]));
}

#[test]
fn the_same_seed_gives_the_same_model() {
    let data = dataset();
    let bytes = |(towers, ranker): (Towers, Ranker)| {
        let query = onnx::tower(&towers.query, "query_tower");
        let candidate = onnx::tower(&towers.candidate, "candidate_tower");
        (query, candidate, onnx::ranker(&ranker))
    };
    let first = bytes(train(&data));
    assert_eq!(first, bytes(train(&data)));
    // Nor does the number of threads show.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    assert_eq!(first, one.unwrap().install(|| bytes(train(&data))));
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
        .train(
            &data,
            &sizes,
            &training(),
            &mut Session::new(&mut StopAfter(3)),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Stopped));
}

#[test]
fn what_does_not_fit_is_named() {
    let mut data = dataset();
    let mut codes: Vec<i32> = data.items.categorical[1].codes.iter().collect();
    codes[4] = 5;
    data.items.categorical[1].codes = codes.into();
    assert_eq!(
        data.validate().unwrap_err().to_string(),
        "column category_l1 of the items has code 5 in row 4; codes are 0 to 4"
    );
    let data = dataset();
    let (sizes, _) = sizes();
    let mut training = training();
    training.mask[0].features = vec!["hobby".into()];
    let error = Towers::new(&sizes, &data, 1)
        .train(&data, &sizes, &training, &mut Session::new(&mut ()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("hobby") && error.contains("user_id, gender, device_type"),
        "{error}"
    );
    training.mask.clear();
    let mut data = dataset();
    data.interactions.positive.fill(false);
    let error = Towers::new(&sizes, &data, 1)
        .train(&data, &sizes, &training, &mut Session::new(&mut ()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("0 positive training interactions"),
        "{error}"
    );
}

#[test]
fn towers_of_one_layer_start_from_a_factorization() {
    let data = dataset();
    let (mut sizes, _) = sizes();
    let mut training = training();
    training.towers.epochs = 0;
    training.towers.factorization = Some(Factorization {
        regularization: 1.0,
        ..Factorization::default()
    });
    let mut towers = Towers::new(&sizes, &data, 1);
    let mut silent = ();
    let session = &mut Session::new(&mut silent);
    let error = towers.train(&data, &sizes, &training, session).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("towers.layers has 2"), "{error}");

    sizes.layers = vec![8];
    let mut towers = Towers::new(&sizes, &data, 1);
    towers.train(&data, &sizes, &training, session).unwrap();
    // Nothing was learned but the factorisation, which knows the kinds.
    let retrieved = towers.retrieve(&data, 10);
    let is_right = |(user, items): (usize, &[u32])| {
        let right = items.iter().filter(|&&item| item as usize % 2 == user % 2);
        right.count()
    };
    let right: usize = retrieved.iter().enumerate().map(is_right).sum();
    assert!(right > USERS * 9, "{right} of {}", USERS * 10);

    // It is a start: training goes on from there, and must beat it.
    training.towers.epochs = 4;
    training.towers.keep = Keep::Ndcg10;
    let history = towers.train(&data, &sizes, &training, session).unwrap();
    assert!(history.len() >= 3);
}

#[test]
fn weak_signs_are_learned_from_and_not_measured_on() {
    let mut data = dataset();
    // Nothing but views is known of what users of the second half like.
    let interactions = &mut data.interactions;
    let is_late = |row: &usize| interactions.user[*row] as usize >= USERS / 2;
    let rows: Vec<usize> = (0..interactions.user.len()).filter(is_late).collect();
    interactions.weak = vec![false; interactions.user.len()];
    for row in rows {
        if interactions.split[row] == Split::Train {
            interactions.positive[row] = false;
            interactions.weak[row] = true;
        }
    }
    // Their gender does not tell their kind either.
    data.users.categorical[1].codes = vec![3; USERS].into();
    data.validate().unwrap();
    let right = |weight: f32| {
        let (sizes, _) = sizes();
        let mut training = training();
        training.weak_weight = weight;
        training.towers.epochs = 12;
        let mut towers = Towers::new(&sizes, &data, training.seed);
        let mut silent = ();
        let session = &mut Session::new(&mut silent);
        towers.train(&data, &sizes, &training, session).unwrap();
        let retrieved = towers.retrieve(&data, 10);
        let late = retrieved.iter().enumerate().skip(USERS / 2);
        let is_right = |user: usize, item: u32| item as usize % 2 == user % 2;
        let right =
            late.map(|(user, items)| items.iter().filter(|&&item| is_right(user, item)).count());
        right.sum::<usize>()
    };
    let (with, without) = (right(1.0), right(0.0));
    assert!(
        with > without + USERS,
        "{with} and {without} of {}",
        USERS * 5
    );
    assert!(data.history(Split::Train).of(USERS - 1).is_empty());
}

#[test]
fn a_fine_tuning_follows_a_change_of_taste_and_leaves_the_candidate_tower() {
    const LEARNED: i32 = 15 * 3600;
    let mut data = dataset();
    // From then on everybody likes what the others liked before.
    let late = |row: &usize| data.interactions.timestamp[*row] > LEARNED;
    let late: Vec<usize> = (0..data.interactions.user.len()).filter(late).collect();
    for row in late {
        let item = &mut data.interactions.item[row];
        *item = (*item ^ 1).min(ITEMS as u32 - 2);
    }
    let (mut towers, mut ranker) = train(&data);
    let (tower_sizes, _) = sizes();
    let held = |data: &Dataset| Held::new(data, Split::Test, 0);
    let (retrieved, ranked) = served_metrics(&towers, &ranker, &data, &held(&data), 30);

    let training = training();
    let settings = saker_pipeline::training::Finetune {
        epochs: 40,
        learning_rate: 2.0,
        replay: 0.2,
        held_out: 0.3,
    };
    let mut training = saker_pipeline::training::Training {
        finetune: settings.clone(),
        ..training
    };
    // Two steps an epoch do not show at once.
    (training.towers.patience, training.ranker.patience) = (0, 0);
    let selection = Selection::new(&mut data, &settings, 1, LEARNED, false).unwrap();
    let candidate = onnx::tower(&towers.candidate, "candidate_tower");
    let query = onnx::tower(&towers.query, "query_tower");
    let mut silent = ();
    let (session, rows) = (&mut Session::new(&mut silent), &selection.rows);
    let history = towers
        .finetune(&data, &tower_sizes, &training, rows, session)
        .unwrap();
    assert!(history.iter().any(|epoch| epoch.best));
    let candidates = Candidates::new(&towers, &data, &training, 30);
    let history = ranker
        .finetune(&data, &training, &candidates, rows, session)
        .unwrap();
    assert!(history.iter().any(|epoch| epoch.best));
    assert_eq!(candidate, onnx::tower(&towers.candidate, "candidate_tower"));
    assert_ne!(query, onnx::tower(&towers.query, "query_tower"));
    let (retrieved_after, ranked_after) = served_metrics(&towers, &ranker, &data, &held(&data), 30);
    assert!(
        retrieved_after.ndcg_10 > 1.2 * retrieved.ndcg_10
            && ranked_after.ndcg_10 > 1.2 * ranked.ndcg_10,
        "retrieval {} to {}, ranked {} to {}",
        retrieved.ndcg_10,
        retrieved_after.ndcg_10,
        ranked.ndcg_10,
        ranked_after.ndcg_10
    );
}

#[test]
fn a_fine_tuning_that_is_no_better_is_not_kept() {
    let mut data = dataset();
    let (mut towers, _) = train(&data);
    let mut training = training();
    // Steps so large that they can only harm.
    training.finetune.learning_rate = 1000.0;
    training.finetune.held_out = 0.5;
    let selection = Selection::new(&mut data, &training.finetune, 1, 15 * 3600, false).unwrap();
    let before = towers.user_vectors(&data);
    let (tower_sizes, _) = sizes();
    let mut silent = ();
    let (session, rows) = (&mut Session::new(&mut silent), &selection.rows);
    let history = towers
        .finetune(&data, &tower_sizes, &training, rows, session)
        .unwrap();
    assert!(history.iter().all(|epoch| !epoch.best));
    assert!(before == towers.user_vectors(&data));
}
