//! What goes on when a dependency does not.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use triton_testing::tensor::Tensor;

use crate::support::golden::{Answer, Golden, RELEASE, answers};

/// How long a step waits for the store: the contract's default.
const DEADLINE_MS: u64 = 20;

/// What the clients of a test saw.
#[derive(Default)]
struct Seen {
    requests: usize,
    failures: Vec<String>,
    slowest: Duration,
    known: usize,
    cold: usize,
}

fn request(answer: &Answer) -> [Tensor; 3] {
    [
        Tensor::i32("user_id", &[answer.user_id]),
        Tensor::i32("device_type", &[answer.device_type]),
        Tensor::i32("timestamp", &[answer.timestamp]),
    ]
}

/// Whether the answer is the one that the stored user gets.
fn is_known(golden: &Golden, answer: &Answer) -> bool {
    let outputs = golden.answer("ensemble_model", &request(answer));
    outputs.i32("ordered_ids") == answer.ordered_ids
}

/// Keeps four clients busy while `script` runs.
fn under_load(golden: &Golden, script: impl FnOnce()) -> Seen {
    let stop = AtomicBool::new(false);
    let seen = Mutex::new(Seen::default());
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (stop, seen) = (&stop, &seen);
            scope.spawn(move || {
                // Users of the store, whose answers differ from a cold start's.
                for answer in answers()[1..30].iter().cycle().skip(7 * client) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let start = Instant::now();
                    let result = golden.server.infer("ensemble_model", &request(answer), &[]);
                    let elapsed = start.elapsed();
                    let mut seen = seen.lock().expect("no client panics");
                    seen.requests += 1;
                    seen.slowest = seen.slowest.max(elapsed);
                    match result {
                        Ok(outputs) if outputs.i32("ordered_ids") == answer.ordered_ids => {
                            seen.known += 1;
                        }
                        Ok(outputs) if outputs.i32("ordered_ids").len() == 20 => seen.cold += 1,
                        Ok(outputs) => seen.failures.push(format!("{outputs:?}")),
                        Err(error) => seen.failures.push(error.to_string()),
                    }
                }
            });
        }
        script();
        stop.store(true, Ordering::Relaxed);
    });
    seen.into_inner().expect("no client panics")
}

/// The golden answers come back by themselves.
fn wait_for_recovery(golden: &Golden) {
    let start = Instant::now();
    while !is_known(golden, &answers()[2]) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "no recovery:\n{}",
            golden.server.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The sum of a model's counters of degraded answers.
fn degraded(golden: &Golden, model: &str) -> f64 {
    let page = golden.server.metrics().expect("the metrics page");
    page.lines()
        .filter(|line| line.starts_with("saker_") && line.contains(&format!("model=\"{model}\"")))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// How many log lines of a model say that the store does not answer.
fn complaints(golden: &Golden, model: &str) -> usize {
    golden
        .server
        .log()
        .lines()
        .filter(|line| line.starts_with('W') && line.contains(&format!("'{model}'")))
        .count()
}

#[test]
fn no_request_fails_while_the_store_is_killed_and_started() {
    let golden = Golden::start(DEADLINE_MS);
    wait_for_recovery(&golden);
    let models = ["feast_user_lookup", "filter_seen_items"];
    let before = models.map(|model| degraded(&golden, model));
    let seen = under_load(&golden, || {
        std::thread::sleep(Duration::from_millis(500));
        golden.valkey.kill();
        std::thread::sleep(Duration::from_millis(2000));
        golden.valkey.restart().expect("Valkey comes back");
        wait_for_recovery(&golden);
        std::thread::sleep(Duration::from_millis(500));
    });
    println!(
        "{} requests: {} as known, {} as cold start, slowest {:?}",
        seen.requests, seen.known, seen.cold, seen.slowest
    );
    assert_eq!(seen.failures, Vec::<String>::new());
    assert!(seen.known > 0 && seen.cold > 0, "the store was away");
    for (model, before) in models.into_iter().zip(before) {
        assert!(
            degraded(&golden, model) > before,
            "{model} counts nothing:\n{}",
            golden.server.metrics().unwrap_or_default()
        );
        let lines = complaints(&golden, model);
        assert!(
            (1..=2).contains(&lines),
            "{model}: {lines} lines:\n{}",
            golden.server.log()
        );
    }
}

#[test]
fn a_store_that_hangs_costs_no_more_than_the_deadline() {
    let golden = Golden::start(DEADLINE_MS);
    wait_for_recovery(&golden);
    golden.valkey.freeze().expect("Valkey runs");
    let mut times = Vec::new();
    for answer in &answers()[1..30] {
        let start = Instant::now();
        let outputs = golden.answer("ensemble_model", &request(answer));
        times.push(start.elapsed());
        assert_eq!(outputs.i32("ordered_ids").len(), 20);
    }
    times.sort_unstable();
    println!("frozen: median {:?}, slowest {:?}", times[14], times[28]);
    // Two steps ask the store, 20 ms each; the rest is the models' and the machine's.
    assert!(times[14] < Duration::from_millis(150), "{times:?}");
    golden.valkey.thaw().expect("Valkey runs");
    wait_for_recovery(&golden);
}

#[test]
fn a_server_starts_without_its_store() {
    let golden = Golden::start(DEADLINE_MS);
    for model in ["feast_user_lookup", "filter_seen_items"] {
        golden.server.unload(model).ok();
    }
    golden.valkey.kill();
    for model in ["feast_user_lookup", "filter_seen_items"] {
        golden.server.load(model).expect("loads without a store");
    }
    golden.server.load("ensemble_model").expect("loads");
    let outputs = golden.answer("ensemble_model", &request(&answers()[2]));
    assert_eq!(outputs.i32("ordered_ids").len(), 20);
    golden.valkey.restart().expect("Valkey comes back");
    wait_for_recovery(&golden);
}

#[test]
fn a_mix_of_two_releases_does_not_load() {
    let golden = Golden::start(DEADLINE_MS);
    for model in ["faiss_retrieval", "nvt_user_transform", "query_tower"] {
        let path = golden.repository().join(model).join("1/release.json");
        let right = std::fs::read_to_string(&path).expect("a release");
        let wrong = right.replace(RELEASE, "another-run");
        assert_ne!(right, wrong);
        golden.server.unload(model).ok();
        std::fs::write(&path, wrong).expect("a release");
        let error = golden.server.load(model).expect_err("a mix must not load");
        for part in [model, "another-run", RELEASE] {
            assert!(error.message.contains(part), "no '{part}' in: {error}");
        }
        std::fs::write(&path, right).expect("a release");
        golden.server.load(model).expect("the right one loads");
    }
    golden
        .server
        .load("ensemble_model")
        .expect("the ensemble loads");
    wait_for_recovery(&golden);
}

#[test]
fn a_reload_of_the_whole_repository_serves_on() {
    let golden = Golden::start(DEADLINE_MS);
    let seen = under_load(&golden, || {
        for model in golden.models() {
            golden.server.load(model).expect("a reload");
        }
    });
    assert_eq!(seen.failures, Vec::<String>::new());
    wait_for_recovery(&golden);
}

#[test]
fn an_ended_server_leaves_nothing_behind() {
    let golden = Golden::start(DEADLINE_MS);
    wait_for_recovery(&golden);
    golden.server.stop().expect("a clean end");
    let log = golden.server.log();
    assert!(!log.contains("Signal (11)"), "{log}");
    assert!(!log.contains("Signal (6)"), "{log}");
}
