//! A whole shop under load while one accident after another befalls it: what was asked, failed, degraded and lost, and how long it
//! took until all was as before.
//!
//! `scripts/chaos` runs this alone, since it measures times, and prints the table of docs/reliability.md.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use saker_store::{
    Reply,
    seen::{Method, Prefixes},
};
use saker_testing::valkey::Valkey;
use serde_json::{Value, json};
use triton_client::{Tensor, grpc};

use crate::pipeline::{ITEMS, STEPS, Shop, USERS, free_address, write_shop};
use crate::support::{
    number,
    store::{command, connect, features_key},
    until::until_so as until,
};

/// Visitors whose answers are compared; the others' events change what they are shown.
const VISITORS: i32 = 20;
const TIME: i32 = 1_700_003_600;
/// How long an accident lasts, if it does not end by itself.
const LASTS: Duration = Duration::from_secs(2);
/// A client's patience with one request, its retries included.
const PATIENCE: Duration = Duration::from_secs(10);
const RECOVERED: Duration = Duration::from_secs(60);
const MODELS: [&str; 2] = ["ensemble_model", "ensemble_fused"];

/// What the connections through [`Proxy`] suffer.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq)]
enum Link {
    Good,
    /// Each answer of the store comes 60 ms late: three times the steps' deadline.
    Slow,
    /// Each connection is closed with what is under way in it.
    Cut,
    /// Nothing arrives, and nothing is closed.
    Silent,
}

/// Between the store and everybody who uses it.
struct Proxy {
    address: String,
    link: Arc<AtomicU8>,
}

impl Proxy {
    fn start(store: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let link = Arc::new(AtomicU8::new(Link::Good as u8));
        let seen = Arc::clone(&link);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Refused here, as the store itself would refuse.
                let Ok(server) = TcpStream::connect(("127.0.0.1", store)) else {
                    continue;
                };
                for (from, to, answers) in [(&client, &server, false), (&server, &client, true)] {
                    let from = from.try_clone().expect("a socket");
                    let to = to.try_clone().expect("a socket");
                    let link = Arc::clone(&seen);
                    thread::spawn(move || forward(from, to, answers, &link));
                }
            }
        });
        Self { address, link }
    }

    fn suffer(&self, link: Link) {
        self.link.store(link as u8, Ordering::Relaxed);
        thread::sleep(LASTS);
        self.link.store(Link::Good as u8, Ordering::Relaxed);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, answers: bool, link: &AtomicU8) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    let _ = to.set_nodelay(true);
    let mut bytes = [0; 64 << 10];
    let is = |state: Link| link.load(Ordering::Relaxed) == state as u8;
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut if !is(Link::Cut) => {
                    continue;
                }
                _ => break,
            },
        };
        while is(Link::Silent) {
            thread::sleep(Duration::from_millis(5));
        }
        if is(Link::Slow) && answers {
            thread::sleep(Duration::from_millis(60));
        }
        if is(Link::Cut) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// The shop, all of whose programs run as another user than root, where the system has user namespaces.
struct Stack {
    shop: Shop,
    proxy: Proxy,
    listen: String,
    metrics: String,
    /// By visitor: what is shown to them, all of it.
    expected: BTreeMap<i32, Vec<i64>>,
    /// Events that the gateway has acknowledged.
    accepted: AtomicU64,
    /// What the items were counted before the first event.
    counted: f64,
    another_user: bool,
}

const USER: [&str; 3] = ["-U", "--map-user=1000", "--map-group=1000"];

