//! The shop's pages in a headless Chromium: a small retail shop, trained, served with updater and gateway.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use saker_testing::runtime;
use serde_json::Value;

use crate::pipeline::{STEPS, Shop, free_address};

/// The retail shop without texts and pictures, whose encoders take minutes and change nothing on the page.
fn retail() -> Shop {
    let shop = Shop::of(|folder| {
        let retail = fs::read_to_string(runtime::workspace().join("examples/retail/pipeline.toml"))
            .expect("the retail definition");
        let (features, rest) = retail
            .split_once("[[item.embeddings]]")
            .expect("embeddings");
        let (_, rest) = rest.split_once("\n[training]").expect("training");
        let definition = format!("{features}[training]{rest}");
        fs::write(folder.join("pipeline.toml"), definition).expect("a definition");
    });
    let source = shop.folder.path().join("state/retail/source");
    let source = source.to_str().expect("a path");
    let size = [
        "--users",
        "1500",
        "--items",
        "300",
        "--interactions",
        "60000",
    ];
    shop.done(&[&["generate", "retail", "--out", source][..], &size].concat());
    for step in STEPS {
        shop.done(&[step, "retail"]);
    }
    shop
}

#[test]
fn the_pages_work_in_a_browser() {
    let shop = retail();
    let (listen, metrics) = (free_address(), free_address());
    let addresses = ["--listen", &listen, "--updater-metrics", &metrics];
    shop.done(&[&["serve", "retail", "--shop", "--detach"][..], &addresses].concat());
    let address = format!("http://{listen}");
    let read = |path: &str| -> Value {
        let mut response = ureq::get(format!("{address}{path}"))
            .call()
            .expect("an answer");
        response.body_mut().read_json().expect("JSON")
    };
    let user = read("/users?k=1")["users"][0]["user_id"].to_string();
    let running = fs::read(shop.folder.path().join("state/retail/run/triton.json"));
    let running: Value = serde_json::from_slice(&running.expect("Triton's record")).expect("JSON");

    let screenshots = runtime::workspace().join(".saker/screenshots");
    let mut node = Command::new("node");
    node.arg("--test")
        .arg("--test-reporter=spec")
        .arg(runtime::workspace().join("tests/storefront/storefront.test.mjs"))
        .env("SHOP", &address)
        .env("TRITON_PROCESS", running["id"].to_string())
        .env("KNOWN_USER", user)
        .env("PLAYWRIGHT", playwright())
        .env("CHROMIUM", "/usr/bin/chromium")
        .env("SCREENSHOTS", &screenshots)
        .stdin(Stdio::null());
    let output = node
        .output()
        .expect("node runs; scripts/install --tests installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success(),
        "{said}{}\npictures of the pages: {}",
        String::from_utf8_lossy(&output.stderr),
        screenshots.display()
    );
}

/// The folder that `scripts/install --tests` makes.
fn playwright() -> PathBuf {
    let cache = std::env::var_os("SAKER_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(home?.join(".cache/saker")));
    let folder = cache
        .expect("SAKER_CACHE or HOME")
        .join("runtime/playwright");
    assert!(
        folder.exists(),
        "{} is missing; run scripts/install --tests",
        folder.display()
    );
    folder
}
