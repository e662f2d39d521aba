//! Several Triton servers behind one gateway: load sharing, leaving and returning. tests/server/balance.rs kills real servers.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use saker_gateway::{Resolver, Settings};
use serde_json::Value;
use support::{Fixture, Mode, NO_STORE, Stub, Triton};

/// A gateway in front of several stubs, whose addresses one name resolves to.
struct Fleet {
    fixture: Fixture,
    more: Vec<Triton>,
    /// The addresses that the name resolves to.
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Fleet {
    fn start(count: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let addresses: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let answer = Arc::clone(&addresses);
        let fixture = Fixture::start(NO_STORE, |settings| {
            answer
                .lock()
                .unwrap()
                .push(settings.triton.parse().unwrap());
            settings.triton = "dns://triton.test:1".to_owned();
            settings.resolve_every = Duration::from_millis(50);
            settings.resolver = Resolver::new(move |name| {
                assert_eq!(name, "triton.test:1");
                Ok(answer.lock().unwrap().clone())
            });
            change(settings);
        });
        let mut fleet = Self {
            fixture,
            more: Vec::new(),
            addresses,
        };
        for _ in 1..count {
            fleet.join();
        }
        fleet.until_ready(count);
        fleet
    }

    /// Adds a stub to the name's addresses.
    fn join(&mut self) {
        let triton = self.fixture.runtime.block_on(Triton::start());
        let address = triton.address.parse().unwrap();
        self.addresses.lock().unwrap().push(address);
        self.more.push(triton);
    }

    fn stubs(&self) -> Vec<&Stub> {
        let more = self.more.iter().map(|triton| &*triton.stub);
        std::iter::once(self.fixture.stub()).chain(more).collect()
    }

    fn servers(&self) -> Vec<Value> {
        let status = self.fixture.get("/status.json").json;
        status["triton"]["servers"].as_array().unwrap().clone()
    }

    fn until_ready(&self, count: usize) {
        self.fixture.until("/status.json", |answer| {
            let servers = answer.json["triton"]["servers"].as_array().unwrap();
            servers
                .iter()
                .filter(|server| server["state"] == "ready")
                .count()
                == count
        });
    }

    /// Sends this many requests in several threads; returns how many answers did not come from Triton.
    fn ask(&self, count: usize) -> usize {
        const CLIENTS: usize = 4;
        let missed = |_| {
            let mut missed = 0;
            for _ in 0..count / CLIENTS {
                let answer = self.fixture.get("/recommendations");
                assert_eq!(answer.status, 200, "{}", answer.text);
                missed += usize::from(answer.json["release"] != "stub");
            }
            missed
        };
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(move || missed(client)))
                .collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).sum()
        })
    }

    /// Number of requests that each stub received during `work`.
    fn shares(&self, work: impl FnOnce()) -> Vec<usize> {
        let asked = || -> Vec<usize> { self.stubs().iter().map(|stub| stub.asked()).collect() };
        let before = asked();
        work();
        let of = |(after, before): (usize, &usize)| after - before;
        asked().into_iter().zip(&before).map(of).collect()
    }
}

#[test]
fn requests_are_shared_and_servers_come_and_go() {
    let mut fleet = Fleet::start(3, |_| ());
    let shares = fleet.shares(|| assert_eq!(fleet.ask(3000), 0));
    assert!(
        shares.iter().all(|share| (840..=1170).contains(share)),
        "{shares:?}"
    );
    let metrics = fleet.fixture.get("/metrics").text;
    let series = |address: &str| {
        let requests =
            format!("saker_gateway_triton_server_requests_total{{server=\"{address}\"}}");
        let metrics = fleet.fixture.get("/metrics").text;
        metrics.lines().any(|line| line.starts_with(&requests))
    };
    assert!(
        metrics.contains("saker_gateway_triton_servers{state=\"ready\"} 3"),
        "{metrics}"
    );
    assert!(
        metrics.contains("saker_gateway_triton_servers{state=\"left\"} 0"),
        "{metrics}"
    );
    let gone = fleet.addresses.lock().unwrap().pop().unwrap().to_string();
    assert!(series(&gone), "{metrics}");

    fleet.until_ready(2);
    assert!(!series(&gone), "the series of a server that is gone");
    let shares = fleet.shares(|| assert_eq!(fleet.ask(400), 0));
    assert!(
        shares[2] == 0 && shares[0] > 100 && shares[1] > 100,
        "{shares:?}"
    );

    fleet.join();
    let joined = Instant::now();
    fleet.until_ready(3);
    assert!(joined.elapsed() < Duration::from_secs(10));
    let shares = fleet.shares(|| assert_eq!(fleet.ask(400), 0));
    assert!(shares[3] > 70, "{shares:?}");
    // A failed resolution keeps the known servers.
    fleet.addresses.lock().unwrap().clear();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fleet.ask(40), 0);
    assert_eq!(fleet.servers().len(), 3);
}

