//! Releases: several side by side, one of which serves, and what happens between them.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use saker_assemble::{self as assemble, Artefacts};
use saker_index::{Index, Metric};
use saker_pipeline::{Default as Fallback, Group, Pipeline};
use saker_prepare::table;
use saker_serving::layout::Layout;
use saker_serving::releases::{self, Outcome, Repository, Stage};
use saker_testing::{runtime, valkey::Valkey};
use serde_json::Value;
use triton_client::{Tensor, Triton};
use triton_testing::server::TritonServer;

use crate::support::{
    golden::{answers, artefacts, pipeline},
    parquet,
    stage::data,
    store::write_golden,
};

const ENSEMBLE: &str = "ensemble_model";

/// A repository with the golden release, and whatever a test adds to it.
pub(crate) struct Shop {
    valkey: Valkey,
    folder: tempfile::TempDir,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let valkey = Valkey::start().expect("a running Valkey");
        write_golden(&valkey);
        let folder = tempfile::tempdir().expect("a folder");
        let shop = Self { valkey, folder };
        let pipeline = shop.pipeline();
        let artefacts = artefacts(&pipeline, &shop.place("golden"));
        shop.add(&pipeline, &artefacts, "golden");
        shop
    }

    /// A whole server is what is tested, not what happens when it waits too short for the store.
    pub(crate) fn pipeline(&self) -> Pipeline {
        let mut pipeline = pipeline(&self.valkey);
        pipeline.store.deadline_ms = 2000;
        pipeline
    }

    pub(crate) fn place(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::open(&self.place("repository")).expect("a repository")
    }

    fn add(&self, pipeline: &Pipeline, artefacts: &Artefacts, release: &str) -> u64 {
        let target = self.place("repository");
        let assembled = assemble::assemble(pipeline, artefacts, release, &target);
        let assembled = assembled.expect("a release");
        assert_eq!(assembled.changed, Vec::<String>::new());
        assembled.version
    }

    /// A run whose every artefact but the towers' and the ranker's weights is another: items have other codes and other
    /// vectors in index and tables, lists are shorter, a new user has another age.
    fn add_other(&self, release: &str) -> u64 {
        let (pipeline, artefacts) = self.other(release, self.pipeline());
        self.add(&pipeline, &artefacts, release)
    }

    fn other(&self, release: &str, mut pipeline: Pipeline) -> (Pipeline, Artefacts) {
        pipeline.ranking.topk = 15;
        let age = pipeline
            .user
            .columns
            .iter_mut()
            .find(|column| column.name == "age");
        age.expect("an age").default = Fallback::Number(71.0);
        let folder = self.place(release);
        let mut artefacts = artefacts(&pipeline, &folder);
        let codes = folder
            .join(Group::Item.as_str())
            .join("categories/unique.item_id.parquet");
        let rows = table::read(&codes).expect("the items' codes");
        let backwards =
            arrow::array::UInt32Array::from_iter_values((0..rows.num_rows() as u32).rev());
        let rows = arrow::compute::take_record_batch(&rows, &backwards).expect("rows");
        table::write(&codes, &rows).expect("other codes");
        artefacts.index = self.index(release, &golden_items());
        let tables = &mut artefacts.tables;
        let image = tables["item_image_embeddings"].clone();
        let text = tables.insert("item_description_embeddings".to_owned(), image);
        tables.insert("item_image_embeddings".to_owned(), text.expect("a table"));
        (pipeline, artefacts)
    }

    /// The golden run with what `saker prepare` has made, assembled where the store's address holds a password.
    pub(crate) fn add_golden(&self, layout: &Layout, release: &str, password: &str) -> u64 {
        let pipeline = self.with_password(password);
        let mut artefacts = artefacts(&pipeline, &self.place(release));
        artefacts.prepared = prepared(layout);
        self.add(&pipeline, &artefacts, release)
    }

    /// As [`add_golden`](Self::add_golden), of the other run.
    pub(crate) fn add_other_of(&self, layout: &Layout, release: &str, password: &str) -> u64 {
        let (pipeline, mut artefacts) = self.other(release, self.with_password(password));
        artefacts.prepared = prepared(layout);
        self.add(&pipeline, &artefacts, release)
    }

    fn with_password(&self, password: &str) -> Pipeline {
        let mut pipeline = self.pipeline();
        let place = pipeline
            .store
            .redis_url
            .split_once("://")
            .expect("an address")
            .1;
        pipeline.store.redis_url = format!("redis://shop:{password}@{place}");
        pipeline
    }

    /// The store's address, which servers read from their environment.
    pub(crate) fn store(&self) -> String {
        self.pipeline().store.redis_url
    }

    /// An index of these ids with vectors that follow from the ids.
    fn index(&self, name: &str, ids: &[i64]) -> std::path::PathBuf {
        let vector =
            |id: i64| (0..64).map(move |n| ((id * 37 + n * 11) % 101) as f32 / 101.0 - 0.5);
        let vectors: Vec<f32> = ids.iter().copied().flat_map(vector).collect();
        let one = std::num::NonZeroUsize::MIN;
        let index =
            Index::build_with_threads(one, "IDMap,Flat", 64, Metric::InnerProduct, &vectors, ids);
        let path = self.place(&format!("{name}.faiss"));
        index
            .and_then(|index| index.write(&path))
            .expect("an index");
        path
    }

    fn serve(&self) -> Served {
        let server = runtime::triton()
            .expect("an installed Triton and backends")
            .repository(self.place("repository"))
            .argument("--strict-readiness=false")
            .load(ENSEMBLE)
            .start()
            .expect("a running Triton");
        let triton = Triton::new(&format!("127.0.0.1:{}", server.http_port));
        Served { server, triton }
    }

    fn promote(&self, served: &Served, version: u64) -> anyhow::Result<Outcome> {
        releases::promote(
            &self.repository(),
            Some(&served.triton),
            version,
            3,
            &mut |_| {},
        )
    }

    /// The program on this repository and a server.
    fn saker(&self, command: &str, server: &str, arguments: &[&str]) -> Command {
        let mut saker = Command::new(env!("CARGO_BIN_EXE_saker"));
        saker
            .args([command, "retail", "--server", server, "--repository"])
            .arg(self.place("repository"))
            .args(arguments)
            .current_dir(runtime::workspace());
        saker
    }
}

