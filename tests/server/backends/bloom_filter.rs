//! `bloom_filter`: candidates without the items that the user has seen.

use saker_store::popularity::{self, Set};
use saker_testing::{bloom_server::BloomServer, cluster::Cluster, tls::TlsProxy, valkey::Valkey};
use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, is_clients_fault, wrong_tensors_are_refused},
    config::Config,
    stage::Stage,
    store::{connect, mark_seen},
};

const MODEL: &str = "filter_seen_items";

fn config(url: &str) -> Config {
    Config::new("bloom_filter")
        .input("user_id", "INT32", &[-1])
        .input("candidate_ids", "INT32", &[-1])
        .output("filtered_ids", "INT32", &[-1])
        .parameter("REDIS_URL", url)
        .parameter("CAPACITY", "1000")
        .parameter("ERROR_RATE", "0.0001")
        .parameter("RANKING_TOPK", "2")
        // The machine that runs the tests may be busy.
        .parameter("DEADLINE_MS", "500")
}

fn request(users: &[i32], candidates: &[i32]) -> [Tensor; 2] {
    [
        Tensor::i32("user_id", users),
        Tensor::i32("candidate_ids", candidates),
    ]
}

/// What both ways of keeping seen items must do.
fn filters(url: &str, config: &Config) {
    // Odd items below 600, and the ends of the type.
    let mut seen: Vec<i64> = (0..300).map(|index| 2 * index + 1).collect();
    seen.extend([i64::from(i32::MAX), i64::from(i32::MIN)]);
    mark_seen(url, &[(7, seen), (i64::from(i32::MAX), vec![3, 5])]);
    let stage = Stage::with(MODEL, config, &[]);
    let filtered = |users: &[i32], candidates: &[i32]| {
        stage
            .answer(MODEL, &request(users, candidates))
            .i32("filtered_ids")
    };
    for rows in SIZES {
        let candidates: Vec<i32> = (0..rows as i32).rev().collect();
        let unseen: Vec<i32> = candidates
            .iter()
            .copied()
            .filter(|id| id % 2 == 0 || *id >= 600)
            .collect();
        let got = filtered(&[7], &candidates);
        // A filter may take an unseen item for a seen one, and the stand-in's does so often; never the other way.
        assert!(got.iter().all(|id| unseen.contains(id)), "{rows} rows");
        assert!(
            20 * got.len() >= 19 * unseen.len(),
            "{rows} rows: {}",
            got.len()
        );
        assert!(got.is_sorted_by(|left, right| left > right), "order kept");
        // Nobody has seen nothing.
        assert_eq!(filtered(&[8], &candidates), candidates);
    }
    assert_eq!(filtered(&[7], &[i32::MIN, 4, i32::MAX, -1]), [4]);
    // Two users: rows of equal length, short ones padded.
    assert_eq!(
        filtered(&[7, i32::MAX], &[1, 2, 3, 4, 3, 4, 5, -1]),
        [2, 4, 4, -1]
    );
    assert_eq!(
        filtered(&[7, 8, i32::MAX], &[1, 2, 4, 3, 5, 7, 2, 4, 6]),
        [2, 4, -1, 3, 5, 7, 2, 4, 6]
    );
    assert!(filtered(&[], &[]).is_empty());
    let error = stage
        .infer(MODEL, &request(&[7, 8], &[1, 2, 3]))
        .expect_err("three candidates for two users");
    is_clients_fault(&error);
    assert!(error.message.contains("candidate_ids"), "{error}");
    assert_eq!(filtered(&[7], &[1, 2]), [2]);
    wrong_tensors_are_refused(&stage, MODEL, &request(&[7], &[1, 2, 3, 4]), &[]);
}

#[test]
fn with_bitmaps_of_our_own() {
    let valkey = Valkey::start().expect("a running Valkey");
    let url = valkey.url(1);
    filters(&url, &config(&url));
}

#[test]
fn with_bitmaps_in_a_cluster() {
    let cluster = Cluster::start().expect("a running cluster");
    filters(&cluster.url(), &config(&cluster.url()));
}

#[test]
fn with_bitmaps_over_tls_with_a_login() {
    let valkey = Valkey::builder()
        .user("saker", "word")
        .start()
        .expect("a running Valkey");
    let proxy = TlsProxy::start(valkey.port()).expect("a proxy");
    let url = format!("rediss://saker:word@localhost:{}/1", proxy.port());
    let config = config(&url).parameter("TLS_CA", &proxy.authority().to_string_lossy());
    filters(&valkey.url(1), &config);
}

#[test]
fn with_the_servers_bloom_module() {
    let server = BloomServer::start().expect("a server with BF.*");
    let url = server.url(1);
    // The stand-in is a Python program, and slow.
    let config = config(&url)
        .parameter("MODE", "server")
        .parameter("DEADLINE_MS", "10000");
    filters(&url, &config);
}

#[test]
fn auto_finds_the_servers_bloom_module() {
    let server = BloomServer::start().expect("a server with BF.*");
    let url = server.url(1);
    mark_seen(&url, &[(7, vec![1, 2])]);
    let stage = Stage::with(MODEL, &config(&url), &[]);
    let start = std::time::Instant::now();
    loop {
        let ids = stage
            .answer(MODEL, &request(&[7], &[1, 2, 3, 4]))
            .i32("filtered_ids");
        if ids == [3, 4] {
            return;
        }
        assert!(start.elapsed().as_secs() < 10, "{ids:?}");
    }
}

#[test]
fn popular_items_fill_a_short_answer() {
    let valkey = Valkey::start().expect("a running Valkey");
    let url = valkey.url(1);
    mark_seen(&url, &[(7, vec![1, 2, 3, 4, 50, 60])]);
    let mut popular = connect(&valkey.url(3));
    for (set, counts) in [
        (Set::Global, [(60, 9), (61, 8), (62, 7)]),
        (Set::CategoryL1(2), [(50, 6), (51, 5), (61, 4)]),
    ] {
        popularity::write(&mut popular, set, &counts).expect("a set written");
    }
    let config = config(&url)
        .optional("top_category", "INT32", &[-1])
        .parameter("RANKING_TOPK", "3")
        .parameter("POPULARITY_URL", &valkey.url(3));
    let stage = Stage::with(MODEL, &config, &[]);
    let ask = |category: Option<i32>, candidates: &[i32]| {
        let mut inputs = request(&[7], candidates).to_vec();
        inputs.extend(category.map(|category| Tensor::i32("top_category", &[category])));
        stage.answer(MODEL, &inputs).i32("filtered_ids")
    };
    // The category's first, then the global ones; never a seen one, none twice.
    assert_eq!(ask(Some(2), &[1, 2, 5]), [5, 51, 61]);
    assert_eq!(ask(Some(9), &[1, 2, 5]), [5, 61, 62]);
    assert_eq!(ask(None, &[1, 2, 61]), [61, 62]);
    assert_eq!(ask(Some(2), &[]), [51, 61, 62]);
    // Enough candidates: nothing is added.
    assert_eq!(ask(Some(2), &[5, 6, 7, 8]), [5, 6, 7, 8]);
}

#[test]
fn wrong_configurations() {
    let valkey = Valkey::start().expect("a running Valkey");
    bad_parameters_are_refused(
        MODEL,
        &config(&valkey.url(1)),
        &[],
        "REDIS_URL",
        &[
            ("MODE", "sometimes"),
            ("CAPACITY", "many"),
            ("ERROR_RATE", "2.5"),
            ("DEADLINE_MS", "soon"),
            ("RANKING_TOPK", "few"),
        ],
    );
}
