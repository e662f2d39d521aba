//! Tests the backend against the fake C API, with a real Valkey.

use std::time::Duration;

use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Mode, Prefixes, SeenWriter};
use saker_store::{Connection, Settings};
use saker_testing::valkey::Valkey;
use triton_bloom_filter::BloomFilter;
use triton_testing::fake::{self, Config, Input, LoadedModel, Request, Server};

fn server() -> Server {
    Server::start(
        "bloom_filter",
        triton_backend::entry_points::<BloomFilter>(),
    )
    .unwrap()
}

/// User 7 has seen 1 and 2, user 8 has seen 3.
fn store() -> Valkey {
    let valkey = Valkey::start().unwrap();
    let settings = Settings::parse(&valkey.url(1), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    let geometry = Geometry::new(1000, 0.0001).unwrap();
    SeenWriter::new(&mut connection, Mode::Plain, Prefixes::default(), geometry)
        .unwrap()
        .add(&[(7, vec![1, 2]), (8, vec![3])])
        .unwrap();
    valkey
}

fn config(valkey: &Valkey) -> Config {
    Config::new()
        .input("user_id", "TYPE_INT32", &[-1])
        .input("candidate_ids", "TYPE_INT32", &[-1])
        .output("filtered_ids", "TYPE_INT32", &[-1])
        .parameter("REDIS_URL", &valkey.url(1))
        .parameter("MODE", "plain")
        .parameter("POPULARITY_URL", "")
        .parameter("DEADLINE_MS", "500")
}

fn request(users: &[i32], candidates: &[i32]) -> Request {
    Request::new()
        .input(Input::new("user_id", &[users.len() as i64], users))
        .input(Input::new(
            "candidate_ids",
            &[candidates.len() as i64],
            candidates,
        ))
        .output("filtered_ids")
}

/// Waits for the connection, which is made in the background. The first requests may be answered unfiltered.
fn connected(model: &LoadedModel<'_>) {
    for _ in 0..500 {
        let report = model.execute([request(&[7], &[1, 9])]);
        if report.success(0).output::<i32>("filtered_ids").0 == [9] {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no connection to the store within 5 s");
}

#[test]
fn every_request_of_a_batch_is_filtered_for_its_own_users() {
    let (valkey, server) = (store(), server());
    let model = server.load("filter", config(&valkey)).unwrap();
    connected(&model);
    let report = model.execute([
        request(&[7], &[3, 2, 1, 4]),
        request(&[7, 8], &[1, 5, 3, 6, 7, 8]),
        request(&[8], &[]),
        request(&[7, 8], &[1, 2, 3]),
        Request::new()
            .input(Input::new("candidate_ids", &[1], &[1]))
            .output("filtered_ids"),
        request(&[9], &[3, -1, 1]),
    ]);
    let ids = |index: usize| report.success(index).output::<i32>("filtered_ids").0;
    assert_eq!(ids(0), [3, 4]);
    assert_eq!(ids(1), [5, 3, -1, 6, 7, 8]);
    assert!(ids(2).is_empty());
    assert!(report.failure(3).message.contains("candidate_ids"));
    assert!(report.failure(4).message.contains("user_id"));
    assert_eq!(ids(5), [3, 1]);
    assert!(report.violations().is_empty(), "{:?}", report.violations());
}

#[test]
fn a_store_that_is_down_filters_nothing_and_is_found_again() {
    let (valkey, server) = (store(), server());
    let model = server.load("filter", config(&valkey)).unwrap();
    connected(&model);
    valkey.kill();
    let report = model.execute([request(&[7], &[1, 9]), request(&[8], &[3, -1])]);
    assert_eq!(report.success(0).output::<i32>("filtered_ids").0, [1, 9]);
    assert_eq!(report.success(1).output::<i32>("filtered_ids").0, [3]);
    valkey.restart().unwrap();
    connected(&model);
    // Unloading joins the threads that keep the connections.
    drop(model);
    let again = server.load("filter", config(&valkey)).unwrap();
    connected(&again);
}

#[test]
fn bad_configurations_do_not_load() {
    let (valkey, server) = (store(), server());
    for (key, value, reason) in [
        ("MODE", "bits", "accepted"),
        ("DEADLINE_MS", "0", "1 and up"),
        ("CAPACITY", "0", "CAPACITY"),
        ("ERROR_RATE", "2", "ERROR_RATE"),
    ] {
        let failure = server
            .load("filter", config(&valkey).parameter(key, value))
            .err()
            .unwrap_or_else(|| panic!("{key}={value} loads"));
        assert!(failure.message.contains(reason), "{}", failure.message);
    }
    let failure = server
        .load("filter", config(&valkey).max_batch_size(4))
        .err()
        .unwrap();
    assert!(failure.message.contains("max_batch_size"));
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let (valkey, server) = (store(), server());
    fake::parameters_are_named(|key, value| {
        let config = config(&valkey).parameter(key, value);
        server.load("filter", config).map(drop)
    });
}