impl Stack {
    fn start() -> Self {
        let valkey = Valkey::start().expect("a running Valkey");
        let mut shop = Shop::on(valkey, write_shop);
        // Spaces and umlauts in the folder of everything.
        shop.folder = tempfile::Builder::new()
            .prefix("Läden & Söhne ")
            .tempdir()
            .expect("a folder");
        write_shop(shop.folder.path());
        let namespace = Command::new("unshare").args(USER).arg("true").status();
        let mut stack = Self {
            proxy: Proxy::start(shop.valkey.port()),
            shop,
            listen: free_address(),
            metrics: free_address(),
            expected: BTreeMap::new(),
            accepted: AtomicU64::new(0),
            counted: 0.0,
            another_user: namespace.is_ok_and(|status| status.success()),
        };
        for step in STEPS {
            stack.done(&[step, "tiny"]);
        }
        stack.serve();
        stack.counted = stack.popularity();
        until("the shop is not ready", || {
            stack
                .recommended(1)
                .is_some_and(|answer| answer["degraded"] == false)
        });
        for visitor in 1..=VISITORS {
            let answer = stack.recommended(visitor).expect("an answer");
            stack.expected.insert(visitor, ids(&answer));
        }
        stack
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let plain = self.shop.command(arguments);
        let mut command = Command::new("unshare");
        command.args(USER).arg(plain.get_program());
        command.args(plain.get_args());
        if !self.another_user {
            command = Command::new(plain.get_program());
            command.args(plain.get_args());
        }
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if let Some(folder) = plain.get_current_dir() {
            command.current_dir(folder);
        }
        command.env("SAKER_REDIS_URL", format!("redis://{}", self.proxy.address));
        command
    }

