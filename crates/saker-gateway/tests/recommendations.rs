//! Answers to a visitor, and the replacement when Triton does not answer.

mod support;

use std::time::{Duration, Instant};

use support::{Fixture, Mode, NO_STORE, Triton, catalogue_of};

fn fixture() -> Fixture {
    Fixture::start(NO_STORE, |_| ())
}

#[test]
fn an_answer_is_as_the_storefront_reads_it() {
    let fixture = fixture();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("x-request-id", "order-7"), ("traceparent", trace)];
    let path = "/recommendations?user_id=42&device_type=desktop&timestamp=1700000000&k=3";
    let answer = fixture.ask("GET", path, &headers, "");
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-request-id"), "order-7");
    let json = &answer.json;
    assert_eq!(json["request_id"], "order-7");
    assert_eq!(json["release"], "stub");
    assert_eq!(json["user_id"], 42);
    assert_eq!(json["device_type"], 1);
    assert_eq!(json["timestamp"], 1_700_000_000);
    let items = json["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!(items[0]["id"], 1);
    assert_eq!(items[0]["title"], "Item 1");
    assert_eq!(items[0]["categories"]["category_l1"], "Hats");
    assert_eq!(items[0]["price"], 1.5);
    assert!((items[0]["score"].as_f64().unwrap() - 0.9).abs() < 1e-6);

    let latest = fixture.stub().latest.lock().unwrap();
    let (headers, request) = latest.as_ref().unwrap();
    assert_eq!(request.id, "order-7");
    let passed_on = headers["traceparent"].to_str().unwrap();
    assert!(passed_on.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed_on != trace);
    let inputs: Vec<&str> = request.inputs.iter().map(|input| &*input.name).collect();
    assert_eq!(inputs, ["user_id", "device_type", "timestamp"]);
    assert_eq!(request.raw_input_contents[0], 42_i32.to_le_bytes()[..]);
}

#[test]
fn what_is_left_out_is_a_guest_now() {
    let fixture = fixture();
    let json = fixture.get("/recommendations").json;
    assert_eq!(json["user_id"], -1);
    assert_eq!(json["device_type"], -1);
    assert!(json["timestamp"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(
        json["items"].as_array().unwrap().len(),
        9,
        "padding is no item"
    );
}

#[test]
fn a_wrong_value_is_named() {
    let fixture = fixture();
    for (query, field) in [
        ("user_id=abc", "user_id"),
        ("user_id=", "user_id"),
        ("user_id=4294967296", "user_id"),
        ("user_id=1&user_id=2", "user_id"),
        ("device_type=3", "device_type"),
        ("device_type=fridge", "device_type"),
        ("timestamp=-5", "timestamp"),
        ("timestamp=1.5", "timestamp"),
        ("k=0", "k"),
        ("k=101", "k"),
        ("user=1", "user"),
        ("user_id=%ff%00", "user_id"),
    ] {
        fixture
            .get(&format!("/recommendations?{query}"))
            .is_problem(400, Some(field));
    }
    assert_eq!(fixture.stub().asked(), 0);
    fixture.get("/nowhere").is_problem(404, None);
    let answer = fixture.ask("POST", "/recommendations", &[], "");
    answer.is_problem(405, None);
    assert_eq!(answer.header("allow"), "GET,HEAD");
}

#[test]
fn a_late_triton_is_stood_in_for_within_the_deadline() {
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.deadline = Duration::from_millis(80)
    });
    fixture.get("/recommendations?user_id=1");
    fixture.stub().delay(Duration::from_secs(5));
    let start = Instant::now();
    let answer = fixture.get("/recommendations?user_id=1&k=5");
    assert!(
        start.elapsed() < Duration::from_millis(400),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["degraded"], true);
    assert_eq!(answer.json["reason"], "triton_deadline");
    assert_eq!(answer.json["items"].as_array().unwrap().len(), 5);
    fixture.stub().delay(Duration::ZERO);
    fixture.until("/recommendations?user_id=1", |answer| {
        answer.json["release"] == "stub"
    });
    let metrics = fixture.get("/metrics").text;
    assert!(
        metrics.contains(r#"saker_gateway_degraded_total{reason="triton_deadline"}"#),
        "{metrics}"
    );
}

#[test]
fn a_triton_that_fails_is_not_waited_for() {
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.deadline = Duration::from_millis(100)
    });
    fixture.stub().delay(Duration::from_secs(5));
    for _ in 0..5 {
        fixture.get("/recommendations");
    }
    let asked = fixture.stub().asked();
    let start = Instant::now();
    for _ in 0..50 {
        let answer = fixture.get("/recommendations").json;
        assert_eq!(answer["reason"], "triton_deadline");
    }
    // Without a breaker these requests would wait five seconds.
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(fixture.stub().asked() - asked < 10);
    fixture.stub().delay(Duration::ZERO);
    fixture.until("/recommendations", |answer| {
        answer.json["release"] == "stub"
    });
}

#[test]
fn refusals_and_garbage_are_stood_in_for() {
    let fixture = fixture();
    for (mode, reason) in [
        (Mode::Refuse, "triton_error"),
        (Mode::Garbage, "triton_error"),
    ] {
        fixture.stub().set(mode);
        let answer = fixture.get("/recommendations");
        assert_eq!(
            (answer.status, &answer.json["degraded"]),
            (200, &true.into())
        );
        assert_eq!(answer.json["reason"], reason, "{mode:?}");
        fixture.stub().set(Mode::Answer);
        fixture.until("/recommendations", |answer| {
            answer.json["release"] == "stub"
        });
    }
}

