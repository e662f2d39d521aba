//! API keys, their rates, and which pages may ask.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use saker_gateway::Keys;
use support::{Fixture, NO_STORE};

const KEY: &str = "0123456789abcdef";

fn with_keys(rate: &str) -> Fixture {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "# name key rate\nshop {KEY} {rate}").unwrap();
    let keys = Keys::read(file.path()).unwrap();
    Fixture::start(NO_STORE, |settings| settings.keys = Some(keys))
}

#[test]
fn without_a_known_key_nothing_is_told() {
    let fixture = with_keys("1000");
    fixture.get("/recommendations").is_problem(401, None);
    fixture.get("/users/1").is_problem(401, None);
    let ask = |key| fixture.ask("GET", "/recommendations", &[("x-api-key", key)], "");
    ask("fedcba9876543210").is_problem(401, None);
    assert_eq!(ask(KEY).status, 200);
    for open in ["/health/live", "/metrics", "/openapi.json", "/"] {
        assert_eq!(fixture.get(open).status, 200, "{open}");
    }
    let metrics = fixture.get("/metrics").text;
    assert!(
        metrics.contains(r#"saker_gateway_key_requests_total{key="shop"} 1"#),
        "{metrics}"
    );
    assert!(!metrics.contains(KEY));
}

#[test]
fn a_key_has_a_rate() {
    let fixture = with_keys("0.5");
    let ask = || fixture.ask("GET", "/recommendations", &[("x-api-key", KEY)], "");
    assert_eq!(ask().status, 200);
    let answer = ask();
    answer.is_problem(429, None);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&seconds));
}

#[test]
fn pages_of_the_named_origins_may_ask() {
    let ours = "https://shop.example";
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.origins = vec![ours.to_owned()]
    });
    let ask = |method, origin| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        fixture.ask(method, "/events", &headers, "")
    };
    let answer = ask("OPTIONS", ours);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), ours);
    assert!(
        answer
            .header("access-control-allow-headers")
            .contains("x-api-key")
    );
    let other = ask("OPTIONS", "https://evil.example");
    assert_eq!(other.header("access-control-allow-origin"), "");
    let answer = fixture.ask("GET", "/popular", &[("origin", ours)], "");
    assert_eq!(answer.header("access-control-allow-origin"), ours);
}

#[test]
fn a_client_that_does_not_say_what_it_wants_is_not_waited_for() {
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.header_timeout = Duration::from_millis(200);
    });
    for said in ["", "GET /popular HTTP/1.1\r\nhost: gate"] {
        let mut stream = TcpStream::connect(&fixture.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let start = Instant::now();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{said:?}: {answer}"
        );
    }
}
