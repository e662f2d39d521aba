//! The command line from raw tables to a recommendation: a small shop is prepared, trained, indexed,
//! materialised, assembled, served and asked, by the program itself.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use saker_testing::{runtime, valkey::Valkey};
use serde_json::Value;
use triton_testing::ports::free_port;

const DEFINITION: &str = r#"
[pipeline]
name = "tiny"

[data]
format = "atomic"
users.path = "users.user"
items.path = "items.item"
interactions = { path = "events.inter" }

[user]
id = "user_id"
columns = [{ name = "age", default = "mean" }, { name = "gender" }]

[[user.features]]
name = "user_id"
operators = [{ op = "Categorify" }]
embedding_dim = 8

[[user.features]]
name = "age_norm"
columns = ["age"]
operators = [{ op = "Normalize" }]

[context]
columns = [{ name = "timestamp", default = "now" }]

[[context.features]]
name = "hour_sine"
columns = ["timestamp"]
operators = [{ op = "LambdaOp", function = "hour" }, { op = "LambdaOp", function = "sine", period = 24.0 }]

[item]
id = "item_id"
title = "title"
columns = [{ name = "title", type = "text" }, { name = "category_l1" }]

[[item.features]]
name = "item_id"
operators = [{ op = "Categorify", padding = -1 }]
embedding_dim = 8

[[item.features]]
name = "category_l1"
operators = [{ op = "Categorify" }]

[[item.embeddings]]
name = "item_cooccurrence_embeddings"
dim = 4
source = { from = "cooccurrence" }

[towers]
layers = [16, 8]

[ranker]
embedding_dim = 8
bottom_layers = [16, 8]
top_layers = [16]

[training.towers]
epochs = 1

[training.ranker]
epochs = 1

[retrieval]
topk = 20

[ranking]
topk = 5

[store]
trending_categories = ["category_l1"]
"#;

pub(crate) const USERS: u32 = 60;
pub(crate) const ITEMS: u32 = 40;

/// The commands from tables to a model repository.
pub(crate) const STEPS: [&str; 5] = ["prepare", "train", "index", "materialize", "assemble"];

/// Sixty people of two tastes and forty items of two categories.
pub(crate) fn write_shop(folder: &Path) {
    let mut users = String::from("user_id:token\tage:token\tgender:token\n");
    let mut events = String::from("user_id:token\titem_id:token\ttimestamp:float\n");
    for user in 1..=USERS {
        let _ = writeln!(users, "{user}\t{}\t{}", 18 + user % 50, user % 2);
        for event in 0..12 {
            let item = (user * 7 + event * 3) % (ITEMS / 2) * 2 + user % 2;
            let time = 1_700_000_000 + user * 100 + event * 3600;
            let _ = writeln!(events, "{user}\t{}\t{time}", item + 1);
        }
    }
    let mut items = String::from("item_id:token\ttitle:token_seq\tcategory_l1:token\n");
    for item in 1..=ITEMS {
        let _ = writeln!(items, "{item}\tItem number {item}\t{}", item % 2);
    }
    for (file, text) in [
        ("users.user", users),
        ("items.item", items),
        ("events.inter", events),
        ("pipeline.toml", DEFINITION.to_owned()),
    ] {
        fs::write(folder.join(file), text).expect("the shop's files");
    }
}

/// Where something may listen.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port().expect("a port"))
}

/// The program, on this folder and this store, at free ports.
pub(crate) struct Shop {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) valkey: Valkey,
    pub(crate) ports: [u16; 3],
}

impl Shop {
    /// A small shop, of which nothing is made yet.
    pub(crate) fn new() -> Self {
        Self::of(write_shop)
    }

    /// A shop whose files, `pipeline.toml` among them, somebody writes.
    pub(crate) fn of(write: impl FnOnce(&Path)) -> Self {
        Self::on(Valkey::start().expect("a running Valkey"), write)
    }

    /// The same on a store of its own.
    pub(crate) fn on(valkey: Valkey, write: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path());
        Self {
            folder,
            valkey,
            ports: [(); 3].map(|()| free_port().expect("a port")),
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// The program with these arguments, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_saker"));
        command
            .args(arguments)
            .current_dir(runtime::workspace())
            .env("SAKER_PIPELINE", self.folder.path().join("pipeline.toml"))
            .env("SAKER_STATE", self.folder.path().join("state"))
            .env("SAKER_REDIS_URL", self.valkey.url(0).trim_end_matches("/0"))
            .env("SAKER_BACKENDS", runtime::backends().expect("backends"));
        for (name, port) in ["HTTP", "GRPC", "METRICS"].iter().zip(self.ports) {
            command.env(format!("SAKER_{name}_PORT"), port.to_string());
        }
        command
    }

    /// The same shop, assembled, but not served yet.
    pub(crate) fn assembled(self) -> Self {
        for step in STEPS {
            self.done(&[step, "tiny"]);
        }
        self
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "saker {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.run(&["stop"]);
    }
}