/// What of a prepared shop goes into a release.
pub(crate) fn prepared(layout: &Layout) -> BTreeMap<String, PathBuf> {
    ["users.parquet", "items.parquet"]
        .map(|file| (file.to_owned(), layout.catalogue_file(file)))
        .into()
}

fn golden_items() -> Vec<i64> {
    let ids = parquet::i32_column(&data("reference/items.parquet"), "item_id");
    ids.into_iter().map(i64::from).collect()
}

/// A running server.
pub(crate) struct Served {
    pub(crate) server: TritonServer,
    pub(crate) triton: Triton,
}

/// What a request was answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) release: String,
    ids: Vec<i32>,
    scores: Vec<f32>,
}

impl Served {
    /// The answer to the golden requests' request of this number; the last is of a user that nobody knows.
    pub(crate) fn ask(&self, number: usize) -> anyhow::Result<Answer> {
        let request = answers().get(number);
        let user = request.map_or(-5, |request| request.user_id);
        let (device, time) = request.map_or((1, 1_700_000_000), |request| {
            (request.device_type, request.timestamp)
        });
        let inputs = [
            Tensor::int32("user_id", &[user]),
            Tensor::int32("device_type", &[device]),
            Tensor::int32("timestamp", &[time]),
        ];
        let outputs = self.triton.infer(ENSEMBLE, &inputs)?;
        let tensor = |name: &str| outputs.iter().find(|tensor| tensor.name == name);
        Ok(Answer {
            release: tensor("release").expect("a release").texts()?.concat(),
            ids: tensor("ordered_ids").expect("ids").int32s()?,
            scores: tensor("ordered_scores").expect("scores").float32s()?,
        })
    }

    /// The answers to all golden requests and to the unknown user's, all of one release.
    pub(crate) fn ask_all(&self, release: &str) -> Vec<Answer> {
        let answers: Vec<Answer> = (0..=answers().len())
            .map(|number| self.ask(number).expect("an answer"))
            .collect();
        for answer in &answers {
            assert_eq!(answer.release, release);
        }
        answers
    }

    /// Kilobytes of the server's memory.
    fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id()));
        let status = status.expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.expect("a size")
    }

    fn ready_versions(&self, model: &str) -> Vec<u64> {
        let known = self.triton.models().expect("an index").into_iter();
        let mut versions: Vec<u64> = known
            .filter(|known| known.model == model && known.ready)
            .map(|known| known.version)
            .collect();
        versions.sort_unstable();
        versions
    }
}

/// The golden answers are those of the golden release: what the releases answer is checked against the artefacts.
fn assert_golden(found: &[Answer]) {
    for (answer, found) in answers().iter().zip(found) {
        answer.assert_reproduced(&found.ids, &found.scores);
    }
}

/// Requests per second of the load.
const RATE: u32 = 200;
const CLIENTS: u32 = 4;

