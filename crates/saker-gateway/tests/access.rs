//! API keys, their rates, and the origins that may send requests.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use saker_gateway::Keys;
use support::{Fixture, NO_STORE};

const KEY: &str = "0123456789abcdef";

fn keys(rate_and_rights: &str) -> Keys {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "# name key rate rights\nshop {KEY} {rate_and_rights}").unwrap();
    Keys::read(file.path()).unwrap()
}

fn with_keys(rate_and_rights: &str) -> Fixture {
    let keys = keys(rate_and_rights);
    Fixture::start(NO_STORE, |settings| settings.keys = Some(keys))
}

/// Every route, by group. A route that is missing here makes a test below fail.
const READING: [&str; 5] = [
    "GET /recommendations",
    "GET /items?category=category_l1:1",
    "GET /items/7",
    "GET /popular",
    "GET /categories",
];
const OPEN: [&str; 6] = [
    "GET /",
    "GET /health/live",
    "GET /health/ready",
    "GET /openapi.json",
    "GET /assets/style.css",
    "GET /pictures/7.png",
];
/// Routes that write, delete or return user data.
const GUARDED: [&str; 4] = [
    "POST /events",
    "GET /users",
    "GET /users/1",
    "DELETE /users/1/seen",
];
const OPERATORS: [&str; 4] = [
    "GET /metrics",
    "GET /operators",
    "GET /explain",
    "GET /status.json",
];

/// The status of an answer, with or without the key. A stub replaces Triton, and there is no store.
fn status(fixture: &Fixture, request: &str, key: Option<&str>) -> u16 {
    let (method, path) = request.split_once(' ').unwrap();
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(key.map(|key| ("x-api-key", key)));
    fixture.ask(method, path, &headers, "{}").status
}

fn is_refused(status: u16) -> bool {
    matches!(status, 401 | 403)
}

#[test]
fn every_route_is_named_above() {
    let fixture = Fixture::start(NO_STORE, |_| ());
    let document = fixture.get("/openapi.json").json;
    let described = document["paths"].as_object().unwrap();
    let named: usize = [READING.len(), OPEN.len(), GUARDED.len(), OPERATORS.len()]
        .iter()
        .sum();
    assert_eq!(described.len(), named);
}

#[test]
fn on_loopback_everybody_may_ask_for_everything() {
    let fixture = Fixture::start(NO_STORE, |_| ());
    for request in READING
        .iter()
        .chain(&OPEN)
        .chain(&GUARDED)
        .chain(&OPERATORS)
    {
        let status = status(&fixture, request, None);
        assert!(!is_refused(status), "{request}: {status}");
    }
}

#[test]
fn elsewhere_without_keys_nobody_writes_deletes_explains_or_reads_of_users() {
    for address in ["0.0.0.0", "10.0.0.7", "::", "2001:db8::1"] {
        let fixture = Fixture::start_as_if_at(address, |_| ());
        for request in GUARDED {
            assert_eq!(status(&fixture, request, None), 403, "{address}: {request}");
        }
        for request in OPERATORS {
            assert_eq!(status(&fixture, request, None), 404, "{address}: {request}");
        }
        for request in READING.iter().chain(&OPEN) {
            let status = status(&fixture, request, None);
            assert!(!is_refused(status), "{address}: {request}: {status}");
        }
    }
    let trusted = Fixture::start_as_if_at("0.0.0.0", |settings| settings.trust_network = true);
    for request in GUARDED.iter().chain(&OPERATORS) {
        let status = status(&trusted, request, None);
        assert!(!is_refused(status) && status != 404, "{request}: {status}");
    }
}

