//! The backend behind the fake C API, with the real ONNX Runtime, on a real Valkey.

use std::collections::BTreeMap;

use ndarray::Array1;
use saker_index::{Index, Metric};
use saker_pipeline::training::Ranker as Sizes;
use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Mode, Prefixes, SeenWriter};
use saker_store::{Connection, Settings};
use saker_train::data::{Categorical, Continuous, Dataset, Table};
use saker_train::onnx::{self, Items};
use saker_train::ranker::Ranker;
use triton_fused_ranking::FusedRanking;
use triton_testing::fake::{Config, Input, LoadedModel, Request, Server};
use triton_testing::valkey::Valkey;

const ITEMS: i32 = 6;
const USERS: usize = 5;

fn server() -> Server {
    Server::start(
        "fused_ranking",
        triton_backend::entry_points::<FusedRanking>(),
    )
    .unwrap()
}

fn categorical(name: &str, cardinality: usize) -> Categorical {
    Categorical {
        name: name.to_owned(),
        cardinality,
        embedding_dim: None,
        cold_start: 2,
        codes: Vec::new().into(),
    }
}

fn continuous(name: &str) -> Continuous {
    Continuous {
        name: name.to_owned(),
        cold_start: 0.0,
        values: Vec::new().into(),
    }
}

/// Items 10 to 60 along 6 axes, a ranker with its first weights.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("1");
    std::fs::create_dir(&version).unwrap();
    let count = ITEMS as usize;
    let mut vectors = vec![0.0; count * count];
    for axis in 0..count {
        vectors[axis * (count + 1)] = 1.0;
    }
    let ids: Vec<i64> = (1..=i64::from(ITEMS)).map(|item| item * 10).collect();
    let index = Index::build("Flat", count, Metric::InnerProduct, &vectors, &ids).unwrap();
    index.write(&version.join("index.faiss")).unwrap();
    let data = Dataset {
        users: Table {
            categorical: vec![categorical("user_id", USERS)],
            continuous: vec![continuous("age_norm")],
            ..Table::default()
        },
        items: Table {
            categorical: vec![categorical("item_id", count + 3)],
            continuous: vec![continuous("price")],
            ..Table::default()
        },
        ..Dataset::default()
    };
    let sizes = Sizes {
        embedding_dim: 4,
        bottom_layers: vec![8, 4],
        top_layers: vec![8],
    };
    let items = Items {
        rows: count,
        codes: BTreeMap::from([("item_id".to_owned(), (3..3 + ITEMS).collect())]),
        numbers: BTreeMap::from([(
            "price".to_owned(),
            (0..ITEMS).map(|item| item as f32 / 3.0 - 1.0).collect(),
        )]),
        vectors: BTreeMap::new(),
    };
    let exported = onnx::ranker(&Ranker::new(&sizes, &data, 3));
    let hoisted = onnx::hoist(&exported, &items, "items.bin").unwrap();
    std::fs::write(version.join("model.onnx"), hoisted.model).unwrap();
    std::fs::write(version.join("items.bin"), hoisted.tables).unwrap();
    ndarray_npy::write_npy(version.join("items.npy"), &Array1::from(ids)).unwrap();
    folder
}

fn config(valkey: &Valkey) -> Config {
    Config::new()
        .input("output_1", "TYPE_FP32", &[-1, i64::from(ITEMS)])
        .input("raw_user_id", "TYPE_INT32", &[-1])
        .input("user_id", "TYPE_INT32", &[-1])
        .input("age_norm", "TYPE_FP32", &[-1])
        .output("ordered_ids", "TYPE_INT32", &[-1])
        .output("ordered_scores", "TYPE_FP32", &[-1])
        .parameter("REDIS_URL", &valkey.url(1))
        .parameter("MODE", "plain")
        .parameter("DEADLINE_MS", "500")
        .parameter("RETRIEVAL_TOPK", "4")
        .parameter("RANKING_TOPK", "3")
}

/// Queries that like the items of the lowest axes, in turn.
fn request(users: &[i32], codes: &[i32], ages: &[f32]) -> Request {
    let query = |&user: &i32| (0..ITEMS).map(move |axis| 1.0 / ((axis + user) % ITEMS + 1) as f32);
    let queries: Vec<f32> = users.iter().flat_map(query).collect();
    Request::new()
        .input(Input::new(
            "output_1",
            &[users.len() as i64, i64::from(ITEMS)],
            &queries,
        ))
        .input(Input::new("raw_user_id", &[users.len() as i64], users))
        .input(Input::new("user_id", &[codes.len() as i64], codes))
        .input(Input::new("age_norm", &[ages.len() as i64], ages))
        .output("ordered_ids")
        .output("ordered_scores")
}