    /// Runs a command; whether it succeeded, and what it printed.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self
            .command(arguments)
            .output()
            .expect("the program starts");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (succeeded, text) = self.run(arguments);
        assert!(succeeded, "saker {arguments:?}: {text}");
        text
    }

    fn serve(&self) -> String {
        self.done(&[
            "serve",
            "tiny",
            "--shop",
            "--detach",
            "--listen",
            &self.listen,
            "--updater-metrics",
            &self.metrics,
        ])
    }

    fn id(&self, part: &str) -> Option<i32> {
        let record = self.shop.folder.path();
        let record = fs::read(record.join(format!("state/tiny/run/{part}.json"))).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        i32::try_from(record["id"].as_i64()?).ok()
    }

    /// Resident memory of Triton, and the anonymous part of it, which it has allocated; the other pages are those of files.
    fn memory_kib(&self) -> [f64; 2] {
        let id = self.id("triton").expect("Triton runs");
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
        ["VmRSS:", "RssAnon:"].map(|field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let words = line.expect("its memory").split_whitespace().next();
            words.and_then(|kib| kib.parse().ok()).expect("a number")
        })
    }

    fn signal(&self, part: &str, signal: Signal) {
        let id = self.id(part).and_then(Pid::from_raw);
        kill_process(id.expect("a process"), signal).expect("a signal");
    }

    fn frozen(&self, part: &str) {
        self.signal(part, Signal::STOP);
        thread::sleep(LASTS);
        self.signal(part, Signal::CONT);
    }

    fn words(&self, database: u8, words: &[&[u8]]) -> Reply {
        command(&self.shop.valkey.url(database), words)
    }

    /// The sum of what all items were counted.
    fn popularity(&self) -> f64 {
        let Reply::Array(scores) = self.words(
            3,
            &[b"ZRANGE", b"trending:global", b"0", b"-1", b"WITHSCORES"],
        ) else {
            panic!("popularity is no sorted set");
        };
        let score = |pair: &[Reply]| match &pair[1] {
            Reply::BulkString(text) => std::str::from_utf8(text).ok()?.parse::<f64>().ok(),
            _ => None,
        };
        scores.chunks(2).filter_map(score).sum()
    }

    /// What the gateway recommends, if it answers at once.
    fn recommended(&self, visitor: i32) -> Option<Value> {
        let mut answer = agent().get(self.question(visitor)).call().ok()?;
        (answer.status() == 200).then(|| answer.body_mut().read_json().ok())?
    }

    fn question(&self, visitor: i32) -> String {
        format!(
            "http://{}/recommendations?user_id={visitor}&timestamp={TIME}&k=5",
            self.listen
        )
    }

    /// Whether everything is as before: each way of asking gives the right answer, and no event waits.
    fn is_well(&self) -> bool {
        let is_right = |visitor: &i32| {
            self.recommended(*visitor).is_some_and(|answer| {
                answer["degraded"] == false && ids(&answer) == self.expected[visitor]
            })
        };
        let backlog = self.words(1, &[b"XLEN", b"events"]);
        [1, 2].iter().all(is_right) && matches!(backlog, Reply::Int(waiting) if waiting < 200)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.run(&["stop", "tiny"]);
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(0)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

fn ids(answer: &Value) -> Vec<i64> {
    let items = answer["items"].as_array();
    let items = items.into_iter().flatten();
    items.filter_map(|item| item["id"].as_i64()).collect()
}

/// What a visitor may be shown at all: five different items that the shop has.
fn is_sound(ids: &[i64]) -> bool {
    let different: std::collections::BTreeSet<&i64> = ids.iter().collect();
    let known = 1..=i64::from(ITEMS);
    ids.len() == 5 && different.len() == 5 && ids.iter().all(|id| known.contains(id))
}

/// What the clients saw during one accident.
#[derive(Default)]
struct Tally {
    asked: u64,
    retried: u64,
    degraded: u64,
    slowest: Duration,
    direct: u64,
    direct_failed: u64,
    direct_cold: u64,
    direct_slowest: Duration,
    events: u64,
    failed: Vec<String>,
    wrong: Vec<String>,
}

/// A visitor's browser: asks the gateway, over again if the connection is refused or breaks.
fn visit(stack: &Stack, tally: &Mutex<Tally>, stop: &AtomicBool, offset: i32) {
    let agent = agent();
    let mut visitor = offset;
    while !stop.load(Ordering::Relaxed) {
        visitor = visitor % VISITORS + 1;
        let start = Instant::now();
        let mut retries = 0;
        let answer = loop {
            let answer = agent.get(stack.question(visitor)).call();
            match answer {
                Err(_) if start.elapsed() < PATIENCE => {
                    retries += 1;
                    thread::sleep(Duration::from_millis(20));
                }
                other => break other,
            }
        };
        let mut tally = tally.lock().expect("no client panics");
        tally.asked += 1;
        tally.retried += u64::from(retries > 0);
        tally.slowest = tally.slowest.max(start.elapsed());
        match answer {
            Ok(mut answer) if answer.status() == 200 => {
                let answer: Value = answer.body_mut().read_json().unwrap_or_default();
                let degraded = answer["degraded"] != false;
                tally.degraded += u64::from(degraded);
                let ids = ids(&answer);
                if !is_sound(&ids) || (!degraded && ids != stack.expected[&visitor]) {
                    tally.wrong.push(format!("visitor {visitor}: {answer}"));
                }
            }
            Ok(answer) => tally
                .failed
                .push(format!("visitor {visitor}: HTTP {}", answer.status())),
            Err(error) => tally.failed.push(format!("visitor {visitor}: {error}")),
        }
    }
}

/// A client of Triton itself, over gRPC, which does not retry, and asks every so often, or as soon as it is answered.
fn ask_triton(
    stack: &Stack,
    tally: &Mutex<Tally>,
    stop: &AtomicBool,
    model: &str,
    every: Duration,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let address = format!("127.0.0.1:{}", stack.shop.ports[1]);
        let client = grpc::Client::new(&address).expect("an address");
        let call = grpc::Call {
            deadline: Some(PATIENCE),
            ..Default::default()
        };
        let mut visitor = 0;
        while !stop.load(Ordering::Relaxed) {
            visitor = visitor % VISITORS + 1;
            let inputs = vec![
                Tensor::int32("user_id", &[visitor]),
                Tensor::int32("timestamp", &[TIME]),
            ];
            let start = tokio::time::Instant::now();
            let answer = client.infer(model, inputs, &["ordered_ids"], call).await;
            let failed = answer.is_err();
            {
                let mut tally = tally.lock().expect("no client panics");
                tally.direct += 1;
                tally.direct_slowest = tally.direct_slowest.max(start.elapsed());
                match answer {
                    Ok(outputs) => {
                        let ids = outputs.first().and_then(|ids| ids.int32s().ok());
                        let ids: Vec<i64> =
                            ids.unwrap_or_default().into_iter().map(i64::from).collect();
                        if !is_sound(&ids) {
                            tally.wrong.push(format!("{model} {visitor}: {ids:?}"));
                        }
                        tally.direct_cold += u64::from(ids != stack.expected[&visitor]);
                    }
                    Err(_) => tally.direct_failed += 1,
                }
            }
            if failed {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep_until(start + every).await;
        }
    });
}

