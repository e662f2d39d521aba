//! A whole shop under `saker serve --shop`: whatever is killed or hangs comes back, a killed supervisor is replaced, and `saker
//! stop` leaves nothing running.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::pipeline::{Shop, free_address};
use crate::support::until::until_so as until;

const PARTS: [&str; 3] = ["gateway", "updater", "triton"];

/// Process ids by part, of those that run.
fn running(shop: &Shop) -> BTreeMap<&'static str, i32> {
    let id = |part: &&'static str| {
        let record = shop
            .folder
            .path()
            .join(format!("state/tiny/run/{part}.json"));
        let record: Value = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
        let id = i32::try_from(record["id"].as_i64()?).ok()?;
        fs::exists(format!("/proc/{id}"))
            .ok()?
            .then_some((*part, id))
    };
    PARTS.iter().filter_map(id).collect()
}

fn signal(id: i32, signal: Signal) {
    kill_process(Pid::from_raw(id).expect("a process"), signal).expect("a signal");
}

fn recommends(shop: &Shop) -> bool {
    let url = format!(
        "http://127.0.0.1:{}/v2/models/ensemble_model/infer",
        shop.ports[0]
    );
    let body = json!({ "inputs": [{ "name": "user_id", "shape": [1], "datatype": "INT32", "data": [7] }] });
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(1)))
        .build()
        .into();
    let asked = agent.post(url).send(body.to_string());
    asked.is_ok_and(|response| response.status() == 200)
}

fn status(shop: &Shop) -> Value {
    serde_json::from_str(&shop.done(&["status", "tiny", "--json"])).expect("JSON")
}

#[test]
fn a_hung_triton_is_started_again() {
    let shop = Shop::new().assembled();
    shop.done(&["serve", "tiny", "--detach"]);
    assert_eq!(status(&shop)["ready"], true);
    let before = running(&shop)["triton"];
    // Its ports stay open, and connections to them succeed.
    signal(before, Signal::STOP);
    let start = Instant::now();
    until("the hung Triton is still there", || {
        running(&shop).get("triton").is_some_and(|id| *id != before)
    });
    let replaced = start.elapsed();
    assert!(replaced < Duration::from_secs(5), "{replaced:?}");
    until("no recommendations", || recommends(&shop));
    let log = shop.folder.path().join("state/tiny/logs/serve.log");
    let log = fs::read_to_string(log).expect("the supervisor's log");
    assert!(log.contains("triton hangs, restarting it"), "{log}");
}

#[test]
fn what_a_killed_supervisor_leaves_running_is_taken_over() {
    let shop = Shop::new().assembled();
    shop.done(&["serve", "tiny", "--detach"]);
    let record = shop.folder.path().join("state/tiny/run/serve.json");
    let supervisor = || -> i32 {
        let record: Value =
            serde_json::from_slice(&fs::read(&record).expect("a record")).expect("JSON");
        i32::try_from(record["id"].as_i64().expect("an id")).expect("an id")
    };
    let (first, triton) = (supervisor(), running(&shop)["triton"]);
    signal(first, Signal::KILL);
    until("the supervisor still runs", || {
        status(&shop)["ready"] == false
    });
    assert!(recommends(&shop), "Triton goes on without its supervisor");
    shop.done(&["serve", "tiny", "--detach"]);
    assert_eq!(status(&shop)["ready"], true);
    assert_ne!(supervisor(), first);
    assert_eq!(running(&shop)["triton"], triton, "the same Triton");
    let again = shop.done(&["serve", "tiny", "--detach"]);
    assert!(again.contains("is served already"), "{again}");
    // What it took over, it also restarts.
    signal(triton, Signal::KILL);
    until("the killed Triton is not back", || {
        running(&shop).get("triton").is_some_and(|id| *id != triton) && recommends(&shop)
    });
    let triton = running(&shop)["triton"];
    shop.done(&["stop", "tiny"]);
    assert!(!fs::exists(format!("/proc/{triton}")).expect("procfs"));
}

