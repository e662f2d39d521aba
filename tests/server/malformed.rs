//! Malformed and odd requests beside valid ones, over HTTP (JSON and binary) and gRPC, to both ensembles and to every step.
//!
//! Every request must be answered, every valid one with its right answer, and the server must neither end nor grow. Three ways to
//! end Triton 2.51 are left out, since no backend sees them (docs/security.md): a body sent in hundreds of thousands of chunks, a
//! JSON tensor whose shape has billions of elements, and a gRPC call that its client cancels.
//!
//! `scripts/test` runs this for two minutes; `scripts/fuzz --server` sends 200,000 requests over each protocol.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpStream,
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use saker_testing::runtime;
use serde_json::{Value, json};
use triton_client::{Tensor, Triton, grpc, steps::explain};
use triton_testing::server::TritonServer;

use crate::pipeline::{Shop, USERS, write_shop};
use crate::support::number;

const ENSEMBLES: [&str; 2] = ["ensemble_model", "ensemble_fused"];
/// Clients of each protocol.
const CLIENTS: usize = 3;
/// No request waits longer; the slowest honest one takes milliseconds.
const ANSWERED: Duration = Duration::from_secs(20);
/// By how much the server may grow after the first two fifths, as a part of its resident memory.
const GROWTH: f64 = 0.05;

/// The tiny shop, whose requests may name a device, too.
fn shop() -> Shop {
    let shop = Shop::of(|folder: &Path| {
        write_shop(folder);
        let edit = |file: &str, change: &dyn Fn(usize, &str) -> String| {
            let path = folder.join(file);
            let text = fs::read_to_string(&path).expect("the shop's file");
            let lines = text.lines().enumerate();
            let lines: Vec<String> = lines.map(|(place, line)| change(place, line)).collect();
            fs::write(&path, lines.join("\n") + "\n").expect("the changed file");
        };
        edit("events.inter", &|place, line| match place {
            0 => format!("{line}\tdevice_type:token"),
            _ => format!("{line}\t{}", place % 3),
        });
        edit("pipeline.toml", &|_, line| {
            let column = "{ name = \"device_type\" }";
            match line.strip_prefix("columns = [{ name = \"timestamp\"") {
                Some(rest) => format!("columns = [{column}, {{ name = \"timestamp\"{rest}"),
                None => line.to_owned(),
            }
        });
        let definition = fs::OpenOptions::new()
            .append(true)
            .open(folder.join("pipeline.toml"));
        // The answers under load are compared: none may be a stranger's because the machine is busy.
        writeln!(
            definition.expect("the definition"),
            "deadline_ms = 5000\n\n[[context.features]]\nname = \"device\"\ncolumns = [\"device_type\"]\n\
             operators = [{{ op = \"Categorify\" }}]"
        )
        .expect("more lines");
    });
    shop.assembled()
}

/// A request that a model accepts.
#[derive(Clone)]
struct Good {
    model: String,
    inputs: Vec<Tensor>,
    /// What the model answers, by tensor; empty where the request is only the seed of odd ones.
    outputs: BTreeMap<String, Tensor>,
}

fn by_name(tensors: Vec<Tensor>) -> BTreeMap<String, Tensor> {
    let named = tensors.into_iter();
    named.map(|tensor| (tensor.name.clone(), tensor)).collect()
}

/// Requests to the ensembles with their answers, and requests to each step.
fn good_requests(triton: &Triton) -> Vec<Good> {
    let mut all = Vec::new();
    for user in 0..USERS as i32 + 3 {
        let time = 1_700_000_000 + user % 24 * 3600;
        let mut inputs = vec![
            Tensor::int32("user_id", &[user]),
            Tensor::int32("timestamp", &[time]),
        ];
        if user % 3 != 0 {
            inputs.push(Tensor::int32("device_type", &[user % 3]));
        }
        if user % 10 == 0 {
            inputs[0] = Tensor::int32("user_id", &[user, -1, user + 1]);
        }
        for model in ENSEMBLES {
            let outputs = triton.infer(model, &inputs).expect("a valid request");
            all.push(Good {
                model: model.to_owned(),
                inputs: inputs.clone(),
                outputs: by_name(outputs),
            });
        }
    }
    let request = [
        Tensor::int32("user_id", &[7]),
        Tensor::int32("device_type", &[1]),
        Tensor::int32("timestamp", &[1_700_000_000]),
    ];
    for model in ENSEMBLES {
        let explained = explain(triton, model, &request).expect("every step's tensors");
        all.extend(explained.steps.into_iter().map(|step| Good {
            model: step.model,
            inputs: step.inputs,
            outputs: BTreeMap::new(),
        }));
    }
    all
}

