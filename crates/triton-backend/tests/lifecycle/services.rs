//! Log and metrics.

use std::cell::RefCell;

use triton_backend::{Counter, Error, Gauge, log};
use triton_rs_sys as sys;
use triton_testing::fake::{log_lines, metric, set_metrics_enabled};

use super::scripted::{config, load_error, on_load, server};

#[test]
fn log_lines_reach_the_server() {
    log::warn!("{} of a\0b is odd", 3);
    let lines = log_lines("of a b is odd");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].level, sys::TRITONSERVER_LOG_WARN);
    assert_eq!(lines[0].message, "3 of a b is odd");
    log::verbose!("nobody sees this line");
    assert!(log_lines("nobody sees this line").is_empty());
}

thread_local! {
    static COUNTERS: RefCell<Vec<Counter>> = const { RefCell::new(Vec::new()) };
}

fn load_with_counter(server: &triton_testing::fake::Server, model: &str, name: &'static str) {
    on_load(move |context| {
        let counter = context.counter(name, "Failures.", &[("kind", "late")])?;
        COUNTERS.with_borrow_mut(|counters| counters.push(counter));
        Ok(())
    });
    drop(server.load(model, config()).unwrap());
}

#[test]
fn models_share_a_family_and_a_reload_shares_the_metric() {
    let server = server();
    for model in ["a", "b", "a"] {
        load_with_counter(&server, model, "shared_total");
    }
    let [first, second, again]: [Counter; 3] = COUNTERS.take().try_into().unwrap();
    let value = |model| {
        metric(
            "shared_total",
            &[("model", model), ("version", "1"), ("kind", "late")],
        )
    };
    first.increment(2);
    again.increment(3);
    second.increment(1);
    assert_eq!((value("a"), value("b")), (Some(5.0), Some(1.0)));
    drop(first);
    again.clone().increment(1);
    assert_eq!(
        value("a"),
        Some(6.0),
        "the predecessor's end does not end it"
    );
    drop(again);
    assert_eq!((value("a"), value("b")), (None, Some(1.0)));
    drop(second);
    assert_eq!(value("b"), None);
}

#[test]
fn gauges_are_set() {
    let server = server();
    on_load(|context| {
        let gauge = context.gauge("rows", "Rows.", &[])?;
        gauge.set(7.0);
        gauge.set(5.5);
        assert_eq!(
            metric("rows", &[("model", "m"), ("version", "1")]),
            Some(5.5)
        );
        Ok(())
    });
    server.load("m", config()).unwrap();
    assert_eq!(metric("rows", &[("model", "m"), ("version", "1")]), None);
}

#[test]
fn a_name_of_another_kind_fails_the_load() {
    on_load(|context| {
        let _gauge = context.gauge("twice_named", "Rows.", &[])?;
        context.counter("twice_named", "Rows.", &[]).map(drop)
    });
    let failure = load_error(config());
    assert!(
        failure
            .message
            .starts_with("model 'm': metric 'twice_named': "),
        "{}",
        failure.message
    );
}

#[test]
fn a_server_without_metrics_serves() {
    set_metrics_enabled(false);
    on_load(|context| {
        context
            .counter("silent_total", "Nothing.", &[])?
            .increment(1);
        context.gauge("silent", "Nothing.", &[])?.set(1.0);
        Ok::<(), Error>(())
    });
    server().load("m", config()).unwrap();
    assert_eq!(metric("silent", &[("model", "m"), ("version", "1")]), None);
    Counter::disabled().increment(1);
    Gauge::disabled().set(1.0);
}