#[test]
fn only_who_has_the_key_controls_the_server() {
    let shop = Shop::new().assembled();
    shop.done(&["serve", "tiny", "--detach"]);
    let key = shop.folder.path().join("state/tiny/run/control.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&key).expect("the key").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let key = fs::read_to_string(key).expect("the key");
    let post = |path: &str, key: Option<&str>, body: &Value| {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let url = format!("http://127.0.0.1:{}/v2/{path}", shop.ports[0]);
        // As a web page sends it: without a preflight.
        let mut request = agent.post(url).header("Content-Type", "text/plain");
        if let Some(key) = key {
            request = request.header("saker-control-key", key);
        }
        request
            .send(body.to_string())
            .expect("an answer")
            .status()
            .as_u16()
    };
    // A load request can bring a configuration and a shared library along.
    let library = json!({ "parameters": {
        "config": "{\"backend\": \"evil\", \"max_batch_size\": 0}",
        "file:1/libtriton_evil.so": "f0VMRg==",
    }});
    let nothing = json!({});
    for (path, body) in [
        ("repository/models/evil/load", &library),
        ("repository/models/ensemble_model/unload", &nothing),
        ("repository/index", &nothing),
        ("systemsharedmemory/region/x/register", &nothing),
        ("logging", &json!({ "log_file": "/tmp/x" })),
        ("trace/setting", &json!({ "trace_file": "/tmp/x" })),
    ] {
        for key in [None, Some("0"), Some("")] {
            assert_eq!(post(path, key, body), 403, "{path}");
        }
    }
    assert_eq!(post("repository/index", Some(&key), &nothing), 200);
    assert!(recommends(&shop));
    // Promotion has the key.
    let definition = shop.folder.path().join("pipeline.toml");
    let text = fs::read_to_string(&definition).expect("the definition");
    fs::write(&definition, text.replace("topk = 5", "topk = 4")).expect("a change");
    shop.done(&["assemble", "tiny"]);
    shop.done(&["promote", "tiny"]);
    assert!(recommends(&shop));
}

#[test]
fn what_is_killed_is_said_and_started_again() {
    let shop = Shop::new().assembled();
    let (listen, metrics) = (free_address(), free_address());
    let serve = ["serve", "tiny", "--shop", "--detach"];
    let addresses = ["--listen", &listen, "--updater-metrics", &metrics];
    let said = shop.done(&[&serve[..], &addresses].concat());
    assert!(said.contains(&format!("http://{listen}/")), "{said}");
    let answers = |path: &str| {
        let asked = ureq::get(format!("http://{path}")).call();
        asked.is_ok_and(|response| response.status() == 200)
    };
    let before = running(&shop);
    assert_eq!(before.len(), PARTS.len(), "{before:?}");
    for id in before.values() {
        signal(*id, Signal::KILL);
    }
    until("the killed parts are not back", || {
        let now = running(&shop);
        now.len() == PARTS.len() && now.iter().all(|(part, id)| before[part] != *id)
    });
    until("the gateway is not ready", || {
        answers(&format!("{listen}/health/ready"))
    });
    until("the updater does not answer", || {
        answers(&format!("{metrics}/metrics"))
    });
    until("recommendations are not back", || {
        let asked = ureq::get(format!("http://{listen}/recommendations?user_id=7")).call();
        asked.is_ok_and(|mut response| {
            let answer: Value = response.body_mut().read_json().expect("JSON");
            answer["degraded"] == false && answer["items"].as_array().map(Vec::len) == Some(5)
        })
    });
    let log = shop.folder.path().join("state/tiny/logs/serve.log");
    for part in PARTS {
        for said in ["has ended and is started again", "runs again"] {
            let line = format!("{part} {said}");
            // A part may answer a moment before the supervisor has said so.
            until(&format!("the supervisor's log lacks {line:?}"), || {
                fs::read_to_string(&log).is_ok_and(|log| log.contains(&line))
            });
        }
    }
    let now = running(&shop);
    shop.done(&["stop"]);
    for id in now.values() {
        assert!(
            !fs::exists(format!("/proc/{id}")).expect("procfs"),
            "{now:?}"
        );
    }
    // A taken address is said before anything is started.
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    let output = shop
        .command(&["serve", "tiny", "--shop", "--listen", &taken])
        .output()
        .expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    assert!(
        error.contains("where the gateway is to listen, is taken"),
        "{error}"
    );
    assert!(running(&shop).is_empty());
}