#[test]
fn a_triton_that_comes_back_is_found() {
    let mut fixture = fixture();
    let answer = fixture.get("/health/ready");
    assert_eq!(
        (answer.status, &answer.json["triton"]["ready"]),
        (503, &true.into())
    );
    assert_eq!(answer.json["valkey"]["ready"], false);
    let triton = fixture.triton.take().unwrap();
    let port: u16 = triton.address.rsplit(':').next().unwrap().parse().unwrap();
    let stub = triton.stub.clone();
    drop(triton);
    let answer = fixture.until("/recommendations", |answer| {
        answer.json["release"].is_null()
    });
    assert_eq!(answer.json["degraded"], true);
    fixture.until("/health/ready", |answer| {
        answer.json["triton"]["ready"] == false
    });
    fixture.triton = Some(fixture.runtime.block_on(Triton::again(stub, port)));
    fixture.until("/recommendations", |answer| {
        answer.json["release"] == "stub"
    });
}

#[test]
fn more_than_triton_can_take_is_refused_at_once() {
    let fixture = Fixture::start(NO_STORE, |settings| {
        settings.max_in_flight = 2;
        settings.deadline = Duration::from_secs(5);
    });
    fixture.get("/recommendations");
    fixture.stub().delay(Duration::from_millis(800));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || {
            let start = Instant::now();
            let answer = fixture.get("/recommendations");
            if answer.status == 429 {
                answer.is_problem(429, None);
                assert_eq!(answer.header("retry-after"), "1");
                assert!(start.elapsed() < Duration::from_millis(400));
            }
            answer.status
        };
        let asking: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asking
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        2,
        "{statuses:?}"
    );
    assert!(
        fixture
            .get("/metrics")
            .text
            .contains("saker_gateway_shed_total 4")
    );
}

#[test]
fn a_new_catalogue_is_the_next_requests_and_not_that_of_one_under_way() {
    let mut fixture = Fixture::start(NO_STORE, |settings| {
        settings.deadline = Duration::from_secs(5);
    });
    fixture.get("/recommendations");
    fixture.stub().delay(Duration::from_millis(600));
    let asked = fixture.stub().asked();
    let under_way = std::thread::scope(|scope| {
        let under_way = scope.spawn(|| fixture.get("/recommendations").json);
        while fixture.stub().asked() == asked {
            std::thread::sleep(Duration::from_millis(5));
        }
        fixture
            .gateway
            .replace_catalogue(catalogue_of(2..=20, "New"));
        // The request uses the replaced catalogue until its end.
        under_way.join().unwrap()
    });
    assert_eq!(under_way["items"][0]["title"], "Item 1");
    assert_eq!(under_way["items"][1]["title"], "Item 2");
    fixture.stub().delay(Duration::ZERO);
    let next = fixture.get("/recommendations").json;
    assert_eq!(next["items"][0]["title"], serde_json::Value::Null);
    assert_eq!(next["items"][1]["title"], "New 2");
    assert_eq!(fixture.get("/items/1").status, 404);
    assert_eq!(fixture.get("/items/20").json["title"], "New 20");

    // Without Triton and without a store, the answer has the first items of the new catalogue.
    fixture.triton = None;
    let answer = fixture.until("/recommendations?k=3", |answer| {
        answer.json["degraded"] == true && answer.json["release"].is_null()
    });
    let ids = answer.json["items"].as_array().unwrap().iter();
    let ids: Vec<i64> = ids.map(|item| item["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [2, 3, 4]);
}

#[test]
fn the_document_and_the_pages_are_there() {
    let fixture = fixture();
    assert_eq!(fixture.get("/openapi.json").json["openapi"], "3.1.0");
    for path in [
        "/",
        "/operators",
        "/assets/style.css",
        "/health/live",
        "/status.json",
    ] {
        assert_eq!(fixture.get(path).status, 200, "{path}");
    }
    for path in [
        "/assets/../Cargo.toml",
        "/assets/none",
        "/pictures/1.png",
        "/pictures/..%2f..%2fetc%2fpasswd",
    ] {
        assert_eq!(fixture.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_request_under_way_is_finished_when_the_gateway_stops() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (triton, address, serving) = runtime.block_on(async {
        let triton = Triton::start().await;
        let store = saker_store::Settings::parse(NO_STORE, None).unwrap();
        let settings = saker_gateway::Settings {
            triton: triton.address.clone(),
            deadline: Duration::from_secs(5),
            ..saker_gateway::Settings::new(store)
        };
        let operations = std::sync::Arc::new(saker_gateway::Operation::default);
        let gateway =
            saker_gateway::Gateway::open(settings, support::catalogue(), operations).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving =
            tokio::spawn(
                async move { gateway.serve(listener, async { drop(stopped.await) }).await },
            );
        (triton, address, serving)
    });
    triton.stub.delay(Duration::from_millis(600));
    let url = format!("http://{address}/recommendations");
    let asked = std::thread::spawn(move || ureq::get(&url).call().unwrap().status().as_u16());
    while triton.stub.asked() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.send(()).unwrap();
    assert_eq!(asked.join().unwrap(), 200);
    let start = Instant::now();
    runtime.block_on(serving).unwrap().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(std::net::TcpStream::connect(address).is_err());
}
