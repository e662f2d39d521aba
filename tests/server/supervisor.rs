//! A whole shop under `saker serve --shop`: whatever is killed comes back, and `saker stop` leaves nothing running.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::pipeline::{Shop, free_address};

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

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_killed_is_said_and_started_again() {
    let shop = Shop::new();
    for step in ["prepare", "train", "index", "materialize", "assemble"] {
        shop.done(&[step, "tiny"]);
    }
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
        let id = rustix::process::Pid::from_raw(*id).expect("a process");
        rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("a kill");
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