#[test]
fn a_key_may_do_what_its_rights_say() {
    for (rights, allowed) in [
        (
            "",
            &["GET /recommendations", "POST /events", "GET /users/1"][..],
        ),
        ("read", &["GET /recommendations"]),
        ("forget", &["DELETE /users/1/seen"]),
        ("admin", &["GET /explain", "GET /status.json"]),
        ("events,users", &["POST /events", "GET /users/1"]),
    ] {
        for fixture in [with_keys(&format!("1000 {rights}")), {
            let keys = keys(&format!("1000 {rights}"));
            Fixture::start_as_if_at("10.0.0.7", |settings| settings.keys = Some(keys))
        }] {
            for request in [
                "GET /recommendations",
                "POST /events",
                "GET /users/1",
                "DELETE /users/1/seen",
                "GET /explain",
                "GET /status.json",
            ] {
                let status = status(&fixture, request, Some(KEY));
                let may = !matches!(status, 401 | 403 | 404);
                // A listener beyond loopback does not have the operators' routes.
                let is_there = may || status == 403;
                let expected = allowed.contains(&request);
                assert!(
                    may == expected || (expected && !is_there),
                    "{rights}: {request}: {status}"
                );
            }
        }
    }
}

#[test]
fn a_page_whose_name_leads_here_reads_nothing() {
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.hosts = vec!["shop.example".to_owned()]
    });
    for path in ["/users/1", "/metrics", "/", "/recommendations"] {
        let ask = |host| fixture.ask("GET", path, &[("host", host)], "");
        ask("evil.example").is_problem(421, None);
        ask("evil.example:8080").is_problem(421, None);
        for ours in ["localhost:1", "127.0.0.1", "shop.example"] {
            assert_ne!(ask(ours).status, 421, "{path} {ours}");
        }
    }
}

#[test]
fn every_answer_is_kept_by_nobody_and_shown_in_no_frame() {
    let fixture = Fixture::start(NO_STORE, |_| ());
    let requests = READING
        .iter()
        .chain(&OPEN)
        .chain(&GUARDED)
        .chain(&OPERATORS);
    for request in requests.chain(&["GET /nowhere", "PUT /events"]) {
        let (method, path) = request.split_once(' ').unwrap();
        let answer = fixture.ask(method, path, &[], "");
        assert_eq!(
            answer.header("x-content-type-options"),
            "nosniff",
            "{request}"
        );
        assert_eq!(answer.header("x-frame-options"), "DENY", "{request}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{request}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'"),
            "{request}: {policy}"
        );
        assert!(
            policy.contains("frame-ancestors 'none'"),
            "{request}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{request}: {policy}");
        if answer.header("content-type").contains("json") {
            assert_eq!(answer.header("cache-control"), "no-store", "{request}");
        }
    }
}

#[test]
fn operators_have_a_listener_of_their_own() {
    let (mut fixture, operators, _stop) = Fixture::start_apart(|_| ());
    for request in OPERATORS {
        assert_eq!(status(&fixture, request, None), 404, "{request}");
    }
    for request in READING {
        assert_ne!(status(&fixture, request, None), 404, "{request}");
    }
    fixture.address = operators;
    for request in OPERATORS.iter().chain(&READING) {
        assert_ne!(status(&fixture, request, None), 404, "{request}");
    }
    assert!(
        fixture
            .get("/metrics")
            .text
            .contains("saker_gateway_requests_total")
    );
}

/// The gateway's answer to `/health/live`, over a new connection.
fn lives(fixture: &Fixture) -> String {
    let mut stream = TcpStream::connect(&fixture.address).unwrap();
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).unwrap();
    let mut answer = String::new();
    let ask = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let _ = stream.write_all(ask);
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn until_it_lives(fixture: &Fixture) {
    let start = Instant::now();
    loop {
        let answer = lives(fixture);
        if answer.starts_with("HTTP/1.1 200 ") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_address_cannot_take_all_connections() {
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.connections_per_address = 20;
    });
    let mut idle: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(&fixture.address).unwrap())
        .collect();
    let mut refused = TcpStream::connect(&fixture.address).unwrap();
    refused
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    idle.truncate(18);
    until_it_lives(&fixture);
    let metrics = fixture.get("/metrics").text;
    let counted = "saker_gateway_refused_connections_total ";
    assert!(
        metrics.contains(counted) && !metrics.contains(&format!("{counted}0")),
        "{metrics}"
    );
}