fn mark_seen(valkey: &Valkey, user: i64, items: Vec<i64>) {
    let settings = Settings::parse(&valkey.url(1), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    let geometry = Geometry::new(1000, 0.0001).unwrap();
    SeenWriter::new(&mut connection, Mode::Plain, Prefixes::default(), geometry)
        .and_then(|mut writer| writer.add(&[(user, items)]))
        .unwrap();
}

fn ids(model: &LoadedModel<'_>, request: Request) -> Vec<i32> {
    model
        .execute([request])
        .success(0)
        .output::<i32>("ordered_ids")
        .0
}

#[test]
fn every_request_of_a_batch_gets_its_own_unseen_items() {
    let (valkey, server, folder) = (Valkey::start().unwrap(), server(), folder());
    let model = server
        .load_from("fused", 1, folder.path(), config(&valkey))
        .unwrap();
    let alone = [
        ids(&model, request(&[0], &[3], &[0.5])),
        ids(&model, request(&[2], &[4], &[-0.5])),
    ];
    let report = model.execute([
        request(&[0, 2], &[3, 4], &[0.5, -0.5]),
        request(&[0], &[3], &[0.5]),
        request(&[], &[], &[]),
        request(&[0], &[USERS as i32], &[0.5]),
        request(&[0], &[-1], &[0.5]),
        request(&[0, 1], &[3, 4], &[0.5, 0.5, 0.5]),
        request(&[2], &[4], &[-0.5]),
    ]);
    let of = |index: usize| report.success(index).output::<i32>("ordered_ids").0;
    assert_eq!(of(0), alone.concat());
    assert_eq!((of(1), of(6)), (alone[0].clone(), alone[1].clone()));
    assert_eq!((alone[0].len(), of(2).len()), (3, 0));
    let scores = report.success(0).output::<f32>("ordered_scores").0;
    assert!(
        scores[0] >= scores[1] && scores[1] >= scores[2] && scores[2] > 0.0,
        "{scores:?}"
    );
    for (index, says) in [
        (3, "'user_id' has the code 5; accepted: 0 to 4"),
        (4, "'user_id' has the code -1"),
        (5, "'age_norm' has 3 elements for 2 users"),
    ] {
        let message = &report.failure(index).message;
        assert!(message.contains(says), "{message}");
    }
    assert!(report.violations().is_empty(), "{:?}", report.violations());

    // What was seen goes; beside one who has seen nothing the row is padded; with nothing left the answer is empty.
    mark_seen(
        &valkey,
        2,
        alone[1][..2].iter().map(|&item| i64::from(item)).collect(),
    );
    let left = ids(&model, request(&[2], &[4], &[-0.5]));
    assert!(
        left.len() == 2 && alone[1][..2].iter().all(|item| !left.contains(item)),
        "{left:?}"
    );
    let both = ids(&model, request(&[0, 2], &[3, 4], &[0.5, -0.5]));
    assert_eq!(both, [&alone[0][..], &left[..], &[-1]].concat());
    mark_seen(
        &valkey,
        2,
        (1..=i64::from(ITEMS)).map(|item| item * 10).collect(),
    );
    assert!(ids(&model, request(&[2], &[4], &[-0.5])).is_empty());
    valkey.kill();
    assert_eq!(ids(&model, request(&[2], &[4], &[-0.5])), alone[1]);
}

#[test]
fn a_draw_holds_each_item_once() {
    let (valkey, server, folder) = (Valkey::start().unwrap(), server(), folder());
    let config = config(&valkey)
        .parameter("DIVERSITY_MODE", "true")
        .parameter("SEED", "5");
    let model = server.load_from("fused", 1, folder.path(), config).unwrap();
    let mut orders = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let mut drawn = ids(&model, request(&[0], &[3], &[0.5]));
        orders.insert(drawn.clone());
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 3);
    }
    assert!(orders.len() > 5, "{orders:?}");
}

#[test]
fn what_does_not_fit_fails_the_load() {
    let (valkey, server, folder) = (Valkey::start().unwrap(), server(), folder());
    let refused = |config: Config, says: &[&str]| {
        let refused = server.load_from("fused", 1, folder.path(), config);
        let message = refused.expect_err("a refusal").message;
        for part in says {
            assert!(message.contains(part), "{message}");
        }
    };
    let base = || config(&valkey);
    refused(
        base().input("hour", "TYPE_FP32", &[-1]),
        &["'hour'", "not read"],
    );
    refused(base().parameter("RANKING_TOPK", "0"), &["RANKING_TOPK"]);
    refused(base().parameter("CATEGORY_INPUT", "genre"), &["genre"]);
    refused(
        base().parameter("TOPK", "1"),
        &["'TOPK'", "RETRIEVAL_TOPK", "REDIS_URL", "SEED"],
    );
    let one_input = Config::new()
        .input("output_1", "TYPE_FP32", &[-1, 6])
        .parameter("REDIS_URL", &valkey.url(1));
    refused(one_input, &["1 inputs and 0 outputs"]);

    let version = folder.path().join("1");
    ndarray_npy::write_npy(version.join("items.npy"), &Array1::from(vec![10_i64, 10])).unwrap();
    refused(base(), &["items.npy", "the item 10 comes twice"]);
    let ids: Vec<i64> = (1..=i64::from(ITEMS)).map(|item| item * 10).collect();
    ndarray_npy::write_npy(version.join("items.npy"), &Array1::from(ids)).unwrap();
    let foreign = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/reference/dlrm_ranking.onnx");
    std::fs::copy(foreign, version.join("model.onnx")).unwrap();
    refused(base(), &["model.onnx", "saker assemble"]);
}