#[test]
fn fifty_promotions_under_load_fail_and_mix_no_answer() {
    let shop = Shop::new();
    let served = shop.serve();
    let first = served.ask_all("golden");
    assert_golden(&first);
    let alone = served.resident_kb();

    let other = shop.add_other("other");
    shop.promote(&served, other).expect("a promotion");
    let second = served.ask_all("other");
    let both = served.resident_kb();
    println!("resident: {alone} kB with one release, {both} kB with two");
    for (one, two) in first.iter().zip(&second) {
        assert_eq!(
            (one.ids.len(), two.ids.len()),
            (20, 15),
            "each with its own parameters"
        );
        assert!(
            !one.ids.starts_with(&two.ids),
            "the releases are told apart by their items"
        );
    }
    let expected = HashMap::from([("golden", &first), ("other", &second)]);

    // A member that is asked by itself names the release as a parameter of its response.
    let decoder = serde_json::json!({ "inputs": [
        { "name": "ordered_ids", "shape": [1], "datatype": "INT32", "data": [5] },
        { "name": "ordered_scores", "shape": [1], "datatype": "FP32", "data": [0.5] },
    ]});
    for (version, release) in [(1, "golden"), (other, "other")] {
        let model = format!("item_id_decoder/versions/{version}");
        let answer = served
            .server
            .infer_json(&model, &decoder)
            .expect("an answer");
        assert_eq!(answer["parameters"]["release"], release, "{answer}");
    }

    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::<String>::new());
    let switches = AtomicUsize::new(0);
    let start = Instant::now();
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, answered, faults, switches) = (&stop, &answered, &faults, &switches);
            let (served, expected, requests) = (&served, &expected, first.len());
            scope.spawn(move || {
                let mut last = String::new();
                // Each at its time whatever the answers take; one that is late is sent at once, none is left out.
                for number in (client..).step_by(CLIENTS as usize) {
                    let due = Duration::from_secs(1) * number / RATE;
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let request = number as usize % requests;
                    let fault = match served.ask(request) {
                        Err(error) => Some(format!("{error:#}")),
                        Ok(answer) => {
                            let right = &expected[answer.release.as_str()][request];
                            if last != answer.release {
                                switches.fetch_add(1, Ordering::Relaxed);
                                last.clone_from(&answer.release);
                            }
                            (answer != *right).then(|| format!("{answer:?} is not {right:?}"))
                        }
                    };
                    faults.lock().expect("no client panics").extend(fault);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for promotion in 0..50 {
            let version = if promotion % 2 == 0 { 1 } else { other };
            let begun = Instant::now();
            if let Err(error) = shop.promote(&served, version) {
                faults
                    .lock()
                    .expect("no client panics")
                    .push(format!("{error:#}"));
            }
            times.push(begun.elapsed());
            // Some answers of every release, or nothing could be mixed.
            let before = answered.load(Ordering::Relaxed);
            while answered.load(Ordering::Relaxed) < before + 8 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let answered = answered.into_inner();
    times.sort_unstable();
    println!(
        "{answered} answers in {:.1} s ({:.0} a second), a promotion took {:?} (median), {:?} (longest); clients saw {} switches",
        start.elapsed().as_secs_f64(),
        answered as f64 / start.elapsed().as_secs_f64(),
        times[25],
        times[49],
        switches.load(Ordering::Relaxed),
    );
    assert_eq!(
        faults.into_inner().expect("no client panics"),
        Vec::<String>::new()
    );
    assert!(answered >= 400, "{answered} answers");
    assert!(
        switches.into_inner() >= 50,
        "the clients saw the releases change"
    );
    assert_eq!(served.ask_all("other"), second);
    // All that time both releases' models stayed as they were first loaded: only ensembles came and went.
    let log = served.server.log();
    for model in shop.repository().models().expect("models") {
        assert!(
            !log.contains(&format!("unloaded '{model}'")),
            "{model} was loaded again:\n{log}"
        );
    }

    // A server that starts on the folder serves the promoted release, alone.
    served.server.stop().expect("a clean end");
    let served = shop.serve();
    assert_eq!(served.ask_all("other"), second);
    assert_eq!(served.ready_versions("dlrm_ranking"), [other]);
    // And goes back to one that it has not loaded.
    shop.promote(&served, 1).expect("a promotion");
    assert_eq!(served.ask_all("golden"), first);
}

#[test]
fn a_release_that_cannot_serve_leaves_the_old_one() {
    let shop = Shop::new();
    let served = shop.serve();
    let before = served.ask_all("golden");
    let refused = |version: u64, parts: &[&str]| {
        let error = shop
            .promote(&served, version)
            .expect_err("must not be promoted");
        let error = format!("{error:#}");
        for part in parts.iter().chain(&["golden (version 1) serves on"]) {
            assert!(error.contains(part), "no '{part}' in: {error}");
        }
        assert_eq!(served.ask_all("golden"), before);
        let repository = shop.repository();
        assert_eq!(repository.serving().expect("a version"), 1);
        assert!(
            repository
                .index()
                .expect("an index")
                .failed
                .contains_key(&version)
        );
        for model in repository.models().expect("models") {
            assert_eq!(served.ready_versions(&model), [1], "{model}");
        }
        assert!(served.triton.is_ready() && served.triton.is_model_ready(ENSEMBLE));
    };

    // Damaged after it was assembled: the server is not even asked.
    let damaged = shop.add_other("damaged");
    let path = shop
        .repository()
        .version_folder("faiss_retrieval", damaged)
        .join("index.faiss");
    let mut bytes = std::fs::read(&path).expect("the index");
    bytes[2000] ^= 1;
    std::fs::write(&path, bytes).expect("the index");
    refused(damaged, &["index.faiss", "SHA-256"]);

    // Whole, but no index: the backend refuses it.
    let pipeline = shop.pipeline();
    let mut run = artefacts(&pipeline, &shop.place("unloadable"));
    run.index = shop.place("no index");
    std::fs::write(&run.index, "this is no index").expect("a file");
    let unloadable = shop.add(&pipeline, &run, "unloadable");
    refused(
        unloadable,
        &["unloadable", "faiss_retrieval", "index.faiss"],
    );

    // A model of another run in its folder: refused, naming both.
    let mixed = shop.add_other("mixed");
    let repository = shop.repository();
    let model = |version| {
        repository
            .version_folder("query_tower", version)
            .join("model.onnx")
    };
    std::fs::copy(model(1), model(mixed)).expect("a model");
    let mut manifest = repository.manifest(mixed).expect("a manifest");
    let hash =
        repository.manifest(1).expect("a manifest").models["query_tower"].files["model.onnx"]
            .clone();
    let files = &mut manifest
        .models
        .get_mut("query_tower")
        .expect("a model")
        .files;
    files.insert("model.onnx".to_owned(), hash);
    let stamp = repository.version_folder("query_tower", mixed);
    let stamp = stamp.join("release.json");
    let text = std::fs::read_to_string(&stamp).expect("a release");
    let mut stamped: Value = serde_json::from_str(&text).expect("JSON");
    stamped["files"] = serde_json::to_value(&*files).expect("JSON");
    std::fs::write(&stamp, stamped.to_string()).expect("a release");
    repository.write_manifest(&manifest).expect("a manifest");
    refused(mixed, &["query_tower", "release golden", "release mixed"]);

    // It loads, but its index holds items that its decoder does not know.
    let strangers: Vec<i64> = golden_items().iter().map(|id| id + 1_000_000).collect();
    let mut run = artefacts(&pipeline, &shop.place("strange"));
    run.index = shop.index("strangers", &strangers);
    let strange = shop.add(&pipeline, &run, "strange");
    refused(strange, &["strange", "user -1", "no item for a new user"]);

    // A server that starts on all this takes up the old one, too.
    assert_eq!(shop.serve().ask_all("golden"), before);

    // What was wrong is remembered until it is promoted.
    let address = format!("127.0.0.1:{}", served.server.http_port);
    let output = shop.saker("releases", &address, &["--json"]).output();
    let output = output.expect("the program runs");
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let state = |version: u64| {
        let mut rows = listed["releases"].as_array().expect("rows").iter();
        let row = rows.find(|row| row["version"] == version).expect("a row");
        row["state"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(state(1), "serving");
    assert!(state(strange).starts_with("failed: "), "{listed}");
    let sound = shop.add_other("sound");
    let outcome = shop.promote(&served, sound).expect("a promotion");
    assert!(outcome.canary > Some(10), "{outcome:?}");
    served.ask_all("sound");
}

#[test]
fn a_killed_promotion_leaves_one_whole_release() {
    let shop = Shop::new();
    let other = shop.add_other("other");
    let mut served = shop.serve();
    let golden = served.ask_all("golden");
    // The line that the program prints when a stage is over, and what serves when it is killed there.
    for (line, expected) in [
        ("check the artefacts", "golden"),
        ("load the models", "golden"),
        ("ask the canary", ""),
        ("switch", "other"),
    ] {
        let address = format!("127.0.0.1:{}", served.server.http_port);
        let mut saker = shop.saker("promote", &address, &["--release", "other"]);
        let mut process = saker
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let mut said = Vec::new();
        for text in lines.map_while(Result::ok) {
            said.push(text.clone());
            if text.contains(line) {
                process.kill().expect("a kill");
                break;
            }
        }
        process.wait().expect("an end");
        assert!(said.iter().any(|text| text.contains(line)), "{said:?}");
        // The running server, and then one that starts on what the killed program left: each one whole release.
        let whole = |served: &Served| {
            let release = served.ask(0).expect("an answer").release;
            assert!(
                expected.is_empty() || release == expected,
                "{line}: {release}"
            );
            let answers = served.ask_all(&release);
            assert!(release != "golden" || answers == golden);
        };
        whole(&served);
        served.server.stop().expect("a clean end");
        served = shop.serve();
        whole(&served);
        // Back, where it got that far; the lock went with the killed process.
        if shop.repository().serving().expect("a version") == other {
            shop.promote(&served, 1).expect("a promotion");
        }
        assert_eq!(served.ask_all("golden"), golden);
    }
    shop.promote(&served, other).expect("a promotion");
    served.ask_all("other");
}

#[test]
fn old_releases_go_and_the_one_before_stays_loaded() {
    let shop = Shop::new();
    let served = shop.serve();
    let repository = shop.repository();
    let mut versions = vec![1];
    for release in ["b", "c", "d", "e"] {
        let version = shop.add_other(release);
        let outcome = shop.promote(&served, version).expect("a promotion");
        versions.push(version);
        assert_eq!(outcome.before, versions[versions.len() - 2]);
        served.ask_all(release);
        for model in repository.models().expect("models") {
            assert_eq!(
                served.ready_versions(&model),
                [outcome.before, version],
                "{model}"
            );
        }
    }
    assert_eq!(versions, [1, 2, 3, 4, 5], "a number is given once");
    let index = repository.index().expect("an index");
    assert_eq!(
        index.releases.keys().copied().collect::<Vec<_>>(),
        [3, 4, 5]
    );
    for version in 1..=5 {
        let there = repository
            .version_folder("faiss_retrieval", version)
            .exists();
        assert_eq!(there, version > 2, "version {version}");
        let manifest = repository.root().join(format!("manifest-{version}.json"));
        assert_eq!(manifest.exists(), version > 2, "version {version}");
    }

    let address = format!("127.0.0.1:{}", served.server.http_port);
    let run = |command: &str, arguments: &[&str]| {
        let output = shop
            .saker(command, &address, arguments)
            .output()
            .expect("the program runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    // Back, and back again: to the one that served before that.
    for release in ["d", "e", "d"] {
        let (done, text) = run("rollback", &[]);
        assert!(
            done && text.contains(&format!("{release} (version")),
            "{text}"
        );
        served.ask_all(release);
    }
    let (done, text) = run("rollback", &["--release", "c"]);
    assert!(done, "{text}");
    served.ask_all("c");
    let (done, text) = run("rollback", &["--release", "b"]);
    assert!(
        !done && text.contains("there is no release b; there are c (version 3)"),
        "{text}"
    );
    let (done, text) = run("releases", &[]);
    assert!(done, "{text}");
    let state = |release: &str| {
        text.lines()
            .find(|line| line.contains(&format!(" {release} ")))
            .expect("a row")
    };
    assert!(
        state("c").contains("serving") && state("d").contains("loaded"),
        "{text}"
    );
    assert!(state("e").contains("on disk"), "{text}");
    // Only one changes the repository at a time.
    let lock = repository.lock().expect("a lock");
    let (done, text) = run("promote", &[]);
    assert!(!done && text.contains("another saker"), "{text}");
    drop(lock);
    let (done, text) = run("promote", &[]);
    assert!(
        done && text.contains("e (version 5) serves, in place of c"),
        "{text}"
    );
}

/// Without a server the files alone change, and its next start serves the release.
#[test]
fn a_promotion_without_a_server_takes_effect_at_its_start() {
    let shop = Shop::new();
    let other = shop.add_other("other");
    let mut stages = Vec::new();
    let repository = shop.repository();
    let outcome = releases::promote(&repository, None, other, 1, &mut |stage| stages.push(stage));
    let outcome = outcome.expect("a promotion");
    assert_eq!((outcome.before, outcome.canary), (1, None));
    assert_eq!(stages, [Stage::Check, Stage::Switch, Stage::Prune]);
    assert!(
        Path::new(&repository.version_folder("query_tower", 1)).exists(),
        "kept for a rollback"
    );
    let served = shop.serve();
    served.ask_all("other");
    assert_eq!(served.ready_versions("query_tower"), [other]);
}
