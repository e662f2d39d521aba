//! What the gateway adds to Triton's latency, and how many requests a second it takes.
//!
//! ```text
//! cargo run --release -p saker-gateway --example load -- [SECONDS] [STUB_MS]
//! ```
//!
//! A Triton is stood in for by a server in this process that answers ten items after STUB_MS (default 5). It is asked by the
//! gateway's own gRPC client, alone and through the gateway, in a closed loop at several concurrencies; client, gateway and
//! stub share the machine's cores. The last rows let the stub answer at once, to see where the cores end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use saker_gateway::{Gateway, Settings};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use triton_client::Tensor;
use triton_client::grpc::{Call, Client};

#[path = "../tests/support/mod.rs"]
mod support;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let seconds: u64 = words.next().map_or(Ok(5), |word| word.parse())?;
    let delay_ms: u64 = words.next().map_or(Ok(5), |word| word.parse())?;
    let runtime = Runtime::new()?;
    runtime.block_on(measure(
        Duration::from_secs(seconds),
        Duration::from_millis(delay_ms),
    ))
}

async fn measure(time: Duration, delay: Duration) -> Result<(), Error> {
    println!(
        "{:>12} {:>11} {:>8} {:>11} {:>10} {:>10} {:>10}",
        "asked", "connections", "clients", "requests/s", "p50 ms", "p99 ms", "max ms"
    );
    for (delay, concurrencies) in [(delay, &[1, 16, 64][..]), (Duration::ZERO, &[16, 64][..])] {
        let triton = support::Triton::start(0).await;
        triton.stub.delay(delay);
        println!("the stub answers after {} ms", delay.as_millis());
        for &clients in concurrencies {
            let direct = Client::new(&triton.address)?;
            let mut latencies = Vec::new();
            let mut tasks = Vec::new();
            for _ in 0..clients {
                let client = direct.clone();
                tasks.push(tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    let start = Instant::now();
                    while start.elapsed() < time {
                        let asked = Instant::now();
                        let inputs = vec![Tensor::int32("user_id", &[42])];
                        let call = Call::default();
                        client.infer("ensemble_model", inputs, &[], call).await?;
                        latencies.push(asked.elapsed());
                    }
                    Ok::<_, Error>(latencies)
                }));
            }
            for task in tasks {
                latencies.extend(task.await??);
            }
            row("the stub", 1, clients, latencies, time);

            for connections in [1, 4] {
                let latencies =
                    through_gateway(&triton.address, connections, clients, time).await?;
                row("the gateway", connections, clients, latencies, time);
            }
        }
    }
    Ok(())
}

async fn through_gateway(
    triton: &str,
    connections: usize,
    clients: usize,
    time: Duration,
) -> Result<Vec<Duration>, Error> {
    let store = saker_store::Settings::parse(support::NO_STORE, None)?;
    let settings = Settings {
        triton: triton.to_owned(),
        connections,
        deadline: Duration::from_secs(5),
        max_in_flight: 1024,
        ..Settings::new(store)
    };
    let gateway = Gateway::open(settings, support::catalogue(), Arc::new(|| json!([])))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving =
        tokio::spawn(async move { gateway.serve(listener, std::future::pending()).await });
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            let start = Instant::now();
            while start.elapsed() < time {
                let asked = Instant::now();
                ask_http(&mut stream).await?;
                latencies.push(asked.elapsed());
            }
            Ok::<_, Error>(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    serving.abort();
    Ok(latencies)
}

/// One request on a kept connection; a client as small as can be, so that the gateway is what is measured.
async fn ask_http(stream: &mut TcpStream) -> Result<(), Error> {
    stream
        .write_all(
            b"GET /recommendations?user_id=42&device_type=1&k=10 HTTP/1.1\r\nhost: gateway\r\n\r\n",
        )
        .await?;
    let mut answer = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the gateway closed the connection".into());
        }
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&answer[..end])?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(head.to_owned().into());
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .ok_or("no content-length")?;
        if answer.len() >= end + 4 + length.parse::<usize>()? {
            // An answer that Triton did not give would flatter.
            return match is_stubs(&answer) {
                true => Ok(()),
                false => Err("a degraded answer".into()),
            };
        }
    }
}

/// Without a store every answer is marked as degraded; those of the stub carry its release.
fn is_stubs(answer: &[u8]) -> bool {
    answer
        .windows(16)
        .any(|bytes| bytes == b"\"release\":\"stub\"")
}

fn row(
    asked: &str,
    connections: usize,
    clients: usize,
    mut latencies: Vec<Duration>,
    time: Duration,
) {
    latencies.sort_unstable();
    let ms = |quantile: f64| {
        let place = (quantile * latencies.len() as f64).ceil() as usize;
        let latency = latencies.get(place.saturating_sub(1)).copied();
        latency.unwrap_or_default().as_secs_f64() * 1e3
    };
    println!(
        "{asked:>12} {connections:>11} {clients:>8} {:>11.0} {:>10.3} {:>10.3} {:>10.3}",
        latencies.len() as f64 / time.as_secs_f64(),
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
}