#[test]
fn from_tables_to_a_recommendation() {
    let shop = Shop::new();
    // Out of order: the error says what to run first.
    let output = shop.run(&["serve", "tiny", "--detach"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("saker assemble"), "{error}");

    let shop = shop.assembled();
    let releases = shop
        .folder
        .path()
        .join("state/tiny/repository/releases.json");
    let release = fs::read_to_string(&releases).expect("a release");
    // Again: nothing has changed, so nothing is made.
    for step in ["prepare", "train", "index", "assemble"] {
        shop.done(&[step, "tiny"]);
    }
    assert_eq!(fs::read_to_string(&releases).expect("a release"), release);

    shop.done(&["serve", "tiny", "--detach"]);
    for user in ["7", "59", "-1", "2147483647"] {
        let text = shop.done(&["recommend", "tiny", "--user", user]);
        assert_eq!(
            text.matches("Item number").count(),
            5,
            "user {user}: {text}"
        );
    }
    let text = shop.done(&["recommend", "tiny", "--user", "7", "--explain"]);
    for step in ["feast_user_lookup", "faiss_retrieval", "item_id_decoder"] {
        assert!(text.contains(step), "{text}");
    }
    assert!(!text.contains("degraded: "), "{text}");
    let fused = shop.done(&["recommend", "tiny", "--user", "7", "--fused", "--explain"]);
    for step in ["fused_recommendation", "ensemble_fused"] {
        assert!(fused.contains(step), "{fused}");
    }
    shop.valkey.kill();
    let text = shop.done(&["recommend", "tiny", "--user", "7"]);
    assert!(
        text.contains("degraded: feast_user_lookup, filter_seen_items"),
        "{text}"
    );
    assert_eq!(text.matches("Item number").count(), 5, "{text}");
    shop.valkey.restart().expect("a restart");
    shop.done(&["evaluate", "tiny"]);
    // What was measured is noted on the release; a new one takes over in the running server, and goes again.
    let text = shop.done(&["assemble", "tiny"]);
    assert!(text.contains("noted what was measured"), "{text}");
    let listed = || -> Value {
        let text = shop.done(&["releases", "tiny", "--json"]);
        serde_json::from_str(&text).expect("JSON")
    };
    let metrics = &listed()["releases"][0]["metrics"];
    assert!(metrics["methods"].is_array(), "{metrics}");
    only_what_is_not_worse_may_be_promoted(&shop);
    shop.done(&["assemble", "tiny", "--force", "--release", "next"]);
    let answered = || -> Value {
        let text = shop.done(&["recommend", "tiny", "--user", "7", "--json"]);
        serde_json::from_str(&text).expect("JSON")
    };
    let first = answered()["release"].clone();
    assert_ne!(first, "next");
    shop.done(&["promote", "tiny"]);
    assert_eq!(answered()["release"], "next");
    shop.done(&["recommend", "tiny", "--user", "7", "--explain"]);
    let rows = listed()["releases"].clone();
    assert_eq!(
        (&rows[0]["release"], &rows[0]["state"]),
        (&"next".into(), &"serving".into())
    );
    assert_eq!(
        (&rows[1]["release"], &rows[1]["state"]),
        (&first, &"loaded".into())
    );
    assert_eq!(
        rows[0]["data"]["interactions"],
        rows[1]["data"]["interactions"]
    );
    assert!(
        rows[0]["data"]["first"].as_i64() >= Some(1_700_000_000),
        "{rows}"
    );
    shop.done(&["rollback", "tiny"]);
    assert_eq!(answered()["release"], first);
    shop.done(&["stop", "tiny"]);
    let server = format!("127.0.0.1:{}", shop.ports[0]);
    let output = shop.run(&["recommend", "tiny", "--user", "7", "--server", &server]);
    assert_eq!(output.status.code(), Some(1));
}

/// The models are as good as the release made of them, and worse than one that was measured as better.
fn only_what_is_not_worse_may_be_promoted(shop: &Shop) {
    let text = shop.done(&["evaluate", "tiny", "--against", "current"]);
    assert!(
        text.contains("promote: no part is worse") && text.contains("+0.0000"),
        "{text}"
    );
    let path = shop
        .folder
        .path()
        .join("state/tiny/repository/manifest-1.json");
    let before = fs::read_to_string(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_str(&before).expect("JSON");
    let methods = manifest["metrics"]["methods"].as_array_mut();
    for method in methods.expect("methods") {
        if method["method"] == "ranked list" {
            method["list"]["ndcg_10"] = 0.99.into();
        }
    }
    fs::write(&path, manifest.to_string()).expect("a manifest");
    let output = shop.run(&["evaluate", "tiny", "--against", "current"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("keep: worse than"), "{said}");
    // For a pipeline that branches on it: the verdict as a file, and no failure.
    let verdict = shop.folder.path().join("gate/verdict");
    let place = verdict.to_str().expect("a path");
    let other = |name: &str| verdict.with_file_name(name);
    let (comparison, reason) = (other("comparison.json"), other("reason"));
    let (metrics, report) = (other("metrics.json"), other("report.html"));
    let mut evaluate = vec!["evaluate", "tiny", "--against", "1", "--verdict", place];
    for (option, path) in [
        ("--comparison", &comparison),
        ("--reason", &reason),
        ("--metrics", &metrics),
        ("--report", &report),
    ] {
        evaluate.extend([option, path.to_str().expect("a path")]);
    }
    shop.done(&evaluate);
    assert!(
        fs::read_to_string(&reason)
            .expect("a reason")
            .contains("worse")
    );
    let page = fs::read_to_string(&report).expect("a report");
    assert!(page.contains("<html"));
    let metrics = fs::read(&metrics).expect("metrics");
    serde_json::from_slice::<serde_json::Value>(&metrics).expect("JSON");
    assert_eq!(fs::read_to_string(&verdict).expect("a verdict"), "keep");
    let details = fs::read(&comparison).expect("the comparison");
    let details: Value = serde_json::from_slice(&details).expect("JSON");
    assert_eq!(details["parts"][0]["worse"], true, "{details}");
    fs::write(&path, before).expect("a manifest");
}

/// Two assembled within one second are two releases.
#[test]
fn releases_of_one_second_have_ids_of_their_own() {
    let shop = Shop::new().assembled();
    for _ in 0..3 {
        shop.done(&["assemble", "tiny", "--force"]);
    }
    let releases = shop.done(&["releases", "tiny", "--json"]);
    let releases: Value = serde_json::from_str(&releases).expect("JSON");
    let ids = releases["releases"].as_array().expect("releases").iter();
    let ids: BTreeSet<_> = ids
        .filter_map(|release| release["release"].as_str())
        .collect();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

/// Whatever `saker train` does when Ctrl-C comes, it ends soon, and the next run goes on.
#[test]
fn training_ends_on_ctrl_c() {
    let shop = Shop::new();
    shop.done(&["prepare", "tiny"]);
    for milliseconds in (1..=8).map(|step| step * 200) {
        let mut train = shop.command(&["train", "tiny", "--force"]);
        let train = train.stderr(Stdio::null()).stdout(Stdio::null());
        let mut train = train.spawn().expect("the program runs");
        thread::sleep(Duration::from_millis(milliseconds));
        let id = Pid::from_child(&train);
        kill_process(id, Signal::INT).expect("a signal");
        let begin = Instant::now();
        while train.try_wait().expect("its status").is_none() {
            if begin.elapsed() > Duration::from_secs(10) {
                train.kill().expect("an end");
                panic!("Ctrl-C after {milliseconds} ms is ignored");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    shop.done(&["train", "tiny"]);
}

/// The version of the data, the published release and its labels.
#[test]
fn what_a_pipeline_hands_on_is_in_files() {
    let shop = Shop::new().assembled();
    let file = |name: &str| shop.folder.path().join("outputs").join(name);
    let version = |name: &str, more: &[&str]| {
        let path = file(name);
        let place = path.to_str().expect("a path");
        shop.done(&[&["prepare", "tiny", "--data-version", place], more].concat());
        fs::read_to_string(&path).expect("a version")
    };
    let first = version("first", &[]);
    assert!(first.len() == 16 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    // Neither the store nor a run changes it.
    let other_store = ["--redis-url", "redis://user:secret@127.0.0.1:1"];
    assert_eq!(version("second", &other_store), first);

    let labels = ["--label", "run=7", "--label", "state=/state/a=b"];
    shop.done(&[&["assemble", "tiny", "--force"], &labels[..]].concat());
    for wrong in ["run", "=7", "run=", "Run=7", "7=run"] {
        let output = shop.run(&["assemble", "tiny", "--label", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    let store = shop.folder.path().join("releases");
    let store = store.to_str().expect("a path");
    let published = file("published");
    let place = published.to_str().expect("a path");
    for _ in 0..2 {
        shop.done(&["publish", "tiny", "--to", store, "--published", place]);
        let id = fs::read_to_string(&published).expect("an id");
        let listed = shop.done(&["releases", "--from", store, "--json"]);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(listed["releases"][0]["release"], *id, "{listed}");
        assert_eq!(listed["releases"][0]["labels"]["run"], "7", "{listed}");
    }
    // Every step of a training has the address in its environment.
    shop.done(&["evaluate", "tiny", "--users", "10", "--releases", store]);
    let label = ["releases", "--from", store, "--label"];
    let nothing = shop.run(&[&label[..], &["state"]].concat());
    assert_eq!(nothing.status.code(), Some(1));
    shop.done(&["promote", "tiny", "--to", store]);
    assert_eq!(
        shop.done(&[&label[..], &["state"]].concat()).trim_end(),
        "/state/a=b"
    );
    let path = file("state");
    let place = path.to_str().expect("a path");
    shop.done(&[&label[..], &["state", "--output", place]].concat());
    assert_eq!(fs::read_to_string(&path).expect("a label"), "/state/a=b");
    assert_eq!(
        shop.run(&[&label[..], &["other"]].concat()).status.code(),
        Some(1)
    );
}
