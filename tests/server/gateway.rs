//! The gateway before a real Triton and a real Valkey: the program from a prepared shop to an answer, and what happens when
//! either of them dies.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::pipeline::Shop;

/// A served shop with a gateway; the gateway ends with it.
pub(crate) struct Fixture {
    gateway: Child,
    pub(crate) url: String,
    agent: ureq::Agent,
    shop: Shop,
}

impl Fixture {
    pub(crate) fn start() -> Self {
        let shop = Shop::new().assembled();
        shop.done(&["serve", "tiny", "--detach"]);
        let (gateway, [url]) = gateway(&shop, &[]);
        let agent = ureq::Agent::config_builder()
            // The gateway closes a connection that asks nothing for 30 s; a busy machine makes a test wait longer.
            .max_idle_connections(0)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let fixture = Self {
            gateway,
            url,
            agent,
            shop,
        };
        fixture.until("/health/ready", |answer| answer["ready"] == true);
        fixture
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body.map_or_else(String::new, |body| body.to_string()))
            .expect("a request");
        let mut response = self.agent.run(request).expect("an answer");
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn until(&self, path: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let (_, answer) = self.ask("GET", path, None);
            if wished(&answer) {
                return answer;
            }
            let patience = Duration::from_secs(30);
            assert!(start.elapsed() < patience, "{path} stays {answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Starts a gateway, and gives the addresses that it prints.
fn gateway<const N: usize>(shop: &Shop, options: &[&str]) -> (Child, [String; N]) {
    let mut gateway = shop
        .command(&[&["gateway", "tiny", "--listen", "127.0.0.1:0"], options].concat())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the gateway starts");
    let lines = BufReader::new(gateway.stdout.take().expect("its output")).lines();
    let mut urls = lines.map_while(Result::ok).filter_map(|line| {
        let (_, address) = line.split_once("http://")?;
        Some(format!("http://{}", address.split('/').next()?))
    });
    let urls = std::array::from_fn(|_| urls.next().expect("it says where it listens"));
    (gateway, urls)
}

/// Tells a gateway to stop, and waits until it has; how long it took.
fn stop(gateway: &mut Child) -> Duration {
    let id = rustix::process::Pid::from_child(gateway);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
    let start = Instant::now();
    loop {
        if let Some(status) = gateway.try_wait().expect("its status") {
            assert!(status.success(), "{status}");
            return start.elapsed();
        }
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "it does not stop"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Visitors ask until a load balancer sees that the gateway is not ready any more. None of their requests is lost.
fn it_stops_under_load(fixture: &Fixture) {
    let (mut gateway, [url]) = gateway(&fixture.shop, &["--drain", "1.5"]);
    let status = |path: &str| {
        let asked = fixture.agent.get(format!("{url}{path}")).call();
        asked.expect("an answer").status().as_u16()
    };
    while status("/health/ready") != 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let balanced = AtomicBool::new(true);
    let answered: Vec<u32> = std::thread::scope(|scope| {
        let visit = || {
            let mut answered = 0;
            while balanced.load(Ordering::Relaxed) {
                assert_eq!(status("/recommendations?user_id=7&k=3"), 200);
                answered += 1;
            }
            answered
        };
        let visitors: Vec<_> = (0..6).map(|_| scope.spawn(visit)).collect();
        std::thread::sleep(Duration::from_millis(500));
        let id = rustix::process::Pid::from_child(&gateway);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
        while status("/health/ready") == 200 {
            std::thread::sleep(Duration::from_millis(20));
        }
        balanced.store(false, Ordering::Relaxed);
        let visited = visitors.into_iter();
        visited
            .map(|visitor| visitor.join().expect("no lost request"))
            .collect()
    });
    assert!(answered.iter().all(|count| *count > 2), "{answered:?}");
    let status = gateway.wait().expect("its status");
    assert!(status.success(), "{status}");
}

/// What a gateway's options say of who may ask, and of how it stops.
fn options_are_heeded(fixture: &Fixture) {
    let keys = fixture.shop.folder.path().join("keys");
    std::fs::write(&keys, "shop 0123456789abcdef 100 read,events\n").expect("a file");
    let keys = keys.to_str().expect("a path");
    let options = [
        "--admin-listen",
        "127.0.0.1:0",
        "--host",
        "shop.example,www.shop.example",
        "--connections-per-address",
        "40",
        "--known-events",
        "1000",
        "--drain",
        "1.5",
        "--api-key-file",
        keys,
    ];
    let (mut gateway, [shop, operators]) = gateway(&fixture.shop, &options);
    let status = |url: &str, path: &str, host: &str, key: &str| {
        let request = fixture.agent.get(format!("{url}{path}"));
        let request = request.header("host", host).header("x-api-key", key);
        request.call().expect("an answer").status().as_u16()
    };
    let key = "0123456789abcdef";
    assert_eq!(status(&shop, "/metrics", "localhost", ""), 404);
    assert_eq!(status(&operators, "/metrics", "localhost", ""), 200);
    assert_eq!(status(&shop, "/popular", "www.shop.example", key), 200);
    assert_eq!(status(&shop, "/popular", "evil.example", key), 421);
    assert_eq!(status(&shop, "/popular", "localhost", ""), 401);
    assert_eq!(status(&operators, "/explain", "localhost", key), 403);
    let drained = stop(&mut gateway);
    assert!(drained >= Duration::from_millis(1400), "{drained:?}");
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

#[test]
fn a_visitor_is_answered_whatever_dies() {
    let mut fixture = Fixture::start();
    let path = "/recommendations?user_id=7&timestamp=1700003600&k=3";
    let answer = fixture.get(path);
    assert_eq!(answer["degraded"], false);
    assert!(
        answer["release"]
            .as_str()
            .is_some_and(|release| release.starts_with("tiny-"))
    );
    let items = answer["items"].as_array().expect("items");
    assert_eq!(items.len(), 3);
    assert!(
        items[0]["title"]
            .as_str()
            .is_some_and(|title| title.starts_with("Item number"))
    );
    assert!(items[0]["categories"]["category_l1"].is_string());
    let best = items[0]["id"].clone();

    // Triton's own client is answered the same.
    let text = fixture.shop.done(&[
        "recommend",
        "tiny",
        "--user",
        "7",
        "--time",
        "1700003600",
        "--json",
    ]);
    let direct: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(direct["items"][0]["id"], best);

    let event = json!({"event_id": "e-1", "user_id": 7, "item_id": best, "type": "cart"});
    let (status, answer) = fixture.ask("POST", "/events", Some(event.clone()));
    assert_eq!((status, &answer["accepted"]), (202, &json!(1)), "{answer}");
    let (_, answer) = fixture.ask("POST", "/events", Some(event));
    assert_eq!(answer["duplicates"], 1);

    let user = fixture.get("/users/7");
    assert_eq!(
        (&user["known"], &user["features"]["age"]),
        (&json!(true), &json!(25))
    );
    assert_eq!(fixture.ask("DELETE", "/users/7/seen", None).0, 204);

    let explained = fixture.get(&format!(
        "/explain?user_id=7&timestamp=1700003600&k=3&item_id={best}"
    ));
    assert_eq!(
        explained["asked"]["verdict"], "shown",
        "{}",
        explained["asked"]
    );
    assert_eq!(explained["asked"]["rank"], 1);
    assert_eq!(explained["items"][0]["id"], best);
    let stages = explained["stages"].as_array().expect("stages");
    assert_eq!(stages.len(), 14, "{stages:?}");
    let retrieval = stages
        .iter()
        .find(|stage| stage["backend"] == "faiss_retrieval");
    assert_eq!(retrieval.expect("retrieval")["items_out"], 20);
    assert_eq!(explained["user_features"]["raw"]["age"], 25);
    assert!(explained["user_features"]["encoded"]["age_norm"].is_number());
    let unknown = fixture.get("/explain?user_id=7&item_id=4000");
    assert_eq!(unknown["asked"]["verdict"], "unknown item");

    let status = fixture.get("/status.json");
    assert_eq!(status["releases"][0]["state"], "serving");
    assert!(
        status["steps"]
            .as_array()
            .is_some_and(|steps| steps.len() >= 14)
    );
    assert_eq!(
        fixture.get("/popular?k=2")["items"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );

    options_are_heeded(&fixture);
    it_stops_under_load(&fixture);

    // Without the store, Triton answers as for a newcomer.
    fixture.shop.valkey.kill();
    let answer = fixture.until(path, |answer| answer["degraded"] == true);
    assert_eq!(answer["reason"], "store_unreachable");
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(3));
    fixture.shop.valkey.restart().expect("a restart");
    fixture.until(path, |answer| answer["degraded"] == false);

    // Without Triton, popular items are shown.
    fixture.shop.done(&["stop", "tiny"]);
    let answer = fixture.until(path, |answer| answer["degraded"] == true);
    assert_eq!(answer["release"], Value::Null);
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(fixture.ask("GET", "/explain?user_id=7", None).0, 503);
    assert_eq!(fixture.ask("GET", "/health/ready", None).0, 503);
    fixture.shop.done(&["serve", "tiny", "--detach"]);
    fixture.until(path, |answer| answer["degraded"] == false);

    // Told to stop, it ends by itself.
    stop(&mut fixture.gateway);
}