#[test]
fn a_client_that_does_not_read_loses_its_connection() {
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.connections_per_address = 1;
        settings.write_timeout = Duration::from_millis(300);
    });
    let mut greedy = TcpStream::connect(&fixture.address).unwrap();
    greedy
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // Sends requests until the gateway accepts no more.
    let lot = request.repeat(50);
    let start = Instant::now();
    while greedy.write_all(&lot).is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the gateway never stops reading"
        );
    }
    // This end keeps the connection open, and a new connection gets its place.
    until_it_lives(&fixture);
}

/// Clients send requests over new and kept connections until the gateway stops.
#[test]
fn a_gateway_that_stops_loses_no_request() {
    let (fixture, _, stop) = Fixture::start_apart(|settings| {
        settings.deadline = Duration::from_secs(5);
        settings.drain = Duration::from_secs(3);
    });
    fixture.stub().delay(Duration::from_millis(50));
    let stopping = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let (address, stopping) = (&fixture.address, &stopping);
        let clients: Vec<_> = (0..16)
            .map(|client| scope.spawn(move || ask_until(stopping, address, client % 2 == 0)))
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(fixture.get("/health/ready").json.get("stopping"), None);
        stop.send(()).unwrap();
        fixture.until("/health/ready", |answer| answer.json["stopping"] == true);
        stopping.store(true, Ordering::Relaxed);
        let answered = clients.into_iter().map(|client| client.join().unwrap());
        answered.collect::<Vec<usize>>()
    });
    assert!(answered.iter().all(|&count| count > 2), "{answered:?}");
    let start = Instant::now();
    while TcpStream::connect(&fixture.address).is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not stop"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Counts answered requests. A request without an answer panics.
fn ask_until(stopping: &AtomicBool, address: &str, keeps: bool) -> usize {
    let mut answered = 0;
    let mut kept: Option<TcpStream> = None;
    while !stopping.load(Ordering::Relaxed) {
        let mut stream = kept
            .take()
            .unwrap_or_else(|| TcpStream::connect(address).unwrap());
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        let ask = "GET /recommendations HTTP/1.1\r\nhost: localhost\r\n";
        let close = if keeps { "" } else { "connection: close\r\n" };
        stream
            .write_all(format!("{ask}{close}\r\n").as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !answer.ends_with(b"]}") {
            let count = stream.read(&mut part).unwrap();
            let text = String::from_utf8_lossy(&answer);
            assert!(count > 0, "ended after {answered} answers: {text}");
            answer.extend_from_slice(&part[..count]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        answered += 1;
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if keeps && !text.contains("connection: close") {
            kept = Some(stream);
        }
    }
    answered
}

/// The head of an answer to a request whose body is sent later, if the gateway answers before the body.
fn answers_early(fixture: &Fixture, request: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(&fixture.address).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut sent = false;
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let patience = if sent { 10_000 } else { 1000 };
        let patience = Duration::from_millis(patience);
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => panic!("{}", String::from_utf8_lossy(&answer)),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) => {
                assert!(!sent, "{error}");
                stream.write_all(body).unwrap();
                sent = true;
            }
        }
    }
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

#[test]
fn an_answer_that_leaves_a_body_unread_says_that_its_connection_ends() {
    let (fixture, _operators, _stop) = Fixture::start_apart(|_| ());
    for request in [
        "GET /nowhere",
        "GET /metrics",
        "PUT /events",
        "GET /popular",
    ] {
        let answer = answers_early(&fixture, request, b"{}");
        assert!(answer.contains("connection: close"), "{request}: {answer}");
    }
    // The gateway reads the body.
    let answer = answers_early(&fixture, "POST /events", b"[");
    assert!(!answer.contains("connection: close"), "{answer}");
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