/// A request as it goes over the wire, right or wrong.
#[derive(Clone)]
struct Odd {
    model: String,
    version: String,
    inputs: Vec<Tensor>,
    outputs: Vec<String>,
}

const TYPES: [&str; 8] = [
    "INT32", "FP32", "INT64", "UINT8", "BOOL", "BYTES", "FP16", "",
];

/// Elements that a shape may promise: for one in JSON, Triton reserves and fills that much before it reads the data.
const LARGEST: u64 = 1 << 20;

/// A length that a tensor does not have.
fn length(random: &mut StdRng) -> i64 {
    [0, 1, 2, 3, 5, 17, 300, 4000, -1, -2, i64::from(i16::MAX)][random.random_range(0..11)]
}

fn integers(random: &mut StdRng, count: usize) -> Vec<u8> {
    const EDGES: [i32; 8] = [0, -1, 1, i32::MIN, i32::MAX, 7, 1 << 24, -300];
    let value = |random: &mut StdRng| match random.random_range(0..3) {
        0 => random.random(),
        _ => EDGES[random.random_range(0..EDGES.len())],
    };
    let values = (0..count).map(|_| value(random));
    values.flat_map(i32::to_le_bytes).collect()
}

/// Makes one to three changes to a request.
fn odd(random: &mut StdRng, good: &Good) -> Odd {
    let mut odd = Odd {
        model: good.model.clone(),
        version: String::new(),
        inputs: good.inputs.clone(),
        outputs: Vec::new(),
    };
    // The request of the first report: one user, two devices, three times.
    if ENSEMBLES.contains(&good.model.as_str()) && random.random_range(0..4) == 0 {
        odd.inputs = vec![
            Tensor::int32("user_id", &[1]),
            Tensor::int32("device_type", &[0, 1]),
            Tensor::int32("timestamp", &[1, 2, 3]),
        ];
        return odd;
    }
    for _ in 0..random.random_range(1..=3) {
        change(random, &mut odd);
    }
    for input in &mut odd.inputs {
        let elements = input.shape.iter().map(|dim| dim.unsigned_abs());
        if elements.fold(1, u64::saturating_mul) > LARGEST {
            input.shape = vec![i64::from(i16::MAX)];
        }
    }
    odd
}

fn change(random: &mut StdRng, odd: &mut Odd) {
    let kind = random.random_range(0..14);
    let place = random.random_range(0..odd.inputs.len().max(1));
    let Some(input) = odd.inputs.get_mut(place) else {
        odd.inputs.push(Tensor::int32("user_id", &[1]));
        return;
    };
    match kind {
        0 => drop(odd.inputs.remove(place)),
        1 => input.name.push('_'),
        2 => input.data_type = TYPES[random.random_range(0..TYPES.len())].to_owned(),
        3 => input.shape.push(length(random)),
        4 => input.shape.clear(),
        5 => input.shape[..]
            .iter_mut()
            .for_each(|dim| *dim = length(random)),
        6 => drop(input.data.pop()),
        7 => input.data.extend([1, 2, 3, 4, 5]),
        8 => input.data.clear(),
        // As many elements as it says, of any values: not a number, infinite, out of every vocabulary.
        9 => input.data = integers(random, input.data.len() / 4),
        10 => {
            let count = [0, 1, 2, 3, 64, 257, 1000][random.random_range(0..7)];
            input.shape = vec![count];
            input.data = integers(random, count as usize);
        }
        11 => {
            let copy = input.clone();
            odd.inputs.push(copy);
        }
        12 => odd.outputs = vec!["ordered_ids".to_owned(), "no_such_output".to_owned()],
        _ => odd.version = ["1", "2", "0", "-1", "x"][random.random_range(0..5)].to_owned(),
    }
}