#[test]
fn a_server_that_cannot_answer_leaves_and_returns() {
    let fleet = Fleet::start(3, |_| ());
    for mode in [Mode::Unavailable, Mode::Missing] {
        let shares = fleet.shares(|| {
            fleet.stubs()[1].set(mode);
            assert_eq!(fleet.ask(400), 0, "{mode:?}");
        });
        assert!(shares[1] < 20, "{mode:?}: {shares:?}");
        fleet.until_ready(2);
        let metrics = fleet.fixture.get("/metrics").text;
        assert!(
            metrics.contains("saker_gateway_triton_servers{state=\"left\"} 1"),
            "{metrics}"
        );
        fleet.stubs()[1].set(Mode::Answer);
        fleet.until_ready(3);
    }
    // An invalid request or a full queue does not remove a server.
    fleet.stubs()[1].set(Mode::Full);
    assert_eq!(fleet.ask(200), 0);
    fleet.stubs()[1].set(Mode::Refuse);
    assert!(fleet.ask(200) > 20);
    fleet.until_ready(3);
}

#[test]
fn a_server_that_hangs_costs_few_requests_and_opens_no_breaker() {
    let fleet = Fleet::start(3, |settings| settings.deadline = Duration::from_millis(500));
    fleet.stubs()[2].delay(Duration::from_secs(30));
    // The server reports itself as ready, so it is tried again from time to time.
    let missed = fleet.ask(2000);
    assert!((1..=12).contains(&missed), "{missed}");
    let ready = fleet.fixture.get("/health/ready").json;
    assert_eq!(ready["triton"]["ready"], true, "{ready}");
}

#[test]
fn another_server_is_asked_within_the_deadline() {
    let fleet = Fleet::start(2, |settings| settings.deadline = Duration::from_millis(600));
    for stub in fleet.stubs() {
        stub.set(Mode::Full);
        stub.delay(Duration::from_millis(400));
    }
    let start = Instant::now();
    let answer = fleet.fixture.get("/recommendations").json;
    let took = start.elapsed();
    assert_eq!(answer["reason"], "triton_deadline", "{answer}");
    let expected = Duration::from_millis(590)..Duration::from_millis(1000);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn the_breaker_opens_when_no_server_answers() {
    let fleet = Fleet::start(3, |settings| settings.deadline = Duration::from_millis(100));
    for stub in fleet.stubs() {
        stub.delay(Duration::from_secs(30));
    }
    assert_eq!(fleet.ask(48), 48);
    let start = Instant::now();
    let shares = fleet.shares(|| assert_eq!(fleet.ask(400), 400));
    // Without a breaker these requests would wait ten seconds.
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(shares.iter().sum::<usize>() < 20, "{shares:?}");
    for stub in fleet.stubs() {
        stub.delay(Duration::ZERO);
    }
    fleet.until_ready(3);
    assert_eq!(fleet.ask(40), 0);
}

#[test]
fn addresses_are_checked() {
    let store = saker_store::Settings::parse(NO_STORE, None).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let open = |triton: &str| {
        let settings = Settings {
            triton: triton.to_owned(),
            ..Settings::new(store.clone())
        };
        let operations = Arc::new(saker_gateway::Operation::default);
        saker_gateway::Gateway::open(settings, support::catalogue(), operations).map(drop)
    };
    assert!(open("127.0.0.1:1,dns://localhost:1").is_ok());
    let error = open("127.0.0.1:1,dns://localhost").unwrap_err().to_string();
    assert!(
        error.contains("dns://localhost") && error.contains("accepted is"),
        "{error}"
    );
}
