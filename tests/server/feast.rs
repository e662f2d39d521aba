//! A shop whose online store a real Feast fills, as people have it: what the lookups find, and what Feast reads of what
//! `saker materialize` writes.

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use saker_testing::runtime;
use serde_json::{Value, json};

use crate::pipeline::{Shop, write_shop};
use crate::support::until::until;

/// A running tests/server/feast_store.py.
struct Feast {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Feast {
    /// Fills the shop's store.
    fn write(shop: &Shop, kind: &str) -> Self {
        let mut process = Command::new(runtime::peers_python().expect("Feast"))
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/server/feast_store.py"
            ))
            .arg(shop.folder.path().join("feast"))
            .args([&shop.valkey.port().to_string(), kind])
            .env("FEAST_USAGE", "False")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a Python with Feast");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut feast = Self { process, lines };
        feast.next("written");
        feast
    }

    /// Lines that Feast prints of its own accord are passed over.
    fn next(&mut self, begins: &str) -> String {
        self.lines
            .by_ref()
            .map(|line| line.expect("a line"))
            .find(|line| line.starts_with(begins))
            .unwrap_or_else(|| panic!("Feast ended before it printed '{begins}…'"))
    }

    /// The ages that Feast reads of the users 7 and 61.
    fn ages(mut self) -> Value {
        let mut input = self.process.stdin.take().expect("its input");
        input.write_all(b"read\n").expect("a reader");
        let answers: Value = serde_json::from_str(&self.next("{")).expect("JSON");
        assert!(self.process.wait().expect("its end").success());
        answers["age"].clone()
    }
}

fn trained() -> Shop {
    let shop = Shop::new();
    for step in ["prepare", "train", "index"] {
        shop.done(&[step, "tiny"]);
    }
    shop
}

/// What a lookup answers to these ids.
fn look_up(shop: &Shop, model: &str, input: &str, ids: &[i32], output: &str) -> Value {
    let url = format!("http://127.0.0.1:{}/v2/models/{model}/infer", shop.ports[0]);
    let tensor = json!({ "name": input, "datatype": "INT32", "shape": [ids.len()], "data": ids });
    let request = json!({ "inputs": [tensor], "outputs": [{ "name": output }] });
    let mut response = ureq::post(url).send_json(&request).expect("an answer");
    let answer: Value = response.body_mut().read_json().expect("JSON");
    answer["outputs"][0]["data"].clone()
}

/// Feast fills the store and nobody tells Saker how.
fn is_served(kind: &str) {
    let shop = trained();
    let feast = Feast::write(&shop, kind);
    shop.done(&["assemble", "tiny"]);
    shop.done(&["serve", "tiny", "--detach"]);
    let ages = || look_up(&shop, "feast_user_lookup", "user_id", &[7, 61, 60], "age");
    let found = until(ages, |ages| ages[0] == 107);
    assert_eq!(found[2], 160, "{kind}");
    let ids = look_up(
        &shop,
        "feast_user_lookup",
        "user_id",
        &[7, 61, -1],
        "user_id",
    );
    assert_eq!(ids, json!([7, -1, -1]), "{kind}");
    let categories = look_up(
        &shop,
        "feast_item_lookup",
        "filtered_ids",
        &[3, 4, 99],
        "category_l1",
    );
    assert_eq!(categories, json!([1, 0, -1]), "{kind}");
    for ensemble in [&[][..], &["--fused"]] {
        let ask = [&["recommend", "tiny", "--user", "7"], ensemble].concat();
        assert_eq!(shop.done(&ask).matches("Item number").count(), 5, "{kind}");
    }

    // The other direction: what we write is for the same entities.
    shop.done(&["materialize", "tiny"]);
    assert_eq!(ages()[0], 25, "{kind}");
    assert_eq!(feast.ages(), json!([25, null]), "{kind}");
}

#[test]
fn ids_of_pandas() {
    is_served("INT64");
}

#[test]
fn ids_that_are_texts() {
    is_served("STRING");
}

/// The genders are texts in the source and in Feast, and codes in the models.
#[test]
fn texts_are_served_as_the_codes_of_training() {
    let shop = Shop::of(|folder| {
        write_shop(folder);
        let edit = |file: &str, change: &dyn Fn(String) -> String| {
            let text = fs::read_to_string(folder.join(file)).expect("a file of the shop");
            let changed = change(text.clone());
            assert_ne!(changed, text);
            fs::write(folder.join(file), changed).expect("the file again");
        };
        edit("pipeline.toml", &|text| {
            text.replace(
                r#"{ name = "gender" }"#,
                r#"{ name = "gender", codes = "value" }"#,
            )
        });
        edit("users.user", &|text| {
            text.replace("\t0\n", "\tF\n").replace("\t1\n", "\tM\n")
        });
    });
    for step in ["prepare", "train", "index"] {
        shop.done(&[step, "tiny"]);
    }
    let feast = Feast::write(&shop, "TEXT");
    shop.done(&["assemble", "tiny"]);
    shop.done(&["serve", "tiny", "--detach"]);
    // In the order of the alphabet; 60 has a gender that training did not see, and 61 is nobody.
    let genders = || {
        look_up(
            &shop,
            "feast_user_lookup",
            "user_id",
            &[7, 8, 60, 61],
            "gender",
        )
    };
    let found = until(genders, |genders| genders[0] == 1);
    assert_eq!(found, json!([1, 0, -1, -1]));
    let metrics = format!("http://127.0.0.1:{}/metrics", shop.ports[2]);
    let mut metrics = ureq::get(metrics).call().expect("metrics");
    let metrics = metrics.body_mut().read_to_string().expect("a text");
    let unreadable = metrics.lines().find(|line| {
        line.starts_with("saker_feature_lookup_unreadable_total")
            && line.contains("feast_user_lookup")
    });
    assert!(
        unreadable.is_some_and(|line| !line.ends_with(" 0")),
        "{unreadable:?}"
    );
    let fused = shop.done(&["recommend", "tiny", "--user", "7", "--fused"]);
    assert_eq!(fused.matches("Item number").count(), 5, "{fused}");
    shop.done(&["materialize", "tiny"]);
    assert_eq!(genders(), json!([1, 0, 0, -1]));
    assert_eq!(feast.ages(), json!([25, null]));
}

#[test]
fn users_of_several_shops_are_refused_in_words() {
    let shop = trained();
    let feast = Feast::write(&shop, "PAIR");
    let output = shop
        .command(&["assemble", "tiny"])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    for part in [
        "user_features",
        "shop_id (STRING) and user_id (INT64)",
        "user_id alone",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(feast.ages(), json!([107, null]));
}