/// What happened to the requests of one client.
#[derive(Default)]
struct Tally {
    valid: u64,
    refused: u64,
    accepted: u64,
    cut: u64,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.valid += other.valid;
        self.refused += other.refused;
        self.accepted += other.accepted;
        self.cut += other.cut;
        self.wrong.extend(other.wrong);
    }

    /// Compares the answer to a valid request with the one that the server gave in peace.
    fn compare(&mut self, good: &Good, outputs: Vec<Tensor>) {
        self.valid += 1;
        let outputs = by_name(outputs);
        let same = good.outputs.iter().all(|(name, expected)| {
            outputs.get(name).is_some_and(|output| match name.as_str() {
                // The order of a batch's additions differs in the last bit.
                "ordered_scores" => {
                    let (left, right) = (output.float32s(), expected.float32s());
                    let (left, right) = (left.expect("scores"), right.expect("scores"));
                    left.len() == right.len()
                        && left.iter().zip(&right).all(|(l, r)| (l - r).abs() < 1e-5)
                }
                _ => output.data == expected.data,
            })
        });
        if !same {
            self.wrong
                .push(format!("{} {:?}: {outputs:?}", good.model, good.inputs));
        }
    }
}

/// How long the storm lasts.
struct Budget {
    until: Instant,
    left: AtomicU64,
    stop: AtomicBool,
}

impl Budget {
    fn of_environment() -> Self {
        let requests = number("SAKER_FUZZ_REQUESTS");
        // By requests, where their number is given; the time is then a bound that ends a hung run.
        let seconds = match requests {
            Some(_) => 3 * 3600,
            None => number("SAKER_FUZZ_SECONDS").unwrap_or(120),
        };
        Self {
            until: Instant::now() + Duration::from_secs(seconds),
            left: AtomicU64::new(requests.map_or(u64::MAX, |each| 2 * each)),
            stop: AtomicBool::new(false),
        }
    }