/// Posts events, each lot again under its ids until it is acknowledged.
fn act(stack: &Stack, tally: &Mutex<Tally>, stop: &AtomicBool) {
    const LOT: u64 = 4;
    let agent = agent();
    let url = format!("http://{}/events", stack.listen);
    while !stop.load(Ordering::Relaxed) {
        let first = stack.accepted.load(Ordering::Relaxed);
        let event = |number: u64| {
            let user = VISITORS as u64 + 1 + number % u64::from(USERS - VISITORS as u32);
            let item = 1 + number * 7 % u64::from(ITEMS);
            json!({ "event_id": format!("event-{number}"), "user_id": user, "item_id": item, "type": "click" })
        };
        let lot: Vec<Value> = (first..first + LOT).map(event).collect();
        let start = Instant::now();
        loop {
            let answer = agent
                .post(&url)
                .header("Content-Type", "application/json")
                .send(Value::from(lot.clone()).to_string());
            if answer.is_ok_and(|answer| answer.status() == 202) {
                stack.accepted.fetch_add(LOT, Ordering::Relaxed);
                tally.lock().expect("no client panics").events += LOT;
                break;
            }
            if start.elapsed() > RECOVERED {
                let mut tally = tally.lock().expect("no client panics");
                tally
                    .failed
                    .push(format!("events from {first}: not taken for a minute"));
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Lets the clients end, also when the accident ends in a panic.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One line of the table.
struct Row {
    accident: &'static str,
    tally: Tally,
    recovery: Duration,
}

/// Lets `accident` happen while everybody goes on.
fn under_load(stack: &Stack, accident: &'static str, happen: impl FnOnce(&Stack)) -> Row {
    let (tally, stop) = (Mutex::default(), AtomicBool::new(false));
    let recovery = thread::scope(|scope| {
        let (tally, stop) = (&tally, &stop);
        let _end = Stop(stop);
        for offset in [0, 7] {
            scope.spawn(move || visit(stack, tally, stop, offset));
        }
        for model in MODELS {
            scope.spawn(move || ask_triton(stack, tally, stop, model, Duration::ZERO));
        }
        scope.spawn(move || act(stack, tally, stop));
        thread::sleep(Duration::from_millis(500));
        happen(stack);
        let over = Instant::now();
        while !stack.is_well() && over.elapsed() < RECOVERED {
            thread::sleep(Duration::from_millis(10));
        }
        let recovery = over.elapsed();
        thread::sleep(Duration::from_millis(500));
        recovery
    });
    let tally = tally.into_inner().expect("no client panics");
    let row = Row {
        accident,
        tally,
        recovery,
    };
    println!("{row}");
    row
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tally = &self.tally;
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {:.1} s | {} | {} | {} | {} | {:.1} s |",
            self.accident,
            tally.asked,
            tally.failed.len(),
            tally.wrong.len(),
            tally.degraded,
            tally.retried,
            tally.slowest.as_secs_f64(),
            tally.direct,
            tally.direct_failed,
            tally.direct_cold,
            tally.events,
            self.recovery.as_secs_f64(),
        )
    }
}

const HEAD: &str = "\
| accident | asked | failed | wrong | degraded | retried | slowest | asked of Triton | failed | cold | events | recovery |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// The keys of the visitors' features and seen items, with their databases.
fn keys(stack: &Stack) -> Vec<(u8, Vec<u8>)> {
    let method = match connect(&stack.shop.valkey.url(1)).has_bloom() {
        Some(true) => Method::Server,
        _ => Method::Plain,
    };
    (1..=VISITORS)
        .flat_map(|visitor| {
            let seen = Prefixes::default().key(method, i64::from(visitor));
            [(0, features_key(visitor)), (1, seen.into_bytes())]
        })
        .collect()
}

/// Replaces what the visitors' keys hold for a while.
fn replaced(stack: &Stack, replace: impl Fn(u8, &[u8])) {
    let dump = |(database, key): (u8, Vec<u8>)| {
        let dumped = stack.words(database, &[b"DUMP", &key]);
        (database, key, dumped)
    };
    let before: Vec<(u8, Vec<u8>, Reply)> = keys(stack).into_iter().map(dump).collect();
    let held = |dumped: &Reply| matches!(dumped, Reply::BulkString(_));
    assert!(
        before
            .iter()
            .any(|(database, _, dumped)| *database == 0 && held(dumped)),
        "no visitor has features"
    );
    for (database, key, _) in &before {
        replace(*database, key);
    }
    thread::sleep(LASTS);
    for (database, key, dumped) in before {
        stack.words(database, &[b"DEL", &key]);
        if let Reply::BulkString(bytes) = dumped {
            stack.words(database, &[b"RESTORE", &key, b"0", &bytes]);
        }
    }
}

/// Files of the newest release in the repository, largest first.
fn artefacts(stack: &Stack) -> Vec<std::path::PathBuf> {
    let repository = stack.shop.folder.path().join("state/tiny/repository");
    let versions = |model: &std::path::Path| -> Vec<u32> {
        let entries = fs::read_dir(model).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        names.collect()
    };
    let models: Vec<_> = fs::read_dir(&repository)
        .expect("the repository")
        .flatten()
        .collect();
    let newest = models
        .iter()
        .flat_map(|model| versions(&model.path()))
        .max();
    let newest = newest.expect("a release").to_string();
    let mut files: Vec<(u64, std::path::PathBuf)> = models
        .iter()
        .flat_map(|model| fs::read_dir(model.path().join(&newest)))
        .flatten()
        .flatten()
        .filter_map(|file| Some((file.metadata().ok()?.len(), file.path())))
        .filter(|(size, path)| *size > 0 && path.is_file())
        .collect();
    files.sort();
    files.into_iter().rev().map(|(_, path)| path).collect()
}

/// A release of the same parts under another name.
fn assembled(stack: &Stack, release: &str) {
    stack.done(&["assemble", "tiny", "--force", "--release", release]);
}

/// Every file of a release damaged in turn: each promotion is refused, and names the file.
fn damaged(stack: &Stack, damage: impl Fn(&mut Vec<u8>)) {
    for path in artefacts(stack) {
        let whole = fs::read(&path).expect("an artefact");
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).expect("a damaged artefact");
        let (promoted, text) = stack.run(&["promote", "tiny"]);
        fs::write(&path, &whole).expect("the artefact");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        assert!(
            !promoted && text.contains(&*name),
            "{}: {text}",
            path.display()
        );
    }
}

/// Runs a command that may write `blocks` of 512 bytes to a file at most: what a full disk does to it.
fn without_space(stack: &Stack, blocks: u32, arguments: &[&str]) -> (bool, String) {
    let plain = stack.command(arguments);
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    command.args(["-c", &script, "sh"]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    if let Some(folder) = plain.get_current_dir() {
        command.current_dir(folder);
    }
    let output = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

fn accidents_of_the_store(stack: &Stack) -> Vec<Row> {
    let mut rows = vec![
        under_load(stack, "none, for comparison", |_| thread::sleep(LASTS)),
        under_load(stack, "store killed, started after 2 s", |stack| {
            stack.shop.valkey.kill();
            thread::sleep(LASTS);
            stack.shop.valkey.restart().expect("a restart");
        }),
        under_load(stack, "store stopped by SIGSTOP for 2 s", |stack| {
            stack.shop.valkey.freeze().expect("a signal");
            thread::sleep(LASTS);
            stack.shop.valkey.thaw().expect("a signal");
        }),
    ];
    for (accident, link) in [
        ("each answer of the store 60 ms late for 2 s", Link::Slow),
        ("connections to the store cut for 2 s", Link::Cut),
        ("network to the store silent for 2 s", Link::Silent),
    ] {
        rows.push(under_load(stack, accident, |stack| {
            stack.proxy.suffer(link)
        }));
    }
    rows.push(under_load(stack, "store without memory for 2 s", |stack| {
        stack.words(0, &[b"CONFIG", b"SET", b"maxmemory", b"1"]);
        thread::sleep(LASTS);
        stack.words(0, &[b"CONFIG", b"SET", b"maxmemory", b"0"]);
    }));
    rows.push(under_load(stack, "store read-only for 2 s", |stack| {
        stack.words(0, &[b"REPLICAOF", b"127.0.0.1", b"1"]);
        thread::sleep(LASTS);
        stack.words(0, &[b"REPLICAOF", b"NO", b"ONE"]);
    }));
    rows.push(under_load(stack, "keys of another type for 2 s", |stack| {
        replaced(stack, |database, key| {
            stack.words(database, &[b"DEL", key]);
            stack.words(database, &[b"RPUSH", key, b"no such type"]);
        });
    }));
    rows.push(under_load(
        stack,
        "rows and bitmaps of random bytes for 2 s",
        |stack| {
            replaced(stack, |database, key| {
                if database == 1 {
                    stack.words(database, &[b"SET", key, b"\xff\x00\xfe\x01 no bitmap"]);
                    return;
                }
                let Reply::Array(fields) = stack.words(database, &[b"HKEYS", key]) else {
                    return;
                };
                for field in fields {
                    if let Reply::BulkString(field) = field {
                        stack.words(database, &[b"HSET", key, &field, b"\xff\xff\xff\x7f\x03"]);
                    }
                }
            });
        },
    ));
    rows
}

fn accidents_of_programs(stack: &Stack) -> Vec<Row> {
    let mut rows = Vec::new();
    for (accident, part) in [
        ("Triton killed", "triton"),
        ("gateway killed", "gateway"),
        ("updater killed", "updater"),
    ] {
        rows.push(under_load(stack, accident, |stack| {
            stack.signal(part, Signal::KILL)
        }));
    }
    rows.push(under_load(
        stack,
        "Triton, gateway and updater killed",
        |stack| {
            for part in ["triton", "gateway", "updater"] {
                stack.signal(part, Signal::KILL);
            }
        },
    ));
    rows.push(under_load(
        stack,
        "Triton stopped by SIGSTOP, for good",
        |stack| {
            stack.signal("triton", Signal::STOP);
        },
    ));
    rows.push(under_load(
        stack,
        "gateway stopped by SIGSTOP for 2 s",
        |stack| {
            stack.frozen("gateway");
        },
    ));
    rows.push(under_load(
        stack,
        "updater stopped by SIGSTOP for 2 s",
        |stack| {
            stack.frozen("updater");
        },
    ));
    rows.push(under_load(
        stack,
        "`saker serve` killed, started again",
        |stack| {
            stack.signal("serve", Signal::KILL);
            thread::sleep(Duration::from_millis(300));
            stack.serve();
        },
    ));
    rows.push(under_load(stack, "three more `saker serve`", |stack| {
        thread::scope(|scope| {
            let serves: Vec<_> = (0..3).map(|_| scope.spawn(|| stack.serve())).collect();
            for serve in serves {
                let said = serve.join().expect("no panic");
                assert!(said.contains("is served already"), "{said}");
            }
        });
    }));
    rows
}

fn accidents_of_releases(stack: &Stack) -> Vec<Row> {
    let mut rows = Vec::new();
    assembled(stack, "twice");
    rows.push(under_load(stack, "two promotions at once", |stack| {
        let promoted = thread::scope(|scope| {
            let both: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| stack.run(&["promote", "tiny"])))
                .collect();
            both.into_iter()
                .map(|one| one.join().expect("no panic"))
                .collect::<Vec<_>>()
        });
        assert!(promoted.iter().any(|(done, _)| *done), "{promoted:?}");
    }));
    assembled(stack, "killed");
    rows.push(under_load(
        stack,
        "promotion killed five times, then done",
        |stack| {
            for wait in [5, 40, 120, 250, 400] {
                let mut promote = stack.command(&["promote", "tiny"]);
                let mut promote = promote.spawn().expect("the program starts");
                thread::sleep(Duration::from_millis(wait));
                let _ = promote.kill();
                promote.wait().expect("its end");
            }
            stack.done(&["promote", "tiny"]);
        },
    ));
    rows.push(under_load(stack, "disk full while assembling", |stack| {
        let arguments = ["assemble", "tiny", "--force", "--release", "full"];
        let (done, text) = without_space(stack, 1, &arguments);
        assert!(!done && text.contains("cannot write"), "{text}");
    }));
    assembled(stack, "unwritten");
    rows.push(under_load(stack, "disk full while promoting", |stack| {
        let (done, text) = without_space(stack, 0, &["promote", "tiny"]);
        assert!(!done, "{text}");
        stack.done(&["promote", "tiny"]);
    }));
    assembled(stack, "damaged");
    rows.push(under_load(
        stack,
        "each file of a new release truncated",
        |stack| {
            damaged(stack, |bytes| bytes.truncate(bytes.len() / 2));
        },
    ));
    rows.push(under_load(
        stack,
        "one bit of each file of a new release flipped",
        |stack| {
            damaged(stack, |bytes| {
                let place = bytes.len() / 2;
                bytes[place] ^= 1;
            });
        },
    ));
    rows.push(under_load(stack, "promotion and roll-back", |stack| {
        stack.done(&["promote", "tiny"]);
        stack.done(&["rollback", "tiny"]);
    }));
    rows
}

#[test]
#[ignore = "takes minutes and measures times: scripts/chaos runs it alone"]
fn nothing_fails_whatever_happens() {
    let stack = Stack::start();
    println!("{HEAD}");
    let groups = [
        ("store", accidents_of_the_store as fn(&Stack) -> Vec<Row>),
        ("programs", accidents_of_programs),
        ("releases", accidents_of_releases),
    ];
    let chosen = std::env::var("SAKER_CHAOS").unwrap_or_default();
    let chosen = |name: &str| chosen.is_empty() || chosen.split(' ').any(|word| word == name);
    let groups = groups.iter().filter(|(name, _)| chosen(name));
    let rows: Vec<Row> = groups.flat_map(|(_, group)| group(&stack)).collect();
    until("events wait", || {
        stack.words(1, &[b"XLEN", b"events"]) == Reply::Int(0)
    });
    let accepted = stack.accepted.load(Ordering::Relaxed);
    let applied = stack.popularity() - stack.counted;
    let rejected = stack.words(1, &[b"XLEN", b"events:rejected"]);
    let user = if stack.another_user {
        "1000"
    } else {
        "its own"
    };
    println!(
        "\n{accepted} events acknowledged, {applied} applied, {rejected:?} rejected. All programs ran as user {user}, in `{}`.",
        stack.shop.folder.path().display()
    );
    for row in &rows {
        let Tally { failed, wrong, .. } = &row.tally;
        assert!(
            failed.is_empty() && wrong.is_empty() && row.recovery < RECOVERED,
            "{}: failed {:#?}, wrong {:#?}, recovered after {:?}",
            row.accident,
            &failed[..failed.len().min(5)],
            &wrong[..wrong.len().min(5)],
            row.recovery
        );
    }
    assert_eq!(
        applied, accepted as f64,
        "events were lost or applied twice"
    );
}

/// Four gRPC clients ask 200 times a second while one release after the other is promoted.
#[test]
#[ignore = "takes the better part of an hour: scripts/chaos promotions runs it alone"]
fn promotions_under_load() {
    const CLIENTS: u32 = 4;
    let wanted = number("SAKER_PROMOTIONS").unwrap_or(1000);
    let stack = Stack::start();
    assembled(&stack, "second");
    let triton = stack.id("triton");
    let (tally, stop) = (Mutex::<Tally>::default(), AtomicBool::new(false));
    let mut refused = Vec::new();
    println!("| promotions | asked of Triton | failed | cold | slowest | Triton's memory |");
    println!("|--:|--:|--:|--:|--:|--:|");
    thread::scope(|scope| {
        let (stack, tally, stop) = (&stack, &tally, &stop);
        let _end = Stop(stop);
        for model in MODELS.into_iter().cycle().take(CLIENTS as usize) {
            let every = Duration::from_secs(1) / 200 * CLIENTS;
            scope.spawn(move || ask_triton(stack, tally, stop, model, every));
        }
        for promotion in 1..=wanted {
            let version = (1 + promotion % 2).to_string();
            let (done, text) = stack.run(&["promote", "tiny", "--release", &version]);
            if !done {
                refused.push(format!("promotion {promotion}: {text}"));
            }
            if promotion % 50 == 0 || promotion == wanted {
                let tally = tally.lock().expect("no client panics");
                println!(
                    "| {promotion} | {} | {} | {} | {:.2} s | {:.1} MB |",
                    tally.direct,
                    tally.direct_failed,
                    tally.direct_cold,
                    tally.direct_slowest.as_secs_f64(),
                    stack.memory_kib()[1] / 1024.0
                );
            }
        }
    });
    let tally = tally.into_inner().expect("no client panics");
    assert_eq!(stack.id("triton"), triton, "Triton was started again");
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!((tally.direct_failed, tally.wrong.len()), (0, 0));
}

/// A million requests to each ensemble leave Triton as large as it was.
#[test]
#[ignore = "takes the better part of an hour: scripts/chaos memory runs it alone"]
fn memory_stays_what_it_was() {
    const CLIENTS: u64 = 4;
    /// Of the requests: what is allocated once is allocated in these.
    const WARM_UP: u64 = 20;
    let wanted = number("SAKER_REQUESTS").unwrap_or(1_000_000);
    let stack = Stack::start();
    println!("| ensemble | requests | failed | wrong | resident memory | of it anonymous |");
    println!("|---|--:|--:|--:|--:|--:|");
    let mut grown = Vec::new();
    for model in MODELS.into_iter().rev() {
        let (tally, stop) = (Mutex::<Tally>::default(), AtomicBool::new(false));
        let mut sizes = Vec::new();
        thread::scope(|scope| {
            let (stack, tally, stop) = (&stack, &tally, &stop);
            let _end = Stop(stop);
            for _ in 0..CLIENTS {
                scope.spawn(move || ask_triton(stack, tally, stop, model, Duration::ZERO));
            }
            for part in 1..=WARM_UP {
                let answered = || tally.lock().expect("no client panics").direct;
                while answered() < wanted * part / WARM_UP {
                    thread::sleep(Duration::from_millis(20));
                }
                let [size, anonymous] = stack.memory_kib();
                sizes.push(size);
                let tally = tally.lock().expect("no client panics");
                println!(
                    "| {model} | {} | {} | {} | {:.2} MiB | {:.2} MiB |",
                    tally.direct,
                    tally.direct_failed,
                    tally.wrong.len(),
                    size / 1024.0,
                    anonymous / 1024.0
                );
            }
        });
        let tally = tally.into_inner().expect("no client panics");
        assert_eq!((tally.direct_failed, tally.wrong.len()), (0, 0), "{model}");
        grown.push((model, sizes[sizes.len() - 1] / sizes[0] - 1.0));
    }
    println!("growth since the first {}th: {grown:.4?}", WARM_UP);
    assert!(grown.iter().all(|(_, growth)| *growth <= 0.01), "{grown:?}");
}
