//! Several servers that follow a store of releases: what is published reaches all of them, and nothing else does.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use rustix::process::{Pid, Signal, kill_process};
use saker_assemble as assemble;
use saker_offline::open_storage;
use saker_serving::layout::Layout;
use saker_serving::registry::moves::Overtaken;
use saker_serving::registry::promote::{Waiting, promote};
use saker_serving::registry::{Named, Registry, Stage};
use saker_serving::releases::Repository;
use saker_testing::{runtime, s3_server::S3Server};
use triton_client::Triton;

use crate::releases::{Answer, Served, Shop, prepared};
use crate::support::golden::artefacts;
use crate::support::number;
use crate::support::stage::data;
use crate::support::until::until_so;

const ENSEMBLE: &str = "ensemble_model";
/// Seconds between two looks of a follower.
const EVERY: Duration = Duration::from_millis(500);
/// Requests per second of the load, over all servers.
const RATE: u32 = 200;
const CLIENTS: u32 = 4;
/// A store's password, which must be nowhere.
const PASSWORD: &str = "hunter2-of-the-store";

/// A shop whose releases go to an S3 server.
struct Bucket {
    s3: S3Server,
    shop: Shop,
}

/// A Triton, the folder it serves, and what keeps it on the wanted release.
struct Follower {
    served: Served,
    folder: PathBuf,
    program: Child,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Bucket {
    fn new() -> Self {
        Self {
            s3: S3Server::start().expect("an S3 server"),
            shop: Shop::new(),
        }
    }

    fn location(&self) -> String {
        format!("s3://{}/fleet", S3Server::BUCKET)
    }

    /// The bucket as any client sees it.
    fn with_storage<T>(&self, ask: impl AsyncFnOnce(&dyn ObjectStore) -> T) -> T {
        let bucket = format!("s3://{}", S3Server::BUCKET);
        let (storage, _) = open_storage(&bucket, self.s3.settings()).expect("a bucket");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(ask(&*storage))
    }

    fn keys(&self) -> Vec<String> {
        let list = async |storage: &dyn ObjectStore| {
            let found: Vec<_> = storage.list(None).try_collect().await.expect("a list");
            found
                .iter()
                .map(|meta| meta.location.to_string())
                .collect::<Vec<_>>()
        };
        let mut keys = self.with_storage(list);
        keys.sort_unstable();
        keys
    }

    fn get(&self, key: &str) -> Vec<u8> {
        self.with_storage(async |storage: &dyn ObjectStore| {
            let found = storage.get(&key.into()).await.expect("an object");
            found.bytes().await.expect("its content").to_vec()
        })
    }

    fn put(&self, key: &str, content: Vec<u8>) {
        self.with_storage(async |storage: &dyn ObjectStore| {
            storage
                .put(&key.into(), content.into())
                .await
                .expect("it is taken")
        });
    }

    fn registry(&self) -> Registry {
        Registry::with_settings(&self.location(), self.s3.settings()).expect("a store")
    }

    /// What `saker prepare` would have made, where the commands look for it.
    fn layout(&self) -> Layout {
        let layout = Layout::new(&self.shop.place("state"), "retail");
        for table in ["users", "items"] {
            let target = layout.data(table);
            if !target.exists() {
                fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
                let source = data(&format!("reference/{table}.parquet"));
                fs::copy(source, target).expect("a table");
            }
        }
        layout
    }

    /// Publishes a version of the shop's repository.
    fn publish(&self, version: u64) -> Named {
        let repository = self.shop.repository();
        let registry = self.registry();
        registry
            .publish(&repository, version, &self.layout(), &mut |_, _| {})
            .expect("a published release");
        let release = repository.index().expect("an index").releases[&version].clone();
        let (_, sha256) = registry.release(&release, None).expect("it is there");
        Named { release, sha256 }
    }

    fn saker(&self, arguments: &[&str]) -> Command {
        let mut saker = Command::new(env!("CARGO_BIN_EXE_saker"));
        saker
            .args(arguments)
            .envs(self.s3.settings())
            .current_dir(runtime::workspace());
        saker
    }

    /// A server of its own, on the release that is to be served.
    fn follower(&self, name: &str) -> Follower {
        let folder = self.shop.place(name);
        let place = folder.to_str().expect("a path");
        let location = self.location();
        let fetched = self
            .saker(&[
                "follow",
                "--releases",
                &location,
                "--once",
                "--repository",
                place,
            ])
            .output()
            .expect("the program runs");
        assert!(
            fetched.status.success(),
            "{}",
            String::from_utf8_lossy(&fetched.stderr)
        );
        let server = runtime::triton()
            .expect("an installed Triton and backends")
            .repository(&folder)
            .argument("--strict-readiness=false")
            .load(ENSEMBLE)
            .env("SAKER_REDIS_URL", &self.shop.store())
            .start()
            .expect("a running Triton");
        let address = format!("127.0.0.1:{}", server.http_port);
        let every = EVERY.as_secs_f64().to_string();
        let log = fs::File::create(self.shop.place(&format!("{name}.log"))).expect("a log");
        let program = self
            .saker(&[
                "follow",
                "--releases",
                &location,
                "--repository",
                place,
                "--triton",
                &address,
                "--name",
                name,
                "--every",
                &every,
                "--listen",
                "off",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the follower runs");
        let triton = Triton::new(&address);
        Follower {
            served: Served { server, triton },
            folder,
            program,
        }
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.shop.place(&format!("{name}.log"))).unwrap_or_default()
    }
}

impl Follower {
    fn serves(&self, release: &str) -> bool {
        self.served
            .ask(0)
            .is_ok_and(|answer| answer.release == release)
    }
}

fn all_serve(followers: &[Follower], release: &str) -> bool {
    followers.iter().all(|follower| follower.serves(release))
}

fn waiting(servers: usize) -> Option<Waiting> {
    Some(Waiting {
        time: Duration::from_secs(60),
        servers,
        refusals: 0,
    })
}

/// Asks all servers in turn until it is told to stop; the number of answers, and what was wrong with some.
fn load(
    followers: &[Follower],
    expected: &HashMap<&str, Vec<Answer>>,
    stop: &AtomicBool,
    answered: &AtomicUsize,
    faults: &Mutex<Vec<String>>,
    client: u32,
) {
    let start = Instant::now();
    for number in (client..).step_by(CLIENTS as usize) {
        let due = Duration::from_secs(1) * number / RATE;
        sleep(due.saturating_sub(start.elapsed()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let server = number as usize % followers.len();
        let requests = expected.values().map(Vec::len).min().expect("answers");
        let request = number as usize / followers.len() % requests;
        let fault = match followers[server].served.ask(request) {
            Err(error) => Some(format!("server {server}: {error:#}")),
            Ok(answer) => match expected.get(answer.release.as_str()) {
                None => Some(format!("server {server}: {answer:?} is of no release")),
                Some(right) => (answer != right[request])
                    .then(|| format!("server {server}: {answer:?} is not {:?}", right[request])),
            },
        };
        faults.lock().expect("no client panics").extend(fault);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn three_servers_follow_fifty_moves_under_load() {
    let bucket = Bucket::new();
    let registry = bucket.registry();
    bucket.layout();
    let (golden, other) = (
        bucket.shop.add_golden(&bucket.layout(), "first", PASSWORD),
        bucket
            .shop
            .add_other_of(&bucket.layout(), "second", PASSWORD),
    );
    let (first, second) = (bucket.publish(golden), bucket.publish(other));
    registry
        .move_to(None, first.clone(), Stage::Serve)
        .expect("a move");
    let mut followers: Vec<Follower> = (1..=3)
        .map(|number| bucket.follower(&format!("server-{number}")))
        .collect();
    let answers_first = followers[0].served.ask_all("first");
    promote(&registry, &second, waiting(3), &mut |_, _| {}).expect("a promotion");
    let answers_second = followers[0].served.ask_all("second");
    let expected = HashMap::from([("first", answers_first), ("second", answers_second)]);

    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::<String>::new());
    let moves = number("SAKER_MOVES").unwrap_or(16);
    let mut times = Vec::new();
    let start = Instant::now();
    let mut fourth = None;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (followers, expected) = (&followers[..], &expected);
            let (stop, answered, faults) = (&stop, &answered, &faults);
            scope.spawn(move || load(followers, expected, stop, answered, faults, client));
        }
        for number in 0..moves {
            let to = if number % 2 == 0 { &first } else { &second };
            let begun = Instant::now();
            // Every fifth in two stages; the others at once, as a roll-back.
            let waits = if number % 5 == 0 { waiting(3) } else { None };
            promote(&registry, to, waits, &mut |_, _| {}).expect("a promotion");
            until_so("the servers do not switch", || {
                all_serve(&followers, &to.release)
            });
            times.push(begun.elapsed());
            if number == moves / 2 {
                // One that starts in the middle serves what is wanted at once.
                let joined = bucket.follower("server-4");
                assert!(joined.serves(&to.release), "{}", bucket.log("server-4"));
                fourth = Some(joined);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let answered = answered.into_inner();
    println!(
        "{answered} answers in {:.1} s; {moves} moves reached three servers in {:?} (median), {:?} (longest)",
        start.elapsed().as_secs_f64(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert_eq!(
        faults.into_inner().expect("no client panics"),
        Vec::<String>::new()
    );
    assert!(answered >= 400, "{answered} answers");
    followers.extend(fourth);
    let last = if moves % 2 == 1 { "first" } else { "second" };
    until_so("the fourth server does not follow", || {
        all_serve(&followers, last)
    });

    store_that_is_away(&bucket, &followers, &first, &second, last);
    damaged_file(&bucket, &followers, last);
    two_at_once(&bucket, &first, &second);
    until_so("the servers do not settle", || {
        let wanted = registry.wanted().expect("a move").expect("a move");
        all_serve(&followers, &wanted.to.release)
    });

    // One that is told to stop is waited for no more; its Triton serves on.
    let mut gone = followers.pop().expect("four servers");
    let id = Pid::from_child(&gone.program);
    kill_process(id, Signal::TERM).expect("a signal");
    assert!(gone.program.wait().expect("an end").success());
    let reports = registry.reports().expect("reports");
    assert!(reports.iter().all(|it| it.report.server != "server-4"));
    assert!(gone.served.ask(0).is_ok());
    nothing_holds(&bucket, PASSWORD);
}

/// While the store does not answer, everything serves on; afterwards, what was wanted meanwhile is reached.
fn store_that_is_away(
    bucket: &Bucket,
    followers: &[Follower],
    first: &Named,
    second: &Named,
    serving: &str,
) {
    let away = Duration::from_secs(number("SAKER_AWAY").unwrap_or(5));
    bucket.s3.signal(Signal::STOP);
    let start = Instant::now();
    let mut asked = 0;
    while start.elapsed() < away {
        for follower in followers {
            assert!(follower.serves(serving));
            asked += 1;
        }
        sleep(Duration::from_millis(20));
    }
    bucket.s3.signal(Signal::CONT);
    let to = if serving == "first" { second } else { first };
    let registry = bucket.registry();
    promote(&registry, to, waiting(followers.len()), &mut |_, _| {}).expect("a promotion");
    assert!(all_serve(followers, &to.release));
    println!("{asked} answers while the store was away for {away:?}");
    // Back within a look and a second.
    let before = registry
        .served_before(&registry.wanted().expect("a move").expect("a move"))
        .expect("a move")
        .expect("a release before");
    assert_eq!(before.release, serving);
    let begun = Instant::now();
    promote(&registry, &before, None, &mut |_, _| {}).expect("a roll-back");
    until_so("the servers do not go back", || {
        all_serve(followers, serving)
    });
    let took = begun.elapsed();
    println!(
        "a roll-back reached {} servers in {took:?}",
        followers.len()
    );
}

/// A file of which a byte is flipped is refused by name, by every server, and the promotion goes back by itself.
fn damaged_file(bucket: &Bucket, followers: &[Follower], serving: &str) {
    let version = bucket
        .shop
        .add_other_of(&bucket.layout(), "damaged", PASSWORD);
    let repository = bucket.shop.repository();
    // Another index than the other release's: a file that the servers have already is not asked for.
    let manifest = repository.manifest(version).expect("a manifest");
    let named = bucket.publish(version);
    let onnx = &manifest.models["query_tower"].files["model.onnx"];
    let key = format!("fleet/files/{onnx}");
    let mut bytes = bucket.get(&key);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bucket.put(&key, bytes);
    let registry = bucket.registry();
    let patience = Some(Waiting {
        time: Duration::from_secs(8),
        servers: followers.len(),
        refusals: 0,
    });
    let error = promote(&registry, &named, patience, &mut |_, _| {}).expect_err("refused");
    let error = format!("{error:#}");
    assert!(error.contains("go back to"), "{error}");
    until_so("no server says why", || {
        bucket.log("server-1").contains(onnx) && bucket.log("server-1").contains("damaged")
    });
    assert!(all_serve(followers, serving));
    let wanted = registry.wanted().expect("a move").expect("a move");
    assert_eq!(wanted.to.release, serving);
}

/// Of several that promote at the same moment, each either has done so before the next, or is told that it was overtaken.
fn two_at_once(bucket: &Bucket, first: &Named, second: &Named) {
    let registry = bucket.registry();
    for _ in 0..10 {
        let from = registry.wanted().expect("a move");
        let generation = from.as_ref().map_or(0, |from| from.generation);
        let outcomes: Vec<anyhow::Result<_>> = std::thread::scope(|scope| {
            let racers = [first, second].map(|to| {
                let from = &from;
                scope.spawn(move || {
                    let registry = bucket.registry();
                    registry.move_to(from.as_ref(), to.clone(), Stage::Serve)
                })
            });
            racers
                .map(|racer| racer.join().expect("no panic"))
                .into_iter()
                .collect()
        });
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "{outcomes:?}");
        let lost = outcomes
            .into_iter()
            .find_map(Result::err)
            .expect("one lost");
        assert_eq!(
            lost.downcast_ref::<Overtaken>().map(|other| other.0),
            Some(generation + 1)
        );
    }
}

/// No object of the bucket, no file of a repository and no log holds a text.
fn nothing_holds(bucket: &Bucket, text: &str) {
    let mut looked = 0;
    for key in bucket.keys() {
        let bytes = bucket.get(&key);
        assert!(!holds(&bytes, text), "{key}");
        looked += 1;
    }
    let mut folders = vec![bucket.shop.place("server-1")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            assert!(!holds(&fs::read(&path).expect("a file"), text), "{path:?}");
            looked += 1;
        }
    }
    assert!(!bucket.log("server-1").contains(text));
    assert!(looked > 50, "{looked} files");
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[test]
fn publishing_that_is_killed_shows_nothing_until_it_is_whole() {
    let bucket = Bucket::new();
    let layout = bucket.layout();
    let version = bucket.shop.add_golden(&layout, "first", PASSWORD);
    let registry = bucket.registry();
    let repository = bucket.shop.place("repository");
    let state = bucket.shop.place("state");
    let location = bucket.location();
    let number = version.to_string();
    let publish = || {
        let mut command = bucket.saker(&[
            "publish",
            "retail",
            "--to",
            &location,
            "--release",
            &number,
            "--repository",
        ]);
        command.arg(&repository).arg("--state").arg(&state);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("the program runs")
    };
    let (mut killed, mut whole) = (0, 0);
    for attempt in 0..20 {
        let mut program = publish();
        sleep(Duration::from_millis(30 + 17 * attempt));
        if program.try_wait().expect("a state").is_none() {
            killed += 1;
        }
        let _ = program.kill();
        let _ = program.wait();
        let listed = registry.releases().expect("a list");
        assert!(listed.is_empty() || listed == ["first"], "{listed:?}");
        if !listed.is_empty() {
            whole += 1;
            let (published, _) = registry.release("first", None).expect("a release");
            let place = bucket.shop.place(&format!("fetched-{attempt}"));
            registry
                .fetch(&published, &place, false)
                .expect("every file is there");
            let fetched = Repository::open(&place).expect("a repository");
            fetched.verify(1).expect("every file is whole");
        }
    }
    println!("{killed} killed on the way; {whole} times the release was whole afterwards");
    assert!(killed > 0, "none was killed on the way");
    let ended = publish().wait_with_output().expect("an end");
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    // Once more is as good, and stores nothing.
    let before = bucket.keys();
    assert!(publish().wait().expect("an end").success());
    assert_eq!(bucket.keys(), before);
}

#[test]
fn a_release_of_other_tensors_is_refused_and_a_new_server_takes_it() {
    let bucket = Bucket::new();
    let layout = bucket.layout();
    let version = bucket.shop.add_golden(&layout, "first", PASSWORD);
    let first = bucket.publish(version);
    let registry = bucket.registry();
    registry.move_to(None, first, Stage::Serve).expect("a move");
    let follower = bucket.follower("server-1");

    // A definition whose context has another input.
    let mut pipeline = bucket.shop.pipeline();
    let column = pipeline.context.columns[0].name.clone();
    pipeline.context.columns[0].name = format!("{column}_2");
    for feature in &mut pipeline.context.features {
        if feature.name == column {
            feature.name = format!("{column}_2");
        }
    }
    let folder = bucket.shop.place("wider");
    let mut run = artefacts(&pipeline, &folder);
    run.prepared = prepared(&layout);
    let target = bucket.shop.place("other repository");
    let assembled = assemble::assemble(&pipeline, &run, "wider", &target).expect("a release");
    let repository = Repository::open(&target).expect("a repository");
    registry
        .publish(&repository, assembled.version, &layout, &mut |_, _| {})
        .expect("a published release");
    let (_, sha256) = registry.release("wider", None).expect("it is there");
    let wider = Named {
        release: "wider".to_owned(),
        sha256,
    };
    let error = promote(&registry, &wider, waiting(1), &mut |_, _| {}).expect_err("refused");
    let error = format!("{error:#}");
    for part in [
        "server-1",
        "other tensors",
        "starts anew",
        "go back to first",
    ] {
        assert!(error.contains(part), "no '{part}' in: {error}");
    }
    assert!(follower.serves("first"));

    // What a pod that starts anew does: the repository is made again.
    let wanted = registry.wanted().expect("a move").expect("a move");
    registry
        .move_to(Some(&wanted), wider, Stage::Serve)
        .expect("a move");
    let place = follower.folder.clone();
    drop(follower);
    let fetched = bucket
        .saker(&[
            "follow",
            "--releases",
            &bucket.location(),
            "--once",
            "--repository",
        ])
        .arg(&place)
        .output()
        .expect("the program runs");
    assert!(
        fetched.status.success(),
        "{}",
        String::from_utf8_lossy(&fetched.stderr)
    );
    let repository = Repository::open(&place).expect("a repository");
    let index = repository.index().expect("an index");
    assert_eq!(index.releases.values().collect::<Vec<_>>(), ["wider"]);
    repository.verify(1).expect("every file is whole");
    assert_eq!(repository.serving().expect("a version"), 1);
}