    fn take(&self) -> ControlFlow<()> {
        let one_less = |left: u64| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if left.is_err() || self.stop.load(Ordering::Relaxed) || Instant::now() > self.until {
            self.stop.store(true, Ordering::Relaxed);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// A body of the HTTP protocol and the length of its JSON part, if it has a binary one.
fn body(random: &mut StdRng, odd: &Odd) -> (Vec<u8>, Option<usize>) {
    let binary = random.random_range(0..2) == 0;
    let inputs = odd.inputs.iter().map(|input| {
        let mut described = json!({
            "name": input.name, "shape": input.shape, "datatype": input.data_type,
        });
        if binary {
            described["parameters"] = json!({ "binary_data_size": input.data.len() });
        } else {
            described["data"] = values(random, input);
        }
        described
    });
    let inputs: Vec<Value> = inputs.collect();
    let mut request = json!({ "inputs": inputs });
    if !odd.outputs.is_empty() {
        let outputs = odd.outputs.iter().map(|name| json!({ "name": name }));
        request["outputs"] = outputs.collect();
    }
    let mut body = request.to_string().into_bytes();
    let header = binary.then_some(body.len());
    if binary {
        odd.inputs.iter().for_each(|input| body.extend(&input.data));
    }
    if random.random_range(0..10) == 0 && !body.is_empty() {
        let place = random.random_range(0..body.len());
        match random.random_range(0..3) {
            0 => body.truncate(place),
            1 => body[place] = random.random(),
            _ => body.insert(place, b'"'),
        }
    }
    let wrong_header = random.random_range(0..40) == 0;
    (
        body,
        header.map(|at| if wrong_header { at / 2 } else { at }),
    )
}

/// The elements of a tensor in JSON, sometimes of the wrong kind.
fn values(random: &mut StdRng, input: &Tensor) -> Value {
    let words = input.data.as_chunks::<4>().0.iter();
    let mut values: Vec<Value> = match input.data_type.as_str() {
        "FP32" => words.map(|word| json!(f32::from_le_bytes(*word))).collect(),
        _ => words.map(|word| json!(i32::from_le_bytes(*word))).collect(),
    };
    if random.random_range(0..5) == 0 && !values.is_empty() {
        let place = random.random_range(0..values.len());
        values[place] = match random.random_range(0..6) {
            0 => json!("seven"),
            1 => Value::Null,
            2 => json!([1, [2, 3]]),
            3 => json!(1e300),
            4 => json!({ "a": 1 }),
            _ => json!(i64::MAX),
        };
    }
    values.into()
}

/// Sends a valid request over a connection of its own, and closes it without waiting for the answer.
fn hang_up(port: u16, good: &Good) -> std::io::Result<()> {
    let inputs = good.inputs.iter().map(|input| {
        let values = input.int32s().unwrap_or_default();
        json!({ "name": input.name, "shape": input.shape, "datatype": "INT32", "data": values })
    });
    let body = json!({ "inputs": inputs.collect::<Vec<Value>>() }).to_string();
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        connection,
        "POST /v2/models/{}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        good.model,
        body.len()
    )
}

/// One client over HTTP, which hangs up on some of its requests.
fn over_http(server: &TritonServer, requests: &[Good], seed: u64, budget: &Budget) -> Tally {
    let mut random = StdRng::seed_from_u64(seed);
    let triton = Triton::new(&format!("127.0.0.1:{}", server.http_port));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWERED))
        .build()
        .into();
    let mut tally = Tally::default();
    while budget.take().is_continue() {
        let good = &requests[random.random_range(0..requests.len())];
        if !good.outputs.is_empty() && random.random_range(0..2) == 0 {
            match triton.infer(&good.model, &good.inputs) {
                Ok(outputs) => tally.compare(good, outputs),
                Err(error) => tally.wrong.push(format!("a valid request: {error}")),
            }
            continue;
        }
        if !good.outputs.is_empty() && random.random_range(0..8) == 0 {
            // Whoever hangs up may be reset while still sending.
            let _ = hang_up(server.http_port, good);
            tally.cut += 1;
            continue;
        }
        let odd = odd(&mut random, good);
        let (body, header) = body(&mut random, &odd);
        let version = match odd.version.as_str() {
            "" => String::new(),
            version => format!("/versions/{version}"),
        };
        let address = format!(
            "http://127.0.0.1:{}/v2/models/{}{version}/infer",
            server.http_port, odd.model
        );
        let mut request = agent.post(address);
        if let Some(header) = header {
            request = request.header("Inference-Header-Content-Length", header.to_string());
        }
        match request.send(&body) {
            Ok(mut response) => {
                let status = response.status().as_u16();
                let text = response.body_mut().read_to_vec().unwrap_or_default();
                match status {
                    200 => tally.accepted += 1,
                    _ if text.is_empty() => tally.wrong.push(format!("HTTP {status} without text")),
                    _ => tally.refused += 1,
                }
            }
            Err(error) => tally.wrong.push(format!("{error}: {:?}", odd.inputs)),
        }
    }
    tally
}

/// One client over gRPC.
async fn over_grpc(address: &str, requests: &[Good], seed: u64, budget: &Budget) -> Tally {
    let mut random = StdRng::seed_from_u64(seed);
    let client = grpc::Client::new(address).expect("an address");
    let mut tally = Tally::default();
    let call = grpc::Call {
        deadline: Some(ANSWERED),
        ..Default::default()
    };
    while budget.take().is_continue() {
        let good = &requests[random.random_range(0..requests.len())];
        if !good.outputs.is_empty() && random.random_range(0..2) == 0 {
            let answer = client.infer(&good.model, good.inputs.clone(), &[], call);
            match answer.await {
                Ok(outputs) => tally.compare(good, outputs),
                Err(error) => tally.wrong.push(format!("a valid request: {error}")),
            }
            continue;
        }
        let odd = odd(&mut random, good);
        let outputs: Vec<&str> = odd.outputs.iter().map(String::as_str).collect();
        let answer = client.infer(&odd.model, odd.inputs.clone(), &outputs, call);
        match answer.await {
            Ok(_) => tally.accepted += 1,
            Err(triton_client::Error::Refused { message, .. }) if !message.is_empty() => {
                tally.refused += 1;
            }
            Err(error) => tally.wrong.push(format!("{error}: {:?}", odd.inputs)),
        }
    }
    tally
}

