//! Measures the latency that the gateway adds to Triton's, and its throughput in requests per second.
//!
//! ```text
//! cargo run --release -p saker-gateway --example load -- [SECONDS] [STUB_MS]
//! cargo run --release -p saker-gateway --example load -- [SECONDS] --gateway HOST:PORT
//! ```
//!
//! With `--gateway` the program sends requests to a running gateway, for users 1 to 1000 in turn. Degraded answers count as errors.
//!
//! Without it, a stub in this process replaces Triton: it answers ten items after STUB_MS (default 5). The gateway's own gRPC client calls
//! the stub directly and through the gateway, in a closed loop, at several concurrencies. Client, gateway and stub share the machine's
//! cores. In the last rows the stub answers at once, which shows the limit of the CPU.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use saker_gateway::{Gateway, Settings};
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
    let runtime = Runtime::new()?;
    let second = words.next();
    if second.as_deref() == Some("--gateway") {
        let address = words.next().ok_or("--gateway needs HOST:PORT")?.parse()?;
        return runtime.block_on(running(address, Duration::from_secs(seconds)));
    }
    let delay_ms: u64 = second.map_or(Ok(5), |word| word.parse())?;
    runtime.block_on(measure(
        Duration::from_secs(seconds),
        Duration::from_millis(delay_ms),
    ))
}

async fn running(address: SocketAddr, time: Duration) -> Result<(), Error> {
    header();
    for clients in [1, 4, 16] {
        let latencies = drive(address, clients, time, b"\"degraded\":false").await?;
        row("the gateway", "–", clients, latencies, time);
    }
    Ok(())
}

fn header() {
    println!(
        "{:>12} {:>11} {:>8} {:>11} {:>10} {:>10} {:>10}",
        "asked", "connections", "clients", "requests/s", "p50 ms", "p99 ms", "max ms"
    );
}

async fn measure(time: Duration, delay: Duration) -> Result<(), Error> {
    header();
    for (delay, concurrencies) in [(delay, &[1, 16, 64][..]), (Duration::ZERO, &[16, 64][..])] {
        let triton = support::Triton::start().await;
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
            row("the stub", "1", clients, latencies, time);

            for connections in [1, 4] {
                let latencies =
                    through_gateway(&triton.address, connections, clients, time).await?;
                row(
                    "the gateway",
                    &connections.to_string(),
                    clients,
                    latencies,
                    time,
                );
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
    let gateway = Gateway::open(
        settings,
        support::catalogue(),
        Arc::new(saker_gateway::Operation::default),
    )?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving =
        tokio::spawn(async move { gateway.serve(listener, std::future::pending()).await });
    // Without a store every answer is marked as degraded; the stub's answers carry its release.
    let latencies = drive(address, clients, time, b"\"release\":\"stub\"").await;
    serving.abort();
    latencies
}

/// Runs a closed loop with this many clients; an answer without `wanted` is an error.
async fn drive(
    address: SocketAddr,
    clients: usize,
    time: Duration,
    wanted: &'static [u8],
) -> Result<Vec<Duration>, Error> {
    let mut tasks = Vec::new();
    for client in 0..clients {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            let start = Instant::now();
            let mut user = 1000 * client / clients;
            while start.elapsed() < time {
                let asked = Instant::now();
                user = user % 1000 + 1;
                ask_http(&mut stream, user, wanted).await?;
                latencies.push(asked.elapsed());
            }
            Ok::<_, Error>(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(latencies)
}

/// Sends one request on an open connection. The client is minimal, so the measurement covers the gateway.
async fn ask_http(stream: &mut TcpStream, user: usize, wanted: &[u8]) -> Result<(), Error> {
    let path = format!("/recommendations?user_id={user}&device_type=1&k=10");
    let request = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
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
            // An answer that Triton did not compute would make the latency look too good.
            return match answer.windows(wanted.len()).any(|bytes| bytes == wanted) {
                true => Ok(()),
                false => Err("the answer does not come from Triton".into()),
            };
        }
    }
}

fn row(
    asked: &str,
    connections: &str,
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
