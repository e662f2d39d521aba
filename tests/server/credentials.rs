//! The login of a store: every part of a shop reaches the store with it, and nobody else gets to see it.

use std::{fs, path::Path, thread, time::Duration};

use saker_testing::valkey::Valkey;
use serde_json::Value;

use crate::pipeline::{STEPS, Shop, free_address, write_shop};
use crate::support::until::until;

const USER: &str = "saker-of-the-shop";
const PASSWORD: &str = "opensesame-7391";

/// Where the login stands in a folder.
fn leaks(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            leaks(&path, found);
        } else if let Ok(content) = fs::read(&path)
            && is_leaked(&content)
        {
            found.push(path.display().to_string());
        }
    }
}

fn is_leaked(content: &[u8]) -> bool {
    let holds = |word: &str| {
        content
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    };
    holds(PASSWORD) || holds(USER)
}

fn get(url: &str) -> String {
    let mut response = ureq::get(url)
        .call()
        .unwrap_or_else(|error| panic!("{url}: {error}"));
    response.body_mut().read_to_string().expect("a text")
}

/// What a shop answers to whoever asks it.
fn endpoints(shop: &Shop, gateway: &str, updater: &str, models: &[String]) -> Vec<String> {
    let [http, _, metrics] = shop.ports;
    let triton = format!("http://127.0.0.1:{http}/v2");
    let mut urls = vec![
        triton.clone(),
        format!("http://127.0.0.1:{metrics}/metrics"),
        format!("http://{updater}/metrics"),
    ];
    for model in models {
        urls.extend(["", "/config", "/stats"].map(|page| format!("{triton}/models/{model}{page}")));
    }
    for page in [
        "metrics",
        "openapi.json",
        "health/live",
        "health/ready",
        "users/7",
        "users?k=5",
        "operators",
        "explain?user_id=7",
        "recommendations?user_id=7",
    ] {
        urls.push(format!("http://{gateway}/{page}"));
    }
    urls
}

#[test]
fn the_login_of_a_store_is_in_no_file_log_endpoint_metric_or_argument() {
    let valkey = Valkey::builder()
        .user(USER, PASSWORD)
        .start()
        .expect("a running Valkey");
    let shop = Shop::on(valkey, write_shop);
    for step in ["prepare", "train", "index", "materialize"] {
        shop.done(&[step, "tiny"]);
    }
    let said = shop.done(&["assemble", "tiny"]);
    assert!(said.contains("SAKER_REDIS_URL_FILE"), "{said}");
    let repository = shop.folder.path().join("state/tiny/repository");
    let lookup = fs::read_to_string(repository.join("feast_user_lookup/config.pbtxt"));
    let lookup = lookup.expect("a config");
    assert!(lookup.contains("env:SAKER_REDIS_URL#0"), "{lookup}");

    // Given as an argument, the address goes no further as one.
    let (gateway, updater) = (free_address(), free_address());
    let url = shop.valkey.url(0);
    let output = shop
        .command(&["serve", "tiny", "--shop", "--detach"])
        .args(["--redis-url", url.trim_end_matches("/0")])
        .args(["--listen", &gateway, "--updater-metrics", &updater])
        .env_remove("SAKER_REDIS_URL")
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for record in ["serve", "triton", "updater", "gateway"] {
        let record = shop
            .folder
            .path()
            .join(format!("state/tiny/run/{record}.json"));
        let record: Value =
            serde_json::from_slice(&fs::read(&record).expect("a record")).expect("JSON");
        let arguments = fs::read(format!("/proc/{}/cmdline", record["id"])).expect("a process");
        assert!(!arguments.is_empty() && !is_leaked(&arguments), "{record}");
    }

    // All parts have logged in.
    let degraded = || {
        let answer = get(&format!("http://{gateway}/recommendations?user_id=7"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["degraded"].clone()
    };
    until(degraded, |degraded| *degraded == false);
    let user: Value =
        serde_json::from_str(&get(&format!("http://{gateway}/users/7"))).expect("JSON");
    assert_eq!(user["features"]["age"], 25, "{user}");
    for ensemble in [&[][..], &["--fused"]] {
        let ask = [&["recommend", "tiny", "--user", "7", "--explain"], ensemble].concat();
        let said = shop.done(&ask);
        assert!(!said.contains("degraded: "), "{said}");
    }

    let models: Vec<String> = fs::read_dir(&repository)
        .expect("the repository")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect();
    assert!(models.len() >= 15, "{models:?}");
    // A store that goes and comes back is what logs speak of.
    shop.valkey.kill();
    for _ in 0..5 {
        ureq::get(format!("http://{gateway}/recommendations?user_id=8"))
            .call()
            .ok();
        ureq::get(format!("http://{gateway}/users/8")).call().ok();
        thread::sleep(Duration::from_millis(200));
    }
    shop.valkey.restart().expect("a restart");
    let answers = |page: &str| ureq::get(format!("http://{gateway}/{page}")).call().is_ok();
    until(|| answers("users/7") && answers("health/ready"), |all| *all);
    for url in endpoints(&shop, &gateway, &updater, &models) {
        let text = get(&url);
        assert!(
            !text.is_empty() && !is_leaked(text.as_bytes()),
            "{url}: {text}"
        );
    }
    let mut found = Vec::new();
    leaks(&shop.folder.path().join("state"), &mut found);
    assert_eq!(found, Vec::<String>::new());
    let log = fs::read_to_string(shop.folder.path().join("state/tiny/logs/triton.log"));
    let log = log.expect("a log");
    assert!(log.contains("the store gives no features"), "{log}");

    // A wrong password is no reason to show it, or the right one.
    let wrong = url
        .trim_end_matches("/0")
        .replace(PASSWORD, "opensesame-7391-not");
    let output = shop
        .command(&["materialize", "tiny"])
        .env("SAKER_REDIS_URL", wrong)
        .output()
        .expect("the program runs");
    assert!(!output.status.success());
    for said in [&output.stdout, &output.stderr] {
        assert!(!is_leaked(said), "{}", String::from_utf8_lossy(said));
    }
}

#[test]
fn the_address_may_be_in_a_file() {
    let valkey = Valkey::builder()
        .user(USER, PASSWORD)
        .start()
        .expect("a running Valkey");
    let shop = Shop::on(valkey, write_shop);
    let secret = shop.folder.path().join("secret");
    fs::write(&secret, shop.valkey.url(0).trim_end_matches("/0")).expect("a secret");
    let run = |arguments: &[&str]| {
        let output = shop
            .command(arguments)
            .env_remove("SAKER_REDIS_URL")
            .env("SAKER_REDIS_URL_FILE", &secret)
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    for step in STEPS {
        run(&[step, "tiny"]);
    }
    run(&["serve", "tiny", "--detach"]);
    let said = shop.done(&["recommend", "tiny", "--user", "7", "--explain"]);
    assert!(!said.contains("degraded: "), "{said}");
    let mut found = Vec::new();
    leaks(&shop.folder.path().join("state"), &mut found);
    assert_eq!(found, Vec::<String>::new());
}
