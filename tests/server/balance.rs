//! Three real Tritons behind one gateway: they share the load, one is killed under it, and another one joins.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use saker_gateway::Resolver;
use serde_json::Value;
use triton_testing::server::TritonServer;

use crate::support::{gateway::Served, golden::Golden};

const CLIENTS: usize = 4;
/// A machine whose cores other work takes is slow, and that is not what is tested.
const DEADLINE: Duration = Duration::from_secs(3);

fn address(server: &TritonServer) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.grpc_port))
}

struct Shop(Served);

impl Shop {
    /// A gateway before the servers that a name stands for, which it asks for every 5 s.
    fn start(golden: &Golden, addresses: &Arc<Mutex<Vec<SocketAddr>>>) -> Self {
        let answer = Arc::clone(addresses);
        Self(Served::start(golden, Duration::from_secs(20), |settings| {
            settings.triton = "dns://triton.shop:8001".to_owned();
            settings.resolver = Resolver::new(move |name| {
                assert_eq!(name, "triton.shop:8001");
                Ok(answer.lock().expect("addresses").clone())
            });
            settings.deadline = DEADLINE;
        }))
    }

    fn get(&self, path: &str) -> Value {
        let asked = self.0.agent.get(format!("{}{path}", self.0.url)).call();
        asked
            .expect("an answer")
            .body_mut()
            .read_json()
            .expect("JSON")
    }

    /// Every server's state and how many requests it got.
    fn servers(&self) -> Vec<(SocketAddr, String, u64)> {
        let status = self.get("/status.json");
        let servers = status["triton"]["servers"]
            .as_array()
            .expect("servers")
            .iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        servers
            .map(|server| {
                let address = text(&server["address"]).parse().expect("an address");
                (
                    address,
                    text(&server["state"]),
                    server["requests"].as_u64().expect("a number"),
                )
            })
            .collect()
    }

    fn until_ready(&self, count: usize) {
        let start = Instant::now();
        while self
            .servers()
            .iter()
            .filter(|server| server.1 == "ready")
            .count()
            != count
        {
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(20), "{:?}", self.servers());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks for recommendations so often, and does `meanwhile` when half of them are answered; how many were degraded.
    fn ask(&self, count: usize, meanwhile: impl FnOnce()) -> usize {
        let (answered, degraded) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (answered, degraded) = (&answered, &degraded);
                scope.spawn(move || {
                    for user in 0..count / CLIENTS {
                        let user = 1 + (CLIENTS * user + client) % 30;
                        let answer = self.get(&format!("/recommendations?user_id={user}"));
                        degraded
                            .fetch_add(usize::from(answer["degraded"] != false), Ordering::Relaxed);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while answered.load(Ordering::Relaxed) < count / 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
            meanwhile();
        });
        degraded.into_inner()
    }
}

#[test]
fn three_tritons_share_the_load_and_one_may_die() {
    const REQUESTS: usize = 3000;
    let golden = Golden::start(2000);
    let (second, third) = (golden.another(&[]), golden.another(&[]));
    let servers = [&golden.server, &second, &third].map(address);
    let addresses = Arc::new(Mutex::new(servers.to_vec()));
    let served = Shop::start(&golden, &addresses);
    served.until_ready(3);
    let before = served.servers();
    assert_eq!(served.ask(REQUESTS, || ()), 0);
    let shares: Vec<u64> = served
        .servers()
        .iter()
        .zip(before)
        .map(|(after, before)| after.2 - before.2)
        .collect();
    println!("shares of {REQUESTS}: {shares:?}");
    for share in &shares {
        let percent = 100.0 * *share as f64 / REQUESTS as f64;
        assert!((28.0..=39.0).contains(&percent), "{shares:?}");
    }

    let degraded = served.ask(REQUESTS, || third.kill());
    println!("{degraded} of {REQUESTS} degraded when one was killed");
    assert!(degraded * 1000 < REQUESTS, "{degraded}");
    let left = |served: &Shop| {
        let servers = served.servers().into_iter();
        let left = servers.filter(|server| server.1 == "left");
        left.map(|server| server.0).collect::<Vec<_>>()
    };
    assert_eq!(left(&served), [address(&third)]);

    let fourth = golden.another(&[]);
    *addresses.lock().expect("addresses") = vec![servers[0], servers[1], address(&fourth)];
    let joined = Instant::now();
    let used = || {
        let servers = served.servers().into_iter();
        let of_fourth = servers.filter(|server| server.0 == address(&fourth));
        of_fourth.map(|server| server.2).sum::<u64>()
    };
    while used() == 0 {
        assert_eq!(served.ask(8, || ()), 0);
        assert!(
            joined.elapsed() < Duration::from_secs(10),
            "{:?}",
            served.servers()
        );
    }
    println!("the fourth was used after {:?}", joined.elapsed());
    // Who is no longer among the addresses is no longer a server, and its series are gone.
    assert_eq!(served.servers().len(), 3);
    assert_eq!(left(&served), []);
}