/// Memory of a process, in bytes.
struct Memory {
    resident: f64,
    /// Without the pages of programs and files, which become resident when they are first read.
    anonymous: f64,
}

impl Memory {
    fn of(id: i32) -> Self {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kib.expect("the server's memory") * 1024.0
        };
        Self {
            resident: bytes("VmRSS:"),
            anonymous: bytes("RssAnon:"),
        }
    }
}

#[test]
fn no_request_ends_or_stops_or_fattens_the_server() {
    let shop = shop();
    let server = runtime::triton()
        .expect("an installed Triton and backends")
        .repository(shop.folder.path().join("state/tiny/repository"))
        .load(ENSEMBLES[0])
        .load(ENSEMBLES[1])
        // As `saker serve` starts it.
        .env("MALLOC_MMAP_THRESHOLD_", "1048576")
        .start()
        .expect("a running Triton");
    let triton = Triton::new(&format!("127.0.0.1:{}", server.http_port));
    let requests = good_requests(&triton);
    let storm = |budget: &Budget, seed: u64| {
        let mut tally = Tally::default();
        let address = format!("127.0.0.1:{}", server.grpc_port);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..2 * CLIENTS)
                .map(|client| {
                    let (requests, server, address) = (&requests, &server, &address);
                    let seed = seed + client as u64;
                    scope.spawn(move || {
                        if client < CLIENTS {
                            return over_http(server, requests, seed, budget);
                        }
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()
                            .expect("a runtime");
                        runtime.block_on(over_grpc(address, requests, seed, budget))
                    })
                })
                .collect();
            for client in clients {
                tally.add(client.join().expect("no client panics"));
            }
        });
        tally
    };
    let whole = Budget::of_environment();
    let now = Instant::now();
    let first = Budget {
        until: now + 2 * (whole.until - now) / 5,
        left: AtomicU64::new(match whole.left.load(Ordering::Relaxed) {
            u64::MAX => u64::MAX,
            requests => 2 * requests / 5,
        }),
        stop: AtomicBool::new(false),
    };
    let alive = |tally: &Tally| {
        let log = server.log();
        assert!(
            server.is_alive(),
            "the server has ended; {:#?}\n{}",
            &tally.wrong[..tally.wrong.len().min(5)],
            &log[log.len().saturating_sub(20_000)..]
        );
    };
    let mut tally = storm(&first, 1);
    alive(&tally);
    let before = Memory::of(server.id());
    tally.add(storm(&whole, 1000));
    alive(&tally);
    let after = Memory::of(server.id());
    println!(
        "{} valid requests, {} refused, {} accepted though changed, {} cut off; resident {:.0} MB, of which {:.1} MB anonymous, then {:.0} MB, {:.1} MB",
        tally.valid,
        tally.refused,
        tally.accepted,
        tally.cut,
        before.resident / 1e6,
        before.anonymous / 1e6,
        after.resident / 1e6,
        after.anonymous / 1e6
    );
    let wrong = &tally.wrong;
    assert!(
        wrong.is_empty(),
        "{} wrong, such as {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert!(tally.valid > 1000 && tally.refused > 1000 && tally.cut > 100);
    assert!(
        after.anonymous - before.anonymous <= before.resident * GROWTH,
        "the server grew by {} bytes",
        after.anonymous - before.anonymous
    );
    // The server goes on as if nothing had been.
    for good in requests.iter().filter(|good| !good.outputs.is_empty()) {
        let mut last = Tally::default();
        last.compare(
            good,
            triton.infer(&good.model, &good.inputs).expect("an answer"),
        );
        assert!(last.wrong.is_empty(), "{:?}", last.wrong);
    }
}
